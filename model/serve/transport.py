"""What a connection may do: how large a body may be, how long it may take to come, how long headers may take.

Pure ASGI and asyncio: a slow or endless sender holds a connection, never a thread, and is cut off.
"""

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from features.errors import SeminarError
from model.serve.refusals import Refused, answer

BODY_BYTES = 1 << 20
BODY_S = 5.0
HEADERS_S = 10.0


class BodyLimits:
    """ASGI middleware: 413 for a body of more than `most` bytes, 408 for one that takes longer than `patience` (s)."""

    def __init__(self, app: ASGIApp, most: int = BODY_BYTES, patience: float = BODY_S) -> None:
        self._app, self._most, self._patience = app, most, patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body first: nothing behind this waits for a sender."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._body(dict(scope["headers"]), receive)
        except Refused as refusal:
            # The rest of the body will not be read: the connection ends with the answer.
            refused = answer(refusal.status, refusal.error, {"Connection": "close"})
            await refused(scope, receive, send)
            return
        if body is None:
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
        """The whole body; None where the sender went away."""
        too_large = SeminarError("body", f"more than {self._most} bytes", "is too large", "ask for fewer candidates at once")
        if int(headers.get(b"content-length", b"0")) > self._most:
            raise Refused(413, too_large)
        pieces, size = [], 0
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    pieces.append(message.get("body", b""))
                    size += len(pieces[-1])
                    if size > self._most:
                        raise Refused(413, too_large)
                    if not message.get("more_body"):
                        return b"".join(pieces)
        except TimeoutError:
            problem = SeminarError("body", f"{size} bytes", f"did not end within {self._patience:g} s", "send it at once")
            raise Refused(408, problem) from None


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which cuts off who takes longer than HEADERS_S for a request's line and headers."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A request must begin soon."""
        super().connection_made(transport)
        self._wait()

    def on_message_begin(self) -> None:
        """A request that has begun must have its headers soon."""
        self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """They came."""
        self._came()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there to wait for."""
        self._came()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEADERS_S, self.transport.close)

    def _came(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
