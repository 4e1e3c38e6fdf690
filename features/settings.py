"""Every environment variable that the project reads, in one place.

`SEMINAR_HOME` (default `./var`)       everything written lies below it
`KAFKA_BOOTSTRAP_SERVERS`              the brokers; unset where a command starts an embedded one
`SEMINAR_KAFKA_CONFIG`                 a YAML file of kafka-python's client settings (TLS, SASL, ...); none by default
`SEMINAR_API_KEYS`                     a file of API keys (model.serve.keys); none: the service listens on loopback only
`SEMINAR_ONLINE_STORE`                 a YAML file whose `online_store` replaces that of feature_store.yaml
"""

import os
from dataclasses import dataclass
from pathlib import Path

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
    )


def _path(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser().absolute() if value else None
