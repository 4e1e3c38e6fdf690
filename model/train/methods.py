"""What the suites compare: each method as settings of the one click model, and how each is tuned.

Every method has the same code path, inputs, recent branch, time bias, side features, labels and number of tuning runs; peers
differ by their search unit, and have no tiers (`model.nn.tiers`), which are ours. Ablations take one thing away from
`seminar`, with its tuned settings.
"""

from dataclasses import dataclass, field
from typing import Any

from model.config import MODALITIES, Config

Settings = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Method:
    """A row of a suite: a search unit, settings that override the configuration's, and which initialisations it has.

    scored_by: search of the trained model in its place, `lsh` or `pq`.
    """

    name: str
    search: str = "seminar"
    settings: Settings = field(default_factory=dict)
    inits: tuple[str, ...] = ("psu", "scratch")
    psu_settings: Settings = field(default_factory=dict)
    scored_by: str = ""


OURS = "seminar"
TUNING: tuple[Settings, ...] = (
    {},
    {"train": {"lr": 1e-3}},
    {"train": {"table_lr": 2e-3}},
    {"train": {"ctr_epochs": 3}},
    {"train": {"dropout": 0.2}},
    {"train": {"listwise": 0.5}},
    {"train": {"ctr_epochs": 3, "dropout": 0.75}},
    {"train": {"ctr_epochs": 3, "ctr_decay": 0.3}},
)
"""The runs among which validation chooses, the same for every method; the first is the configuration as it is. Three epochs
learn some of it by heart, which more dropout or decay is against."""

NO_TIERS: Settings = {"model": {"tiers": ""}}


def peer(name: str, search: str = "") -> Method:
    """A rival: another search, and no tiers, which none of them has (MUSE with SimTier's own)."""
    return Method(name, search or name, NO_TIERS)


PEERS = (
    Method(OURS),
    peer("din_recent"),
    peer("din_full"),
    peer("sim_hard"),
    peer("sim_soft"),
    peer("eta"),
    peer("sdim", "benchmarks.peer_models.sdim:sdim"),
    peer("qin", "benchmarks.peer_models.qin:qin"),
    peer("twin"),
    peer("muse"),
    peer("muse_tier"),
)

PSU_ONLY = ("psu",)
ABLATIONS = (
    Method(OURS, inits=PSU_ONLY),
    Method("seminar-scratch", inits=("scratch",)),
    Method("seminar-no-next-pair", inits=PSU_ONLY, psu_settings={"train": {"next_pair": 0.0}}),
    Method("seminar-no-alignment", inits=PSU_ONLY, psu_settings={"train": {"alignment": 0.0}}),
    Method("seminar-no-relevance", inits=PSU_ONLY, psu_settings={"train": {"relevance": 0.0}}),
    *(Method(f"seminar-no-{name}", inits=PSU_ONLY, settings={"model": {"without": name}}) for name in MODALITIES),
    Method("seminar-no-counters", inits=PSU_ONLY, settings={"model": {"counters": False}}),
    Method("seminar-no-tiers", inits=PSU_ONLY, settings=NO_TIERS),
    Method("seminar-item-tiers", inits=PSU_ONLY, settings={"model": {"tiers": "item"}}),
    # What is left without any search: tiers of the whole history, attention to the last ones alone.
    Method("seminar-no-search", "din_recent", inits=PSU_ONLY),
    *(Method(f"seminar-history-{n}", inits=PSU_ONLY, settings={"model": {"history": n}}) for n in (50, 200, 1000)),
    Method("seminar-k50", inits=PSU_ONLY, settings={"model": {"retrieved": 50}}),
    # A metric of the GSU other than the ESU's: inner products of the embeddings.
    Method("seminar-two-metrics", "sim_soft", inits=PSU_ONLY),
    # The same checkpoint, scored through approximate search.
    Method("seminar-lsh", inits=PSU_ONLY, scored_by="lsh"),
    Method("seminar-pq", inits=PSU_ONLY, scored_by="pq"),
)

SUITES = {"peers": PEERS, "ablations": ABLATIONS}


def merged(config: Config, *overrides: Settings) -> Config:
    """A configuration with tables of settings over it, later ones winning; modalities taken away (`without`) add up: an
    ablation takes one more from what tuning left."""
    found, off = config.as_dict(), config.model.without.split(",")
    for settings in overrides:
        for table, values in settings.items():
            found[table] = {**found[table], **values}
        off += settings.get("model", {}).get("without", "").split(",")
    found["model"]["without"] = ",".join(dict.fromkeys(filter(None, off)))
    return Config.load(found)


def of_search(config: Config, search: str) -> Config:
    """A configuration as a method with this search has it: tiers are ours alone."""
    return config if search == OURS else merged(config, NO_TIERS)
