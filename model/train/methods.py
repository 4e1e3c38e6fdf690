"""What the suites compare: each method as settings of the one click model, and how each is tuned.

Every method has the same code path, inputs, recent branch, time bias, side features, labels and number of tuning runs; peers
differ by their search unit alone. Ablations take one thing away from `seminar`, with its tuned settings.
"""

from dataclasses import dataclass, field
from typing import Any

from model.config import Config

Settings = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Method:
    """A row of a suite: a search unit, settings that override the configuration's, and which initialisations it has."""

    name: str
    search: str = "seminar"
    settings: Settings = field(default_factory=dict)
    inits: tuple[str, ...] = ("psu", "scratch")
    psu_settings: Settings = field(default_factory=dict)


OURS = "seminar"
TUNING: tuple[Settings, ...] = (
    {},
    {"train": {"lr": 1e-3}},
    {"train": {"lr": 1e-2}},
    {"train": {"table_lr": 1e-2}},
    {"train": {"lr": 1e-3, "table_lr": 1e-2}},
    {"train": {"lr": 1e-3, "table_lr": 1e-3}},
    {"train": {"id_dropout": 0.3}},
    {"train": {"negatives": 40}},
)
"""The runs among which validation chooses, the same for every method; the first is the configuration as it is."""

PEERS = (
    Method(OURS),
    Method("din_recent", "din_recent"),
    Method("din_full", "din_full"),
)

ABLATIONS = (
    Method(OURS, inits=("psu",)),
    Method("seminar-scratch", inits=("scratch",)),
    Method("seminar-no-next-pair", inits=("psu",), psu_settings={"train": {"next_pair": 0.0}}),
    Method("seminar-no-alignment", inits=("psu",), psu_settings={"train": {"alignment": 0.0}}),
    Method("seminar-no-relevance", inits=("psu",), psu_settings={"train": {"relevance": 0.0}}),
    Method("seminar-k50", inits=("psu",), settings={"model": {"retrieved": 50}}),
)

SUITES = {"peers": PEERS, "ablations": ABLATIONS}


def merged(config: Config, *overrides: Settings) -> Config:
    """A configuration with tables of settings over it, later ones winning."""
    found = config.as_dict()
    for settings in overrides:
        for table, values in settings.items():
            found[table] = {**found[table], **values}
    return Config.load(found)
