"""What is asked and answered over HTTP: one request model, answers as typed dictionaries that service and client share."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

MOST_CANDIDATES, MOST_EXPLAINED = 1000, 10
DEADLINE, MOST_DEADLINE_MS = "X-Deadline-Ms", 60_000
"""The header that says how long (ms) whoever asks will wait, and the most that it may say."""
Key = Annotated[str, Field(min_length=1, max_length=256)]


class ScoreRequest(BaseModel):
    """What a product service asks."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"user": "1228", "candidates": ["995242", "1029743"]},
                {"user": "1228", "query": "ice cream", "candidates": ["995242", "1029743"], "explain": ["995242"]},
            ]
        },
    )

    user: Key
    query: Annotated[str, Field(max_length=1000)] | None = Field(default=None, description="What the user searches for")
    candidates: Annotated[list[Key], Field(min_length=1, max_length=MOST_CANDIDATES, description="Your own item ids")]
    time: AwareDatetime | None = Field(default=None, description="When they are shown; now, if absent")
    explain: bool | Annotated[list[Key], Field(max_length=MOST_EXPLAINED)] = Field(
        default=False, description="Candidates whose score is explained; `true`: the first one"
    )
    method: Literal["auto", "exact"] = Field(default="auto", description="How the past is searched; `exact` for comparison")

    @field_validator("explain")
    @classmethod
    def _explained_are_candidates(cls, explain: bool | list[str], info: ValidationInfo) -> bool | list[str]:
        for item in explain if isinstance(explain, list) else ():
            if item not in info.data.get("candidates", explain):  # candidates that were refused are not here
                raise PydanticCustomError("no_candidate", "{item} is no candidate", {"item": item})
        return explain

    @property
    def explained(self) -> list[str]:
        """The candidates to explain."""
        if isinstance(self.explain, list):
            return list(dict.fromkeys(self.explain))
        return self.candidates[:1] if self.explain else []


class Score(TypedDict):
    """A candidate's calibrated click rate if it is shown, and its score; None with a reason for what cannot be scored.

    score: log-odds that the user goes on to it and not to something else of the catalogue, to choose candidates by; it
    compares with those of the same answer only.
    """

    item: str
    rate: float | None
    score: float | None
    reason: NotRequired[str]


class Sequence(TypedDict):
    """How much of the user's past was read, and how long ago its last event was."""

    length: int
    last_event_age_s: float | None


class Freshness(TypedDict):
    """Events that arrived before `applied_until` are in the sequences that the scorer reads.

    stale: that is longer ago than `limit_s`; None: not known, since no consumer has said how far it is. A user who did
    nothing is not stale.
    """

    applied_until: str | None
    age_s: float | None
    limit_s: float
    stale: bool | None


class Behaviour(TypedDict):
    """A past behaviour that a candidate retrieved.

    attention: summed over the heads, all of a candidate's sum to 1 with what the null behaviour took. modalities: the share
    of each of the item's modalities and of the query in what matches the candidate; {} where the bundle cannot tell.
    """

    kind: Literal["search", "browse"]
    item: str | None
    title: str | None
    query: str | None
    time: str
    age_s: int
    attention: float
    modalities: dict[str, float]


class Explanation(TypedDict):
    """Why a candidate got its rate; rate_without: had these behaviours (all `retrieved`) not happened."""

    candidate: str
    rate: float | None
    rate_without: float | None
    retrieved: int
    attention_shown: float
    attention_total: float
    behaviours: list[Behaviour]
    error: NotRequired[str]


class ScoreAnswer(TypedDict):
    """Rates in the order of the candidates. degraded: what was missing, in words; empty when nothing was."""

    model_version: str
    user: str
    sequence: Sequence
    freshness: Freshness
    degraded: list[str]
    scores: list[Score]
    milliseconds: dict[str, float]
    explanations: NotRequired[list[Explanation]]


class Event(TypedDict):
    """One behaviour as a sequence holds it."""

    kind: Literal["search", "browse"]
    time: str
    item: str | None
    title: str | None
    query: str | None
    dwell_s: int


class UserSequence(TypedDict):
    """A user's sequence: its length, and its newest behaviours, the newest first."""

    user: str
    length: int
    first_event: str | None
    last_event: str | None
    freshness: Freshness
    behaviours: list[Event]


class Serving(TypedDict):
    """Which bundle answers in a worker (none while it starts), and the one that it refuses, if any, with the reason."""

    worker: int
    model_version: str | None
    refused: dict[str, str] | None


class Ready(TypedDict):
    """Which bundle answers in this process, how often that changed, which it refuses; `workers`: the same of all workers."""

    ready: bool
    model_version: str
    swaps: int
    refused: dict[str, str] | None
    freshness: Freshness
    worker: int
    workers: list[Serving]


class ErrorBody(TypedDict):
    """A refusal: which field, which value, what is wrong with it, and what to do about it."""

    field: str
    value: str
    problem: str
    remedy: str


class Error(TypedDict):
    """The body of every answer that is no 2xx."""

    error: ErrorBody


EXAMPLE: dict[str, Any] = {
    "model_version": "v000001",
    "user": "1228",
    "sequence": {"length": 1583, "last_event_age_s": 87314.0},
    "freshness": {"applied_until": "2017-11-27T00:00:00+00:00", "age_s": 0.8, "limit_s": 60.0, "stale": False},
    "degraded": [],
    "scores": [
        {"item": "995242", "rate": 0.0908, "score": 2.317},
        {"item": "1029743", "rate": None, "score": None, "reason": "unknown item: no `item` event has come for it"},
    ],
    "milliseconds": {"sequence": 0.2, "encode": 0.3, "search": 2.1, "attention": 1.9, "total": 4.5},
}
