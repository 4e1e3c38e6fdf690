"""How far the stream is applied, as far as the scorer can know: the consumer's watermarks, kept online by partition.

Stale is a watermark that is older than a limit, whoever the user is; a user who does nothing is not stale. The oldest
partition counts: a user's own is not known here.
"""

import logging
import math
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from features.state import Pairing, watermarks
from model.serve.answers import Freshness
from model.serve.counters import Counters
from model.serve.store import Store

log = logging.getLogger(__name__)
LIMIT_S = 60.0
BEHAVIOURS = ("search", "browse")


class Watch:
    """Looks at watermarks and at the store's identity aside, so that no request waits for either."""

    def __init__(self, store: Store, home: Path, limit_s: float = LIMIT_S, counters: Counters | None = None) -> None:
        self.limit_s = limit_s
        self._store, self._home, self._counters = store, home, counters or Counters()
        self._applied_ms: int | None = None
        self._trouble = ""
        self._stop = threading.Event()

    def look(self) -> None:
        """Look once. Where the store is away, what was known stays, and grows old."""
        try:
            self._trouble = Pairing(self._store.online, self._home).trouble()
            marks = [m.time_ms for name, m in watermarks(self._store.online).items() if _is_behaviour(name)]
        except Exception as error:
            log.warning("watermarks are not known: %s: %s", type(error).__name__, error)
            return
        self._applied_ms = min(marks, default=None)
        moment = math.nan if self._applied_ms is None else self._applied_ms / 1000
        self._counters.set("seminar_watermark_age_seconds", moment)

    def start(self, period: float = 1.0) -> None:
        """Look every `period` seconds until `close`."""
        self.look()

        def loop() -> None:
            while not self._stop.wait(period):
                self.look()

        threading.Thread(target=loop, name="freshness", daemon=True).start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()

    def now(self) -> Freshness:
        """What an answer says."""
        if self._applied_ms is None:
            return {"applied_until": None, "age_s": None, "limit_s": self.limit_s, "stale": None}
        age = max(0.0, time.time() - self._applied_ms / 1000)
        moment = datetime.fromtimestamp(self._applied_ms / 1000, UTC).isoformat()
        return {"applied_until": moment, "age_s": round(age, 3), "limit_s": self.limit_s, "stale": age > self.limit_s}

    def degraded(self) -> list[str]:
        """In words what is wrong with all sequences."""
        found = [f"identity: {self._trouble}"] if self._trouble else []
        fresh = self.now()
        if fresh["stale"]:
            found.append(f"stale: events are applied until {fresh['applied_until']} only")
        return found


def _is_behaviour(name: str) -> bool:
    return name.rsplit("/", 1)[0].rsplit(".", 1)[-1] in BEHAVIOURS
