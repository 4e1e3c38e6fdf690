"""A small typed client of the scorer."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import httpx

from features.errors import SeminarError


class Client:
    """Asks one scorer; keeps its connection. Use it as a context manager."""

    def __init__(self, url: str = "http://127.0.0.1:8080", timeout: float = 10.0) -> None:
        self._url = url
        self._http = httpx.Client(base_url=url, timeout=timeout)

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
        explain: bool = False,
    ) -> dict[str, Any]:
        """The answer of `POST /v1/score`; SeminarError with the service's own words when it refuses or is away."""
        body: dict[str, Any] = {"user": user, "candidates": list(candidates), "explain": explain}
        if query is not None:
            body["query"] = query
        if time is not None:
            body["time"] = time.isoformat()
        return self._json(self._send("POST", "/v1/score", body))

    def ready(self) -> bool:
        """Whether a bundle answers."""
        try:
            return self._http.get("/v2/health/ready").is_success
        except httpx.TransportError:
            return False

    def _send(self, method: str, path: str, body: dict[str, Any]) -> httpx.Response:
        try:
            return self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            raise SeminarError("url", self._url, f"does not answer ({error})", "start `seminar serve`") from error

    @staticmethod
    def _json(response: httpx.Response) -> dict[str, Any]:
        if response.is_success:
            answer: dict[str, Any] = response.json()
            return answer
        if response.status_code == 422:
            first = response.json()["detail"][0]
            field = ".".join(map(str, first["loc"][1:])) or "body"
            raise SeminarError(field, first.get("input"), f"is refused: {first['msg']}", "correct the request")
        if response.status_code == 503 and "error" in response.json():
            raise SeminarError(**response.json()["error"])
        raise SeminarError("status", response.status_code, "is not what the scorer answers", "look at its log")
