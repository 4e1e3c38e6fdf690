"""The shapes of a model, as they stand beside its weights, and how to build it from them."""

from dataclasses import dataclass
from typing import Any

from model.nn.backbone import Backbone
from model.nn.click import ClickModel
from model.nn.psu import PSU


@dataclass(frozen=True)
class Spec:
    """Shapes of the backbone and its search; `id_rows` counts the unknown item's row 0."""

    dim: int
    heads: int
    retrieved: int
    recent: int
    search: str
    id_rows: int
    attribute_rows: int
    token_rows: int
    text_width: int
    image_width: int
    history: int = 0  # the newest behaviours that exist for the model; 0: all
    without: str = ""
    counters: bool = True
    tiers: str = ""  # what they compare; as it was before there were any

    @classmethod
    def read(cls, stored: dict[str, Any]) -> "Spec":
        """From what was stored as `asdict`; tiers were of item parts, or none, before they had names."""
        tiers = stored.get("tiers", "")
        return cls(**{**stored, "tiers": "item" * tiers if isinstance(tiers, bool) else tiers})

    def backbone(self) -> Backbone:
        """A new backbone."""
        return Backbone(
            self.dim,
            self.heads,
            self.retrieved,
            self.recent,
            self.search,
            self.id_rows,
            self.attribute_rows,
            self.token_rows,
            self.text_width,
            self.image_width,
            self.history,
            self.without,
        )

    def psu(self) -> PSU:
        """A new Pretraining Search Unit."""
        return PSU(self.backbone(), self.dim, self.heads)

    def compared(self) -> tuple[str, ...]:
        """What tiers compare: names of `model.config.COMPARED`."""
        return tuple(name for name in self.tiers.split(",") if name)

    def click(self, dropout: float = 0.0) -> ClickModel:
        """A new click model; dropout is for training only."""
        return ClickModel(self.backbone(), self.dim, self.heads, self.id_rows, dropout, self.counters, self.compared())
