"""Every environment variable that the project reads, in one place.

`SEMINAR_HOME` (default `./var`)       everything written lies below it
`KAFKA_BOOTSTRAP_SERVERS`              the brokers; unset where a command starts an embedded one
`SEMINAR_KAFKA_CONFIG`                 a YAML file of kafka-python's client settings (TLS, SASL, ...); none by default
`SEMINAR_API_KEYS`                     a file of API keys (model.serve.keys); none: the service listens on loopback only
`SEMINAR_ONLINE_STORE`                 a YAML file whose `online_store` replaces that of feature_store.yaml
`SEMINAR_SCORERS`                      addresses of the scorers, separated by commas, that a release is confirmed by
`SEMINAR_ALERT_URL`                    where alerts are posted to, as JSON; none by default: they are in `alerts.jsonl` alone
`SEMINAR_HOURLY`, `SEMINAR_DAILY`, `SEMINAR_HEALTH`   cron expressions (UTC) of the DAGs history, labels and health

`<home>/settings.toml` holds what is not of the environment: tables `model` and `train` (model/config.py) for runs that are
triggered, `ctr` (dags/ctr.py), `quality` (features/quality.py), `release` (model/train/gate.py), `health`
(model/train/health.py).
"""

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from features.errors import SeminarError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

TABLES = ("model", "train", "ctr", "quality", "release", "health")
"""Tables of `<home>/settings.toml`."""
REPOSITORY = Path(__file__).resolve().parent.parent
"""The Feast repository: the folder with `feature_store.yaml`."""


@dataclass(frozen=True)
class Settings:
    """What the environment says, read once by `settings()`; paths are absolute."""

    home: Path
    bootstrap_servers: str | None
    kafka_config: Path | None
    online_store: Path | None
    api_keys: Path | None = None
    scorers: tuple[str, ...] = ()
    alert_url: str | None = None
    hourly: str = "0 * * * *"
    daily: str = "30 2 * * *"
    health: str = "*/15 * * * *"

    @property
    def history(self) -> Path:
        """Parquet tables of everything accepted."""
        return self.home / "history"

    @property
    def psu(self) -> Path:
        """Published PSU checkpoints."""
        return self.home / "psu"

    @property
    def codebooks(self) -> Path:
        """Published codebooks."""
        return self.home / "codebooks"

    @property
    def bundles(self) -> Path:
        """Published bundles; the pointer in it says which one is served."""
        return self.home / "bundles"

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME of local runs."""
        return self.home / "airflow"

    @property
    def broker(self) -> Path:
        """Data of the embedded broker."""
        return self.home / "broker"

    @property
    def reports(self) -> Path:
        """Metrics as JSON files, the report's source."""
        return self.home / "reports"


def settings() -> Settings:
    """Read the environment now. Nothing is cached, so that a test or a child process can set its own."""
    return Settings(
        home=Path(os.environ.get("SEMINAR_HOME") or "var").expanduser().absolute(),
        bootstrap_servers=os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or None,
        kafka_config=_path("SEMINAR_KAFKA_CONFIG"),
        online_store=_path("SEMINAR_ONLINE_STORE"),
        api_keys=_path("SEMINAR_API_KEYS"),
        scorers=tuple(filter(None, (x.strip().rstrip("/") for x in os.environ.get("SEMINAR_SCORERS", "").split(",")))),
        alert_url=os.environ.get("SEMINAR_ALERT_URL") or None,
        **{name: value for name in ("hourly", "daily", "health") if (value := os.environ.get(f"SEMINAR_{name.upper()}"))},
    )


def configured_tables(home: Path) -> dict[str, dict[str, Any]]:
    """The tables of `<home>/settings.toml`, or {} where there is none; SeminarError for one that nothing reads."""
    file = home / "settings.toml"
    try:
        found = tomllib.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SeminarError("settings", file, f"cannot be read ({error})", "correct it") from None
    return tables(found, "settings", TABLES)


def tables(given: Mapping[str, Any], label: str, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Settings as tables of these names; SeminarError (of the field `label`) for another name, or what is no table."""
    for name, table in given.items():
        if name not in names:
            raise SeminarError(label, name, "is no table of settings", f"use {', '.join(f'[{x}]' for x in names)}")
        if not isinstance(table, dict):
            raise SeminarError(f"{label} {name}", table, "is no table", f"write a line [{name}] and settings below it")
    return dict(given)


def configured(home: Path, table: str, kind: type[T]) -> T:
    """A dataclass with what a table of `<home>/settings.toml` sets; else as `filled`. Its whole numbers are counts."""
    label = f"settings.{table}"
    found = filled(kind, configured_tables(home).get(table, {}), label)
    for name, value in vars(found).items():
        if isinstance(value, int) and value < 0 and isinstance(usual := getattr(kind(), name), int):
            raise SeminarError(f"{label} {name}", value, "is below 0", f"write e.g. {usual!r}")
    return found


def filled(kind: type[T], given: Mapping[str, Any], label: str = "setting") -> T:
    """A dataclass of defaults with these values; SeminarError for a name that it lacks or a value of another type."""
    usual = vars(kind())
    for name, value in given.items():
        if name not in usual:
            raise SeminarError(label, name, "is not known", f"use one of {', '.join(sorted(usual))}")
        of = type(usual[name])
        if not isinstance(value, (int, float) if of is float else of) or (isinstance(value, bool) and of is not bool):
            raise SeminarError(f"{label} {name}", value, "is of the wrong type", f"write e.g. {usual[name]!r}")
        if of is float and math.isnan(value):
            raise SeminarError(f"{label} {name}", value, "is no number", f"write e.g. {usual[name]!r}")
    return kind(**given)


def _path(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser().absolute() if value else None
