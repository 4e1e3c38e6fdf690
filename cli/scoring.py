"""Asking the running scorer: candidates to rank, what is printed of an answer, latency by stage."""

import random
from collections.abc import Sequence

import numpy as np

from cli.output import Output
from features.history import read_items
from features.record import query_text, unsigned
from features.settings import settings
from model.serve.answers import Behaviour, Explanation, Score, ScoreAnswer
from model.serve.client import Client


def ranked(answer: ScoreAnswer, most: int = 5) -> list[Score]:
    """The best of an answer, by what chooses from a catalogue (docs/services.md)."""
    known = [score for score in answer["scores"] if score["score"] is not None]
    return sorted(known, key=lambda score: -(score["score"] or 0.0))[:most]


def show(out: Output, answer: ScoreAnswer, titles: dict[str, str], query: str | None) -> None:
    """Print an answer's best candidates, and why others have no score."""
    sequence = answer["sequence"]
    asked = f"query {query!r}" if query else "no query"
    out.line(f"user {answer['user']}, {asked}, {sequence['length']:,} behaviours, model {answer['model_version']}")
    out.table(
        ["score", "rate", "item", "title"],
        [
            (f"{s['score'] or 0.0:.2f}", f"{100 * (s['rate'] or 0.0):.2f} %", s["item"], titles.get(s["item"], ""))
            for s in ranked(answer)
        ],
    )
    for s in answer["scores"]:
        if s["score"] is None:
            out.line(f"{s['item']}: {s.get('reason', 'not scored')}")


def show_explanation(out: Output, explained: Explanation, most: int = 8) -> None:
    """Print which past behaviours a candidate retrieved."""
    if "error" in explained:
        out.line(f"no explanation: {explained['error']}")
        return
    rates = " and ".join("none" if x is None else f"{100 * x:.2f} %" for x in (explained["rate"], explained["rate_without"]))
    retrieved = f"{explained['retrieved']} behaviours retrieved, with and without which the rate is {rates}"
    out.line(f"why {explained['candidate']}: {retrieved}; the heaviest are")
    out.table(
        ["attention", "days ago", "kind", "what"],
        [
            (f"{100 * b['attention']:.2f} %", f"{b['age_s'] / 86400:.1f}", b["kind"], named(b))
            for b in explained["behaviours"][:most]
        ],
    )


def named(behaviour: Behaviour) -> str:
    """A behaviour in words."""
    if behaviour["kind"] == "search":
        return repr(behaviour["query"])
    found = behaviour["title"] or behaviour["item"] or "an item no longer known"
    return f"{found}, found by {behaviour['query']!r}" if behaviour["query"] else str(found)


class Catalogue:
    """Titles, and candidates for a query: items whose title has all its words, then popular ones."""

    def __init__(self) -> None:
        from features.history import read_sequences

        home = settings().home
        rows = read_items(home)
        self.titles = dict(zip(rows["item_id"].to_pylist(), rows["title"].to_pylist(), strict=True))
        key = dict(zip((unsigned(i) for i in rows["item"].to_pylist()), rows["item_id"].to_pylist(), strict=True))
        items, counts = np.unique(read_sequences(home).records["item"], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        self.popular = [key[int(i)] for i in items[order] if int(i) in key]

    def candidates(self, query: str | None, n: int) -> list[str]:
        """Item keys [n]."""
        asked = set(query_text(query).split()) if query else set()
        matching = [i for i in self.popular if asked and asked <= set((self.titles[i] or "").split())][: n // 2]
        return list(dict.fromkeys([*matching, *self.popular]))[:n]


def latency(
    client: Client, users: Sequence[str], candidates: Sequence[str], query: str | None, requests: int
) -> dict[str, dict[str, float]]:
    """Milliseconds by stage over requests in a row, as the scorer and (http) the client see them: {"p50_ms", "p99_ms"}."""
    import time

    rng, found = random.Random(0), []
    for _ in range(requests):
        begin = time.perf_counter()
        answer = client.score(rng.choice(users), candidates, query)
        found.append({**answer["milliseconds"], "http": 1000 * (time.perf_counter() - begin)})
    return {
        stage: {
            "p50_ms": float(np.percentile([row[stage] for row in found], 50)),
            "p99_ms": float(np.percentile([row[stage] for row in found], 99)),
        }
        for stage in found[0]
    }
