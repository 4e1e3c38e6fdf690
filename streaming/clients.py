"""Kafka clients, made in one place: the security settings of the environment go straight to kafka-python.

`SEMINAR_KAFKA_CONFIG` names a YAML file such as `{security_protocol: SASL_SSL, sasl_mechanism: PLAIN, ...}`.
"""

from typing import Any

import yaml
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from features.errors import SeminarError
from features.settings import settings

PATIENCE_MS = 10_000
"""How long every client waits for a first answer before it says that there is no broker."""


def consumer(bootstrap: str, **options: Any) -> Any:
    """A KafkaConsumer that commits nothing by itself."""
    return _made(KafkaConsumer, bootstrap, {"enable_auto_commit": False, **options})


def producer(bootstrap: str, **options: Any) -> Any:
    """An idempotent KafkaProducer that waits for all replicas."""
    return _made(KafkaProducer, bootstrap, {"acks": "all", "enable_idempotence": True, **options})


def admin(bootstrap: str) -> Any:
    """A KafkaAdminClient."""
    return _made(KafkaAdminClient, bootstrap, {})


def _security() -> dict[str, Any]:
    file = settings().kafka_config
    return dict(yaml.safe_load(file.read_text()) or {}) if file else {}


def _made(kind: Any, bootstrap: str, options: dict[str, Any]) -> Any:
    try:
        return kind(bootstrap_servers=bootstrap, bootstrap_timeout_ms=PATIENCE_MS, **_security(), **options)
    except KafkaError as error:
        raise SeminarError("KAFKA_BOOTSTRAP_SERVERS", bootstrap, f"does not answer ({error})", "start the broker") from error
