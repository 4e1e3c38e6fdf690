"""Which bundle answers: follows the pointer, changes over between requests, refuses what does not hold.

1. A thread looks at the pointer every `period` seconds.
2. Another version is verified aside: checksums, its feature service in the registry, its golden requests.
3. It answers the requests that were sampled last, so that it begins compiled, mapped and read.
4. One assignment replaces the scorer. A request holds the scorer it began with, so no answer mixes versions.
5. What fails is refused, with its reason; the former scorer serves on.
6. What was refused is tried again when the pointer is written anew, and by itself after a while: the cause may have been one
   of the machine and not of the bundle.
"""

import logging
import threading
import time
from collections import deque
from pathlib import Path

import numpy as np

from features.errors import SeminarError
from features.online import ITEM, QUERY, SEQUENCE
from features.publish import POINTER, current, path, verify
from model import bundle
from model.golden import TOLERANCE
from model.serve.answers import ScoreRequest
from model.serve.counters import Counters
from model.serve.scorer import Scorer
from model.serve.store import Store

log = logging.getLogger(__name__)
SAMPLES, EVERY = 16, 50
AGAIN_S, MOST_AGAIN_S = 60.0, 3600.0
"""When a refused version is tried again by itself, and how far that grows, doubling: trying reads the whole bundle."""


class Swap:
    """The scorer in force and the one refused, if any; safe for threads."""

    def __init__(self, bundles: Path, store: Store, counters: Counters | None = None) -> None:
        self._bundles, self._store = bundles, store
        self._counters = counters or Counters()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._scorer: Scorer | None = None
        self._samples: deque[ScoreRequest] = deque(maxlen=SAMPLES)
        self._seen = 0
        self._tried: tuple[str | None, int, int] | None = None
        self._again_at, self._again_s = 0.0, AGAIN_S
        self.refused: dict[str, str] | None = None
        self.swaps = 0

    def scorer(self) -> Scorer:
        """The scorer to answer a request with; SeminarError before the first bundle."""
        if self._scorer is None:
            reason = self.refused["reason"] if self.refused else "no bundle is promoted, or the first is being read"
            raise SeminarError("bundle", self._bundles, f"cannot be served: {reason}", "run `seminar promote VERSION`")
        return self._scorer

    def sample(self, request: ScoreRequest) -> None:
        """Keep one request of EVERY to warm the next bundle with."""
        self._seen += 1
        if self._seen % EVERY == 1:
            self._samples.append(request)

    def look(self) -> None:
        """Follow the pointer once."""
        with self._lock:
            try:
                version = self._wanted()
            except (OSError, ValueError) as error:  # not now; whoever follows it goes on
                log.error("the pointer in %s cannot be read: %s", self._bundles, error)
                return
            if version:
                self._try(version)
            self._tell()

    def _wanted(self) -> str | None:
        """The version to try now, if any."""
        version = current(self._bundles)
        if version is None or (self._scorer and self._scorer.version == version):
            return None
        pointer = (self._bundles / POINTER).stat()
        tried = version, pointer.st_mtime_ns, pointer.st_ino
        if tried != self._tried:
            self._tried, self._again_s = tried, AGAIN_S
        elif time.monotonic() < self._again_at:
            return None
        return version

    def _try(self, version: str) -> None:
        serving = self._scorer.version if self._scorer else None
        self.refused = None  # what was said of it before is no answer to this try
        self._tell()
        try:
            fresh = self._prepare(version)
        except Exception as error:
            # Whatever is wrong with a bundle, the former one must go on answering.
            self.refused = {"version": version, "reason": str(error)}
            self._again_at, self._again_s = time.monotonic() + self._again_s, min(2 * self._again_s, MOST_AGAIN_S)
            self._counters.count("seminar_model_refused")
            log.error("bundle %s is refused, %s serves on: %s", version, serving, error)
            return
        self._scorer = fresh
        self.swaps += 1
        self._counters.count("seminar_model_swaps")
        log.info("bundle %s serves", version)

    def _tell(self) -> None:
        serving = self._scorer.version if self._scorer else None
        self._counters.board.write(self._counters.worker, serving, self.refused)

    def _prepare(self, version: str) -> Scorer:
        """Load, check and warm a version; it raises whatever is wrong."""
        folder = path(self._bundles, version)
        verify(folder)
        found = bundle.load(folder)
        check_service(self._store, found.manifest["feature_service"])
        fresh = Scorer(found, self._store)
        check_golden(fresh)
        fresh.warm()
        for request in list(self._samples):
            fresh.score(request.user, request.candidates, query=request.query, time_ms=int(time.time() * 1000))
        return fresh

    def warm(self) -> None:
        """Let this process touch what it will need: a forked one copies pages at its first request."""
        if self._scorer:
            self._scorer.warm()

    def watch(self, period: float = 1.0) -> threading.Thread:
        """Follow the pointer every `period` seconds until `close`."""

        def loop() -> None:
            while not self._stop.wait(period):
                self.look()

        thread = threading.Thread(target=loop, name="bundle-watch", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Stop following."""
        self._stop.set()


def check_service(store: Store, name: str) -> None:
    """SeminarError unless the registry has the feature service with the views that a scorer reads."""
    views = store.online.service(name)
    missing = {SEQUENCE, ITEM, QUERY} - set(views)
    if missing:
        raise SeminarError("feature service", name, f"lacks {', '.join(sorted(missing))}", "run `seminar apply`")


def check_golden(scorer: Scorer) -> None:
    """SeminarError unless the bundle's golden requests get the rates that training gave them, by exact search."""
    for number, (records, time_ms, query, candidates, rates) in enumerate(scorer.bundle.golden):
        found = scorer.scoring(records, candidates, query, time_ms, "exact").rates
        worst = float(np.abs(found - rates).max(initial=0.0))
        if not worst <= TOLERANCE:  # nan is no agreement
            raise SeminarError(
                "golden request", number, f"gets rates that differ by {worst:.2g} from training's", "export the bundle again"
            )
