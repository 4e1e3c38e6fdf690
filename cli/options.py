"""Options that several verbs share, and how they are read."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from features.errors import SeminarError
from features.settings import settings

Bootstrap = Annotated[str | None, typer.Option(help="Brokers; else KAFKA_BOOTSTRAP_SERVERS.")]


def brokers(bootstrap: str | None) -> str:
    """The brokers named by the option or the environment."""
    found = bootstrap or settings().bootstrap_servers
    if not found:
        raise SeminarError("KAFKA_BOOTSTRAP_SERVERS", "", "is not set", "name a broker, e.g. 127.0.0.1:9092")
    return found


def moment(text: str | None) -> int:
    """A date or time (RFC 3339; UTC when no zone is given) as ms; now when absent."""
    if text is None:
        return int(datetime.now(UTC).timestamp() * 1000)
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise SeminarError("time", text, "is no RFC 3339 date or time", "write e.g. 2017-10-01T00:00:00Z") from error
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000)
