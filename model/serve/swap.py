"""Which bundle answers: follows the pointer, changes over between requests, refuses what does not load.

1. A thread looks at the pointer every `period` seconds.
2. A version that it has not tried is verified (checksums), loaded and warmed with one request, all aside.
3. One assignment replaces the scorer. A request holds the scorer it began with, so no answer mixes versions.
4. What fails is refused and remembered with its reason; the former scorer serves on.
"""

import logging
import threading
from pathlib import Path

from features.errors import SeminarError
from features.online import Online
from features.publish import current, path, verify
from model import bundle
from model.serve.scorer import Scorer

log = logging.getLogger(__name__)


class Swap:
    """The scorer in force and the one refused, if any; safe for threads."""

    def __init__(self, bundles: Path, online: Online) -> None:
        self._bundles = bundles
        self._online = online
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._scorer: Scorer | None = None
        self.refused: dict[str, str] | None = None
        self.swaps = 0

    def scorer(self) -> Scorer:
        """The scorer to answer a request with; SeminarError before the first bundle."""
        if self._scorer is None:
            reason = self.refused["reason"] if self.refused else "no bundle is promoted"
            raise SeminarError("bundle", self._bundles, f"cannot be served: {reason}", "run `seminar promote VERSION`")
        return self._scorer

    def look(self) -> None:
        """Follow the pointer once."""
        with self._lock:
            version = current(self._bundles)
            serving = self._scorer.version if self._scorer else None
            if version is None or version == serving or (self.refused and self.refused["version"] == version):
                return
            try:
                folder = path(self._bundles, version)
                verify(folder)
                fresh = Scorer(bundle.load(folder), self._online)
                fresh.warm()
            except Exception as error:
                # Whatever is wrong with a bundle, the former one must go on answering.
                self.refused = {"version": version, "reason": str(error)}
                log.error("bundle %s is refused, %s serves on: %s", version, serving, error)
                return
            self._scorer, self.refused = fresh, None
            self.swaps += 1
            log.info("bundle %s serves", version)

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
