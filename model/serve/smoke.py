"""A few requests to a bundle before it is released: it answers, with rates that are rates, in time."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import SeminarError
from features.online import Online
from model import bundle
from model.serve.scorer import Scorer
from model.serve.swap import check_golden


def smoke(
    folder: Path, users: Sequence[str], *, online: Online | None = None, requests: int = 40, candidates: int = 100
) -> dict[str, Any]:
    """Score items of the catalogue for users with a bundle that nobody serves yet.

    SeminarError for a rate that is none, and where a golden request gets another one than in training. Returns
    {"requests", "candidates", "p50_ms", "p90_ms"}.
    """
    online = online or Online()
    loaded = bundle.load(folder)
    scorer = Scorer.of(loaded, online)
    check_golden(scorer)  # scorers would refuse it
    scorer.warm()
    ids = loaded.items.ids[:: max(1, len(loaded.items.ids) // candidates)][:candidates]
    keys = [row["item_id"] for row in online.items([int(i) for i in ids]) if row]
    took: list[float] = []
    for i in range(requests if keys and users else 0):
        user = users[i % len(users)]
        begin = time.perf_counter()
        answer = scorer.score(user, keys, time_ms=int(time.time() * 1000))
        took.append(1000 * (time.perf_counter() - begin))
        for item, rate in zip(keys, answer.rates, strict=True):
            if rate is not None and not 0 <= rate <= 1:
                raise SeminarError("rate", rate, f"of item {item} for user {user} is none", "look at the training data")
    p50, p90 = np.quantile(took, [0.5, 0.9]) if took else (None, None)
    return {"requests": len(took), "candidates": len(keys), "p50_ms": p50, "p90_ms": p90}
