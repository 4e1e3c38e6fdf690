"""`/inspect`: a page to see what the system sees, and the JSON routes that it reads.

`GET /inspect`                          the page; its files lie in `model/serve/page/`, nothing is loaded from elsewhere
`GET /inspect/v1/users`                 users to pick from                                                scope `admin`
`GET /inspect/v1/timeline`              every behaviour of a user, in columns                             scope `admin`
`GET /inspect/v1/events`                behaviours of a user between two times, named                     scope `admin`
`GET /inspect/v1/agreement`             whether online and history have the same of a user                scope `admin`
`GET /inspect/v1/items`                 the catalogue by words, popular items first                       scope `admin`
`GET /inspect/v1/health`                versions, promotions, figures, codebooks, stream                  scope `admin`
`GET /inspect/v1/parity`                a sample of users compared, online against history                scope `admin`

Scores and explanations are those of `POST /v1/score`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, JSONResponse, Response

from features import parity
from features.errors import SeminarError
from features.online import Online
from model.bundle import Bundle
from model.serve import health, timelines
from model.serve.catalogue import Catalogue

PAGE = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' "
    "data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
User = Annotated[str, Query(min_length=1, max_length=256)]


@dataclass(frozen=True)
class Source:
    """What the page looks at. outside: sections of the health that the scorer itself does not know, by name."""

    home: Path
    online: Callable[[], Online]
    bundle: Callable[[], Bundle | None]
    outside: dict[str, Callable[[], Any]] = field(default_factory=dict)


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
            return Response(status_code=404)
        return FileResponse(files[name], media_type=TYPES[files[name].suffix], headers=HEADERS)

    return router


def routes(source: Source, dependencies: Sequence[Any] = ()) -> APIRouter:
    """The JSON routes; `dependencies` guard each of them."""
    router = APIRouter(prefix="/inspect/v1", tags=["inspect"], dependencies=list(dependencies))
    catalogue = Catalogue(source.home)

    @router.get("/users")
    def users(begins: Annotated[str, Query(max_length=256)] = "", limit: Annotated[int, Query(ge=1, le=1000)] = 200) -> Any:
        """Users whose id begins so, those with most events first."""
        return timelines.users(source.home, begins, limit)

    @router.get("/timeline")
    def timeline(user: User) -> Any:
        """Every behaviour of a user: times (ms) and kinds in columns, counts, age of the last."""
        return _found(lambda: timelines.timeline(source.online(), user, int(time.time() * 1000)))

    @router.get("/events")
    def events(user: User, since: int, until: int, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Any:
        """Behaviours of a user with since <= time (ms) <= until, named, the newest first."""
        return _found(lambda: timelines.events(source.online(), user, since, until, limit))

    @router.get("/agreement")
    def agreement(user: User) -> Any:
        """Records of a user online and in history, and those that only one of them has."""
        return _found(lambda: timelines.agreement(source.online(), source.home, user))

    @router.get("/items")
    def items(words: Annotated[str, Query(max_length=200)] = "", limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> Any:
        """Items with all the words in title, category or brand, the most popular first."""
        bundle = source.bundle()
        return catalogue.find(words, limit, bundle.items if bundle else None)

    @router.get("/health")
    def state() -> Any:
        """Every section: its facts, null where there is nothing yet, or {"away": why}."""
        return health.look(source.home, source.bundle(), source.outside)

    @router.get("/parity")
    def compare(sample: Annotated[int, Query(ge=1, le=1000)] = 50) -> Any:
        """So many users by chance, online against history."""
        return parity.compare(source.online(), source.home, sample)

    return router


def _found(look: Callable[[], Any]) -> Any:
    """What a look finds, or 404 with the sentence's parts for a user who has no sequence."""
    try:
        return look()
    except SeminarError as error:
        if error.field != "user":
            raise
        body = {"field": error.field, "value": str(error.value), "problem": error.problem, "remedy": error.remedy}
        return JSONResponse({"error": body}, status_code=404)
