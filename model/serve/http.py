"""The service over HTTP.

`POST /v1/score`                          rates of candidates for a user, in the order given    scope `score`
`GET  /v1/users/{user}/sequence`          what a user did                                       scope `read-sequence`
`GET  /v2/health/live`, `/v2/health/ready`  the process answers; a bundle answers               no key
`GET  /metrics`                           Prometheus                                            scope `admin`
`GET  /inspect`, `/inspect/v1/...`        a page to see what the system sees (model.serve.inspect)  scope `admin`
"""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
from fastapi import Depends, FastAPI, Header, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError

from features.errors import SeminarError
from model.serve import inspect, refusals
from model.serve.admission import Admission
from model.serve.answers import DEADLINE, EXAMPLE, MOST_DEADLINE_MS, Key, Ready, ScoreAnswer, ScoreRequest, UserSequence
from model.serve.counters import CONTENT_TYPE
from model.serve.keys import Keys, needs
from model.serve.refusals import Refused, documented
from model.serve.service import Service
from model.serve.transport import BodyLimits

log = logging.getLogger(__name__)
Deadline = Annotated[
    int,
    Header(alias=DEADLINE, ge=1, le=MOST_DEADLINE_MS, description="How long (ms) whoever asks will wait"),
]


class Json(JSONResponse):
    """An answer that is encoded as it is."""

    def render(self, content: Any) -> bytes:
        """Bytes."""
        return msgspec.json.encode(content)


def create_app(
    service: Service, keys: Keys | None = None, period: float = 1.0, outside: dict[str, inspect.Look] | None = None
) -> FastAPI:
    """The application around a service, which it starts and stops; outside: see `model.serve.inspect`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.admission = Admission(service.counters, service.limits.waiting)
        service.start(period)
        yield
        app.state.admission.close()
        service.close()

    app = FastAPI(
        title="SEMINAR scorer", version="1", lifespan=lifespan, default_response_class=Json, responses=documented(500)
    )
    app.state.service, app.state.keys = service, keys or Keys(None)
    app.add_middleware(BodyLimits)
    refusals.install(app)

    @app.post(
        "/v1/score",
        responses={
            200: {"model": ScoreAnswer, "content": {"application/json": {"example": EXAMPLE}}},
            **documented(401, 403, 408, 413, 415, 422, 503, 504),
        },
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": ScoreRequest.model_json_schema()}}}
        },
        dependencies=[Depends(needs("score"))],
    )
    async def score(request: Request, deadline: Deadline = int(service.limits.deadline * 1000)) -> Response:
        """Rates in the order given; null with a reason for what cannot be scored."""
        asked = await _asked(request, service)
        end = time.monotonic() + deadline / 1000
        return Json(await app.state.admission.run(lambda: service.score(asked), end))

    @app.get(
        "/v1/users/{user:path}/sequence",  # an id may hold slashes
        responses={200: {"model": UserSequence}, **documented(401, 403, 404, 422, 503)},
        dependencies=[Depends(needs("read-sequence"))],
    )
    def sequence(
        user: Annotated[Key, Path()],
        limit: Annotated[int, Query(ge=0, le=1000, description="Behaviours, the newest first")] = 100,
    ) -> Response:
        """What a user did, as the scorer sees it."""
        try:
            return Json(service.sequence(user, limit))
        except LookupError:
            raise Refused(404, SeminarError("user", user, "has no sequence", "look at the producer's user_id")) from None

    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        """The process answers."""
        return {"live": True}

    @app.get("/v2/health/ready", responses={200: {"model": Ready}, **documented(503)})
    async def ready() -> Response:
        """A bundle answers; which one, and which was refused."""
        return Json(service.ready())

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **documented(401, 403)},
        dependencies=[Depends(needs("admin"))],
    )
    async def metrics() -> Response:
        """Figures of all workers, for Prometheus."""
        return Response(service.exposition(), media_type=CONTENT_TYPE)

    app.include_router(inspect.page())
    app.include_router(inspect.routes(service, outside or {}))
    return app


async def _asked(request: Request, service: Service) -> ScoreRequest:
    """The request that a body holds; Refused where it holds none."""
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, SeminarError("Content-Type", kind, "is not read", "send application/json"))
    try:
        return ScoreRequest.model_validate_json(await request.body())
    except ValidationError as error:
        service.counters.count("seminar_score_requests", "refused")
        raise Refused(422, refusals.of_validation(error.errors())) from None
