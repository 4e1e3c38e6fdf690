"""Kafka clients, made in one place: the security settings of the environment go straight to kafka-python.

`SEMINAR_KAFKA_CONFIG` names the file (`streaming/security.py`); without it clients speak plaintext.
"""

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, KafkaTimeoutError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError

from features.errors import SeminarError
from features.settings import settings
from streaming import security

PATIENCE_MS = 10_000
"""How long every client waits for a first answer before it says that there is no broker."""

_REFUSED = (SaslAuthenticationFailedError, UnsupportedSaslMechanismError)
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"


def consumer(bootstrap: str, **options: Any) -> Any:
    """A KafkaConsumer that commits nothing by itself and makes no topic by asking for it."""
    made = _made(KafkaConsumer, bootstrap, {"enable_auto_commit": False, **options})
    _make_no_topics(made._cluster)
    return made


def reader(bootstrap: str) -> Any:
    """A consumer without a group, for reading ranges once (`streaming.reading`): committed messages only."""
    return consumer(bootstrap, auto_offset_reset="none", isolation_level="read_committed")


def producer(bootstrap: str, **options: Any) -> Any:
    """An idempotent KafkaProducer that waits for all replicas."""
    made = _made(KafkaProducer, bootstrap, {"acks": "all", "enable_idempotence": True, **options})
    _make_no_topics(made._metadata)
    return made


def admin(bootstrap: str) -> Any:
    """A KafkaAdminClient."""
    return _made(KafkaAdminClient, bootstrap, {})


def _make_no_topics(metadata: Any) -> None:
    """Asking for a topic must not make it, with one partition: the client drops its own `allow_auto_create_topics`."""
    metadata.config["allow_auto_create_topics"] = False


def _made(kind: Any, bootstrap: str, options: dict[str, Any]) -> Any:
    file = settings().kafka_config
    given = security.read(file) if file else {}
    causes: list[BaseException] = []
    try:
        with _listening(causes):
            return kind(bootstrap_servers=bootstrap, bootstrap_timeout_ms=PATIENCE_MS, **given, **options)
    except ValueError as error:  # of an address such as host:port with a word for the port
        raise SeminarError("KAFKA_BOOTSTRAP_SERVERS", bootstrap, f"is no address ({error})", "write host:port,...") from None
    except KafkaError as error:
        # The client says no more than that its patience ended; what it met meanwhile went to its log.
        raise _sentence(bootstrap, given, max(causes, key=_tells, default=error)) from None


@contextmanager
def _listening(causes: list[BaseException]) -> Iterator[None]:
    """Collect what goes wrong with a new client's connections, which it tells to its log alone.

    It would try refused credentials again and again until its patience ends, and so lock an account: those end it now.
    """
    others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno != logging.WARNING or record.thread in others or not isinstance(record.args, tuple):
                return
            for cause in record.args:
                if isinstance(cause, Exception) and not isinstance(cause, KafkaTimeoutError):
                    causes.append(cause)
                    if _final(cause):
                        raise cause

    listener, log = Listener(logging.WARNING), logging.getLogger("kafka")
    log.addHandler(listener)
    try:
        yield
    finally:
        log.removeHandler(listener)


def _tells(cause: BaseException) -> int:
    """How much a cause says: a refusal, then a connection that was ended, then a wait in vain."""
    return 2 if _final(cause) else 1 if "disconnected" in str(cause) else 0


def _final(cause: BaseException) -> bool:
    """Whether trying again cannot help."""
    return isinstance(cause, _REFUSED) or _UNTRUSTED in str(cause)


def _sentence(bootstrap: str, given: dict[str, Any], cause: BaseException) -> SeminarError:
    """What a user can do something about: the brokers, what they said, and the setting to look at."""
    said = re.sub(r"^(\[Error \d+\] )?(\w+: )+", "", str(cause))
    protocol, user = given.get("security_protocol", "PLAINTEXT"), str(given.get("sasl_plain_username", ""))
    if isinstance(cause, _REFUSED) or ("SASL" in protocol and "disconnected" in said):
        # Where the broker closes as it refuses, the client may see no more than the end of the connection.
        problem = f"refused the user {user!r} by {given['sasl_mechanism']} ({said})"
        remedy = "correct sasl_plain_username, sasl_plain_password and sasl_mechanism in SEMINAR_KAFKA_CONFIG"
    elif _UNTRUSTED in said:
        reason = re.sub(r".*verify failed: | ?\(_ssl.*|\.", "", said)
        problem = f"has a certificate that is not trusted ({reason})"
        remedy = "set ssl_cafile in SEMINAR_KAFKA_CONFIG to the authority that signed it"
    elif protocol != "PLAINTEXT":
        problem = f"does not answer as {protocol} ({said})"
        remedy = "start the broker, or correct security_protocol, sasl_mechanism and certificates in SEMINAR_KAFKA_CONFIG"
    else:
        problem = f"does not answer ({said})"
        remedy = "start the broker, or set SEMINAR_KAFKA_CONFIG if it expects TLS or a password"
    return SeminarError("KAFKA_BOOTSTRAP_SERVERS", bootstrap, problem, remedy)
