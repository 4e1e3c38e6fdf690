"""A small typed client of the service: keeps its connection, retries what may be retried, within one deadline."""

import random
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, cast
from urllib.parse import quote

import httpx

from features.errors import SeminarError
from model.serve.answers import DEADLINE, MOST_DEADLINE_MS, Ready, ScoreAnswer, UserSequence

_PAUSE_S = 0.05


class Client:
    """Asks one service. Use it as a context manager; not safe for threads.

    timeout: seconds for a call in all, retries and pauses included; the service computes for 60 at most. retries: how often
    a call is repeated that did not reach the service, or that it was too busy for (503: after what Retry-After says, if the
    deadline allows). Every call only reads, so repeating one is safe.
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8080", timeout: float = 10.0, retries: int = 2, key: str | None = None
    ) -> None:
        self._url, self._timeout, self._retries = url, timeout, retries
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def score(
        self,
        user: str,
        candidates: Sequence[str],
        query: str | None = None,
        time: datetime | None = None,
        explain: bool | Sequence[str] = False,
        method: Literal["auto", "exact"] = "auto",
        timeout: float | None = None,
    ) -> ScoreAnswer:
        """The answer of `POST /v1/score`; SeminarError with the service's own words when it refuses or is away."""
        body: dict[str, Any] = {"user": user, "candidates": list(candidates)}
        if explain:
            body["explain"] = explain if isinstance(explain, bool) else list(explain)
        if query is not None:
            body["query"] = query
        if time is not None:
            body["time"] = time.isoformat()
        if method != "auto":
            body["method"] = method
        return cast(ScoreAnswer, self._ask("POST", "/v1/score", body, timeout))

    def sequence(self, user: str, limit: int = 100, timeout: float | None = None) -> UserSequence:
        """What a user did, the newest first; SeminarError for an unknown user."""
        named = quote(user, safe="").replace(".", "%2E")  # httpx takes "." and ".." for steps of a path
        return cast(UserSequence, self._ask("GET", f"/v1/users/{named}/sequence?limit={limit}", None, timeout))

    def health(self, timeout: float | None = None) -> Ready:
        """Which bundle answers; SeminarError when none does."""
        return cast(Ready, self._ask("GET", "/v2/health/ready", None, timeout))

    def ready(self) -> bool:
        """Whether a bundle answers, asked once."""
        try:
            return self._send("GET", "/v2/health/ready", None, time.monotonic() + self._timeout).is_success
        except httpx.RequestError:
            return False

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, timeout: float | None) -> Any:
        end = time.monotonic() + (self._timeout if timeout is None else timeout)
        for attempt in range(self._retries + 1):
            wait = _PAUSE_S * 2**attempt * random.uniform(0.5, 1.5)  # so that clients of one outage do not come together
            try:
                response = self._send(method, path, body, end)
            except httpx.RequestError as error:
                failure = SeminarError(
                    "url", self._url, f"does not answer ({type(error).__name__}: {error})", "start `seminar serve`"
                )
            else:
                if response.status_code != 503:
                    return _content(response)
                failure = _failure(response)
                wait = max(wait, _retry_after(response))
            if attempt == self._retries or time.monotonic() + wait >= end:
                break
            time.sleep(wait)
        raise failure

    def _send(self, method: str, path: str, body: dict[str, Any] | None, end: float) -> httpx.Response:
        """The whole answer; httpx.RequestError where it has not come by `end` (`time.monotonic`)."""
        left = max(0.001, end - time.monotonic())
        headers = {DEADLINE: str(min(max(1, int(left * 1000)), MOST_DEADLINE_MS))}
        # httpx gives the time to each read alone: an answer that comes in drops would never be late.
        with self._http.stream(method, path, json=body, timeout=left, headers=headers) as response:
            response.request.extensions["timeout"]["read"] = max(0.001, end - time.monotonic())
            pieces = []
            for piece in response.iter_raw():
                pieces.append(piece)
                if time.monotonic() > end:
                    raise httpx.ReadTimeout("the answer did not end in time", request=response.request)
        return httpx.Response(response.status_code, headers=response.headers, content=b"".join(pieces))


def _retry_after(response: httpx.Response) -> float:
    """The seconds that an answer asks to wait, be it in seconds or until a date; 0 where it does not say."""
    said = response.headers.get("Retry-After", "")
    if said.isdecimal():
        return float(said)
    try:
        return parsedate_to_datetime(said).timestamp() - time.time()
    except ValueError:
        return 0.0


def _content(response: httpx.Response) -> Any:
    if response.is_success:
        with suppress(ValueError):
            return response.json()
    raise _failure(response)


def _failure(response: httpx.Response) -> SeminarError:
    try:
        return SeminarError(**response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return SeminarError("status", response.status_code, "is not what the service answers", "look at its log")
