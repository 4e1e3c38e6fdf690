"""Answers that are no 2xx: one exception with a status, one body for all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from features.errors import SeminarError
from model.serve.answers import Error

SHOWN = 200
"""Characters of a refused value that are repeated to whoever sent it."""
WORDS = {
    400: "No JSON, or a body that did not come",
    401: "No key, or an unknown one",
    403: "The key lacks the scope",
    404: "Unknown",
    408: "The body came too slowly",
    413: "The body is too large",
    415: "The body is no application/json",
    422: "A field is refused",
    500: "A defect of the service; its log has more",
    503: "No bundle, or the queue is full (Retry-After says when to come again)",
    504: "The deadline passed",
}


class Refused(Exception):
    """A refusal with its HTTP status."""

    def __init__(self, status: int, error: SeminarError, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(str(error))
        self.status, self.error, self.headers = status, error, dict(headers or {})


def body(error: SeminarError) -> Error:
    """The body of a refusal."""
    value = str(error.value).encode(errors="backslashreplace").decode()  # half a surrogate pair cannot be written
    shown = value if len(value) <= SHOWN else value[:SHOWN] + "..."
    return {"error": {"field": error.field, "value": shown, "problem": error.problem, "remedy": error.remedy}}


def answer(status: int, error: SeminarError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The whole answer."""
    return JSONResponse(body(error), status, dict(headers or {}))


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of these statuses."""
    return {status: {"model": Error, "description": WORDS[status]} for status in statuses}


def of_validation(errors: Sequence[Any], placed: bool = False) -> SeminarError:
    """What pydantic says of the first field that it refuses.

    placed: the first step of a location is the part of the request that the field is in, as FastAPI has it.
    """
    found = [(_steps(error["loc"], placed), error) for error in errors]
    mine = [one for one in found if one[0][:1] == found[0][0][:1]]
    steps, error = max(mine, key=lambda one: len(one[0]))  # of a union's errors the deepest: other members fit even less
    field = ".".join(map(str, steps)) or "body"
    return SeminarError(field, error.get("input", ""), f"is refused: {error['msg']}", "correct the request")


def _steps(location: Sequence[str | int], placed: bool) -> list[str | int]:
    """A field's name and the places below it."""
    if placed and len(location) > 1 and isinstance(location[1], str):
        location = location[1:]  # a body that is a list has places, but no name
    return [step for i, step in enumerate(location) if i == 0 or isinstance(step, int)]  # a later word: a union's member


def install(app: FastAPI) -> None:
    """Let every refusal have the one body."""

    @app.exception_handler(Refused)
    async def refused(_: Request, refusal: Refused) -> JSONResponse:
        return answer(refusal.status, refusal.error, refusal.headers)

    @app.exception_handler(SeminarError)
    async def unavailable(_: Request, error: SeminarError) -> JSONResponse:
        return answer(503, error, {"Retry-After": "1"})

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return answer(422, of_validation(error.errors(), placed=True))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        problem = SeminarError("request", f"{request.method} {request.url.path}", f"is refused: {error.detail}", "see /docs")
        return answer(error.status_code, problem, error.headers)

    @app.exception_handler(Exception)  # Starlette raises it again, for the log, and the connection ends
    async def failed(request: Request, error: Exception) -> JSONResponse:
        what = f"{request.method} {request.url.path}"
        problem = SeminarError("request", what, f"failed: {type(error).__name__}", "look at the service's log")
        return answer(500, problem, {"Connection": "close"})
