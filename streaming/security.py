"""The settings file of Kafka clients: YAML with kafka-python's own names, read and checked before any client sees it.

    security_protocol: SASL_SSL
    sasl_mechanism: SCRAM-SHA-512
    sasl_plain_username: seminar
    sasl_plain_password: ${KAFKA_PASSWORD}     # from the environment
    ssl_cafile: ca.pem                         # relative to this file

No error, log line or repr shows the value of a setting that holds a secret.
"""

import os
import re
from pathlib import Path
from typing import Any

import yaml

from features.errors import SeminarError

_TEXT: dict[str, tuple[str, ...]] = {
    "security_protocol": ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    "sasl_mechanism": ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "AWS_MSK_IAM"),
    "sasl_plain_username": (),
    "sasl_plain_password": (),
    "sasl_kerberos_name": (),
    "sasl_kerberos_service_name": (),
    "sasl_kerberos_domain_name": (),
    "ssl_cafile": (),
    "ssl_certfile": (),
    "ssl_keyfile": (),
    "ssl_crlfile": (),
    "ssl_password": (),
    "client_id": (),
    "client_dns_lookup": ("use_all_dns_ips", "resolve_canonical_bootstrap_servers_only"),
    "proxy_url": (),
}
_FLAGS = ("ssl_check_hostname",)
_NUMBERS = (
    "request_timeout_ms",
    "connections_max_idle_ms",
    "reconnect_backoff_ms",
    "reconnect_backoff_max_ms",
    "retry_backoff_ms",
    "receive_buffer_bytes",
    "send_buffer_bytes",
)
_FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile")
_SECRET = ("sasl_plain_password", "ssl_password", "proxy_url")
NAMES = (*_TEXT, *_FLAGS, *_NUMBERS)
"""Every setting that the file may hold."""
_FIELD = "SEMINAR_KAFKA_CONFIG"


class Secret(str):
    """A text that shows itself as `***`: clients log their whole configuration when they are asked to log enough."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"


def read(file: Path) -> dict[str, Any]:
    """The checked settings of a file, `${VAR}` replaced. SeminarError names the key that is wrong, and no secret."""
    found: dict[str, Any] = {}
    for key, value in _load(file).items():
        if key not in NAMES:
            known = ", ".join(NAMES)
            raise SeminarError(f"{_FIELD} {file}", key, "is no setting that it may hold", f"it may hold {known}")
        found[key] = _value(file, key, value)
    _agree(file, found)
    return found


def _load(file: Path) -> dict[Any, Any]:
    try:
        given = yaml.safe_load(file.read_text())
    except OSError as error:
        raise SeminarError(
            _FIELD, file, f"cannot be read ({error.strerror})", "name a YAML file of client settings"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # The parser's own words quote the line, which may hold a password.
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise SeminarError(_FIELD, file, f"is no YAML{where}", "write one `name: value` a line") from None
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise SeminarError(_FIELD, file, "holds no names and values", "write one `name: value` a line")
    return given


def _value(file: Path, key: str, value: object) -> Any:
    def wrong(problem: str, remedy: str) -> SeminarError:
        return SeminarError(f"{_FIELD} {file}", key, problem, remedy)

    if isinstance(value, str):
        value = _expand(value, wrong)
    if key in _FLAGS:
        flag = {"true": True, "false": False}.get(str(value).lower())
        if flag is None:
            raise wrong("is neither true nor false", "write true or false")
        return flag
    if key in _NUMBERS:
        if isinstance(value, bool) or not str(value).isdigit():
            raise wrong("is no number", "write a whole number")
        return int(str(value))
    if not isinstance(value, str):
        raise wrong("is no text", "put it between quotes" if value is not None else "give it a value, or leave it out")
    if not value:
        raise wrong("is empty", "give it a value, or leave it out")
    if _TEXT[key] and value not in _TEXT[key]:
        raise wrong("has a value that it cannot have", f"write one of {', '.join(_TEXT[key])}")
    if key in _FILES:
        path = file.absolute().parent / Path(value).expanduser()
        if not path.is_file():
            raise wrong(
                f"names {str(path)!r}, which is no file", "correct the path; it counts from the settings' own folder"
            )
        return str(path)
    return Secret(value) if key in _SECRET else value


def _expand(text: str, wrong: Any) -> str:
    def one(found: re.Match[str]) -> str:
        name = found[1]
        if name not in os.environ:
            raise wrong(f"asks for ${{{name}}}, which is not in the environment", f"set {name}")
        return os.environ[name]

    return re.sub(r"\$\{(\w+)\}", one, text)


def _agree(file: Path, found: dict[str, Any]) -> None:
    """What the client would pass over in silence, or fail on much later."""
    protocol = found.get("security_protocol", "PLAINTEXT")
    for key in found:
        unused = (key.startswith("sasl_") and "SASL" not in protocol) or (key.startswith("ssl_") and "SSL" not in protocol)
        if unused:
            wanted = "SASL_SSL" if key.startswith("sasl_") else "SSL or SASL_SSL"
            problem = f"means nothing with security_protocol {protocol}"
            raise SeminarError(f"{_FIELD} {file}", key, problem, f"set security_protocol to {wanted}, or leave it out")
    if "SASL" in protocol:
        needed = ["sasl_mechanism"]
        if found.get("sasl_mechanism", "").startswith(("PLAIN", "SCRAM")):
            needed += ["sasl_plain_username", "sasl_plain_password"]
        for key in needed:
            if key not in found:
                raise SeminarError(f"{_FIELD} {file}", key, f"is missing, which {protocol} needs", "add it")
    for key, other in (("ssl_certfile", "ssl_keyfile"), ("ssl_keyfile", "ssl_certfile")):
        if key in found and other not in found:
            raise SeminarError(f"{_FIELD} {file}", other, f"is missing beside {key}", "give both, or neither")
