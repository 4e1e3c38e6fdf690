"""Settings of the model and of its training, with the defaults of the paper where it has any."""

import dataclasses
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from features.errors import SeminarError
from features.history import Histories
from features.settings import filled, tables

DAY_MS = 86_400_000
LEAST_NEGATIVES = 6
MODALITIES = ("id", "attribute", "text", "image", "query")
COMPARED = ("item", "id", "attribute", "text", "image")
"""What tiers can compare (`model.nn.tiers`): item parts, and what a modality says of an item."""


@dataclass(frozen=True)
class ModelConfig:
    """Shapes. d `dim`, h `heads`, k `retrieved`; hashed tables have `*_rows` rows, row 0 means "none"."""

    dim: int = 64
    heads: int = 4
    retrieved: int = 100
    recent: int = 50
    token_rows: int = 1 << 14
    attribute_rows: int = 1 << 15
    history: int = 0  # ablation: only the newest behaviours exist; 0: all
    without: str = ""  # ablation: MODALITIES taken away, separated by commas
    counters: bool = True  # ablation: false: the click model's heads are not told how often a user met an item or its type
    tiers: str = "item,attribute"  # of COMPARED: by what the heads are told how much of a history is how similar
    encoder: str = "auto"  # of texts: minilm, hashing, a path, or auto: minilm where it is installed

    def __post_init__(self) -> None:
        _hold(self, ("dim", "heads", "retrieved", "recent"), "1 or more", lambda x: x >= 1)
        _hold(self, ("token_rows", "attribute_rows"), "2 or more", lambda x: x >= 2)
        _hold(self, ("history",), "0 (all) or more", lambda x: x >= 0)
        _hold(self, ("dim",), f"a multiple of heads, {self.heads}", lambda x: x % self.heads == 0)
        for name in filter(None, self.without.split(",")):
            if name not in MODALITIES:
                raise SeminarError("setting without", name, "is no modality", f"use some of {', '.join(MODALITIES)}")
        for name in filter(None, self.tiers.split(",")):
            if name not in COMPARED:
                remedy = f"use some of {', '.join(COMPARED)}, or '' for none"
                raise SeminarError("setting tiers", name, "is nothing that tiers compare", remedy)


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the weights of the objectives may be 0, which switches one off."""

    psu_epochs: int = 3
    wide_epochs: int = 3  # of the wide head alone, before the whole click model
    ctr_epochs: int = 1
    targets: int = 64  # a user and step
    psu_targets: int = 32
    users: int = 2  # a step
    lr: float = 2e-3
    table_lr: float = 5e-4
    next_pair: float = 1.0
    alignment: float = 0.2
    relevance: float = 0.2
    negatives: int = 20
    min_count: int = 3  # an item seen less often has no id embedding: its content stands for it
    id_dropout: float = 0.1  # share of a step's items shown without their id, so that content is learned too: in pretraining
    ctr_id_dropout: float = 0.5  # the same in fine-tuning, which else learns ids by heart (docs/results/tried.md)
    impressed: float = 4.0  # weight of impressions in the log loss, beside sampled candidates
    listwise: float = 1.0  # weight of the ranking within a moment, beside the log loss
    dropout: float = 0.5  # of the vectors that the click model's head reads
    decay: float = 1e-4  # of weights that are not in tables: in pretraining
    ctr_decay: float = 1e-4  # the same in fine-tuning: 0.3 lets three epochs rank better than one (docs/results/quality.md)
    eval_targets: int = 1000

    def __post_init__(self) -> None:
        counts = ("psu_epochs", "ctr_epochs", "targets", "psu_targets", "users", "eval_targets")
        weights = ("next_pair", "alignment", "relevance", "impressed", "listwise", "decay", "ctr_decay")
        _hold(self, counts, "1 or more", lambda x: x >= 1)
        _hold(self, ("wide_epochs", "min_count"), "0 or more", lambda x: x >= 0)
        _hold(self, ("lr", "table_lr"), "a number above 0", lambda x: 0 < x < math.inf)
        _hold(self, weights, "a number of 0 or more", lambda x: 0 <= x < math.inf)
        _hold(self, ("id_dropout", "ctr_id_dropout", "dropout"), "a share from 0 to below 1", lambda x: 0 <= x < 1)
        if self.negatives < LEAST_NEGATIVES:
            problem = "are too few: two keep the query, two the item, others come from the step"
            raise SeminarError("setting negatives", self.negatives, problem, f"give {LEAST_NEGATIVES} or more")


def date_of(ms: int) -> str:
    """A time as RFC 3339, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


@dataclass(frozen=True)
class Windows:
    """Times in ms: PSU < t1 <= fine-tuning < t2 <= validation < t3 <= test < end. Nothing sees what is after its own."""

    t1: int
    t2: int
    t3: int
    end: int

    def __post_init__(self) -> None:
        if not self.t1 < self.t2 < self.t3 < self.end:
            raise SeminarError("windows", self.as_dates(), "are not in order", "give t1 < t2 < t3 < end")

    def as_dates(self) -> dict[str, str]:
        """RFC 3339 by name."""
        return {name: date_of(ms) for name, ms in dataclasses.asdict(self).items()}

    @classmethod
    def from_dates(cls, dates: dict[str, str]) -> "Windows":
        """From RFC 3339 dates or times (UTC when no zone is given)."""
        found = {}
        for name in ("t1", "t2", "t3", "end"):
            try:
                moment = datetime.fromisoformat(dates[name])
            except (KeyError, ValueError, TypeError) as error:
                raise SeminarError(f"windows.{name}", dates.get(name), "is no date", "write e.g. 2017-10-01") from error
            found[name] = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
        return cls(**found)

    @classmethod
    def from_history(cls, histories: Histories, shares: tuple[float, float, float] = (0.7, 0.85, 0.92)) -> "Windows":
        """Cuts at these shares of the events, moved to midnight (UTC) where that keeps them apart."""
        times = histories.records["time"]
        if len(times) < 100:
            raise SeminarError("history", f"{len(times)} events", "is too short to train on", "import or consume more")
        times = times.copy()
        times.sort()
        cuts = [int(times[int(len(times) * share)]) for share in shares]
        days = [cut - cut % DAY_MS for cut in cuts]
        end = int(times[-1]) + 1
        t1, t2, t3 = days if len({*days, end}) == 4 and days == sorted(days) else cuts
        return cls(t1, t2, t3, end)


@dataclass(frozen=True)
class Config:
    """Everything that a training run is told, apart from its data."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @classmethod
    def load(cls, source: Path | dict[str, Any] | None = None) -> "Config":
        """Defaults, overridden by a TOML file or a mapping with the tables `model` and `train`; SeminarError for others."""
        if source is None:
            return cls()
        try:
            given = tomllib.loads(source.read_text()) if isinstance(source, Path) else source
        except ValueError as error:
            remedy = "write e.g. a line [model] and below it dim = 64"
            raise SeminarError("config", source, f"is no TOML ({error})", remedy) from None
        given = tables(given, "config", ("model", "train"))
        return cls(filled(ModelConfig, given.get("model", {})), filled(TrainConfig, given.get("train", {})))

    def as_dict(self) -> dict[str, Any]:
        """A mapping that `load` takes."""
        return dataclasses.asdict(self)


def scaled(share: float) -> Config:
    """Defaults with this share of the epochs, one at least."""
    train = TrainConfig()
    epochs = {name: max(1, round(share * getattr(train, name))) for name in ("psu_epochs", "ctr_epochs")}
    return Config(train=dataclasses.replace(train, **epochs))


def _hold(settings: Any, names: tuple[str, ...], wanted: str, holds: Callable[[float], bool]) -> None:
    """SeminarError for the first of these settings that does not hold; NaN never does."""
    for name in names:
        if not holds(value := getattr(settings, name)):
            raise SeminarError(f"setting {name}", value, f"is not {wanted}", "correct it, or leave it out for the default")
