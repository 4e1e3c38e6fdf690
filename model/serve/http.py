"""The scorer over HTTP.

`POST /v1/score`                          rates of candidates for a user, in the order given
`GET  /v2/health/live`, `/v2/health/ready`  the process answers; a bundle answers
`GET  /metrics`                           Prometheus
"""

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from features.errors import SeminarError
from features.online import Online
from features.settings import settings
from model.serve.swap import Swap

BUCKETS = (0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 1, 2, 4)
Key = Annotated[str, Field(min_length=1, max_length=256)]


class ScoreRequest(BaseModel):
    """What a product service asks."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"user": "1228", "query": "ice cream", "candidates": ["995242", "1029743"], "explain": True}]
        },
    )

    user: Key
    query: Annotated[str, Field(max_length=1000)] | None = None
    candidates: Annotated[list[Key], Field(min_length=1, max_length=1000)]
    time: AwareDatetime | None = Field(default=None, description="When it is shown; now, if absent")
    explain: bool = Field(default=False, description="Say which past behaviours the first candidate retrieved")


def create_app(swap: Swap, period: float = 1.0) -> FastAPI:
    """The application around a `Swap`, which it starts and stops."""
    registry = CollectorRegistry()
    seconds = Histogram("seminar_score_seconds", "Time to answer, by stage", ["stage"], registry=registry, buckets=BUCKETS)
    requests = Counter("seminar_score_requests_total", "Requests by outcome", ["outcome"], registry=registry)
    degraded = Counter("seminar_score_degraded_total", "Answers marked degraded, by reason", ["reason"], registry=registry)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        swap.look()
        swap.watch(period)
        yield
        swap.close()

    app = FastAPI(title="SEMINAR scorer", version="1", lifespan=lifespan)

    @app.exception_handler(SeminarError)
    async def refuse(_: Request, error: SeminarError) -> JSONResponse:
        requests.labels("unavailable").inc()
        body = {"field": error.field, "value": str(error.value), "problem": error.problem, "remedy": error.remedy}
        return JSONResponse({"error": body}, status_code=503)

    @app.post("/v1/score")
    def score(request: ScoreRequest) -> dict[str, Any]:
        """Rates in the order given; null with a reason for what cannot be scored."""
        moment = request.time or datetime.now(UTC)
        answer = swap.scorer().score(
            request.user,
            request.candidates,
            query=request.query,
            time_ms=int(moment.timestamp() * 1000),
            explain=request.explain,
        )
        for stage, took in answer.seconds.items():
            seconds.labels(stage).observe(took)
        for reason in answer.degraded:
            degraded.labels(reason.split(":")[0]).inc()
        requests.labels("degraded" if answer.degraded else "ok").inc()
        return answer.as_dict()

    @app.get("/v2/health/live")
    def live() -> dict[str, bool]:
        """The process answers."""
        return {"live": True}

    @app.get("/v2/health/ready")
    def ready() -> dict[str, Any]:
        """A bundle answers; which one, and which was refused."""
        return {"ready": True, "model_version": swap.scorer().version, "refused": swap.refused, "swaps": swap.swaps}

    @app.get("/metrics")
    def metrics() -> Response:
        """Prometheus exposition."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


def serve(host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; SeminarError when the port is taken."""
    # Bound here, not by uvicorn, so that a taken port is one clear sentence.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise SeminarError(
            "port",
            f"{host}:{port}",
            f"cannot be bound ({error.strerror})",
            "choose another --port, or a --host of this machine",
        ) from error
    # One request computes on one core: requests are what runs beside each other.
    torch.set_num_threads(1)
    swap = Swap(settings().bundles, Online())
    app = create_app(swap)
    logging.getLogger(__name__).info("serving on http://%s:%d", host, listener.getsockname()[1])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    server.run(sockets=[listener])
