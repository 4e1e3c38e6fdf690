"""`/inspect`: a page to see what the system sees, and the JSON routes that it reads.

`GET /inspect`                          the page; its files lie in `model/serve/page/`, nothing is loaded from elsewhere
`GET /inspect/v1/users`                 users to pick from                                                scope `admin`
`GET /inspect/v1/timeline`              every behaviour of a user, in columns                             scope `admin`
`GET /inspect/v1/events`                behaviours of a user between two times, named                     scope `admin`
`GET /inspect/v1/agreement`             whether online and history have the same of a user                scope `admin`
`GET /inspect/v1/items`                 the catalogue by words, popular items first                       scope `admin`
`POST /inspect/v1/named`                titles of items by id                                             scope `admin`
`GET /inspect/v1/health`                versions, promotions, figures, codebooks, stream                  scope `admin`
`GET /inspect/v1/parity`                a sample of users compared, online against history                scope `admin`

Scores and explanations are those of `POST /v1/score`.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, Depends, Query
from fastapi.responses import FileResponse, Response

from features import parity
from features.errors import SeminarError
from features.record import entity_id
from model.serve import health, timelines
from model.serve.answers import Key
from model.serve.catalogue import Catalogue
from model.serve.keys import needs
from model.serve.refusals import Refused, documented
from model.serve.service import Service
from model.serve.timelines import Sequence

PAGE = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' "
    "data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
Look = Callable[[], Any]
"""Tells one section of the health: its facts, or an exception that says why not."""
User = Annotated[str, Query(min_length=1, max_length=256)]
Moment = Annotated[int, Query(ge=0, le=1 << 53, description="ms since 1970")]


def page() -> APIRouter:
    """The page's files: no secrets, no data."""
    router = APIRouter(include_in_schema=False)
    files = {file.name: file for file in PAGE.iterdir() if file.suffix in TYPES}

    @router.get("/inspect")
    def index() -> Response:
        return FileResponse(files["index.html"], headers=HEADERS)

    @router.get("/inspect/{name}")
    def part(name: str) -> Response:
        if name not in files:
            raise Refused(404, SeminarError("file", name, "is none of the page's", "open /inspect"))
        return FileResponse(files[name], media_type=TYPES[files[name].suffix], headers=HEADERS)

    return router


def routes(service: Service, outside: dict[str, Look]) -> APIRouter:
    """The JSON routes. outside: sections of the health that this package cannot know (the stream, DAG runs), by name."""
    router = APIRouter(
        prefix="/inspect/v1",
        tags=["inspect"],
        dependencies=[Depends(needs("admin"))],
        responses=documented(401, 403, 404, 422, 503),
    )
    home = service.home
    catalogue, codes = Catalogue(home), health.Codes()

    def sequence(user: str) -> Sequence:
        found = service.store.online.sequence(user)
        if found is None:
            problem = "has no sequence in the online store"
            raise Refused(404, SeminarError("user", user, problem, "look at the user_id that producers send"))
        return found

    @router.get("/users")
    def users(begins: Annotated[str, Query(max_length=256)] = "", limit: Annotated[int, Query(ge=1, le=1000)] = 200) -> Any:
        """Users whose id begins so, those with most events first."""
        return timelines.users(home, begins, limit)

    @router.get("/timeline")
    def timeline(user: User) -> Any:
        """Every behaviour of a user: times (ms) and kinds in columns, counts, age of the last."""
        found = timelines.timeline(sequence(user), user, int(time.time() * 1000))
        return Response(msgspec.json.encode(found), media_type="application/json")  # columns of 100,000: encoded once

    @router.get("/events")
    def events(user: User, since: Moment, until: Moment, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Any:
        """Behaviours of a user with since <= time (ms) <= until, named, the newest first."""
        return timelines.events(service.store.online, sequence(user)[0], since, until, limit)

    @router.get("/agreement")
    def agreement(user: User) -> Any:
        """Records of a user online and in history, and those that only one of them has."""
        return timelines.agreement(sequence(user), home, user)

    @router.get("/items")
    def items(words: Annotated[str, Query(max_length=200)] = "", limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> Any:
        """Items with all the words in title, category or brand, the most popular first."""
        bundle = service.bundle()
        return catalogue.find(words, limit, bundle.items if bundle else None)

    @router.post("/named", responses=documented(400))
    def named(items: Annotated[list[Key], Body(max_length=1000)]) -> Any:
        """Titles by item id, of those that the online store knows."""
        rows = service.store.online.items([entity_id(item) for item in items])
        return {item: row["title"] for item, row in zip(items, rows, strict=True) if row}

    @router.get("/health")
    def state() -> Any:
        """Every section: its facts, null where there is nothing yet, or {"away": why}."""
        own = {"service": service.ready, "codes": lambda: codes.look(service.bundle())}
        return health.look(home, own | outside)

    @router.get("/parity")
    def compare(sample: Annotated[int, Query(ge=1, le=1000)] = 50) -> Any:
        """So many users by chance, online against history."""
        return parity.compare(service.store.online, home, sample)

    return router
