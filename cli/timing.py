"""Wall time and peak memory of a command's stages, its children included."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


class Stages:
    """Seconds by stage, and the greatest resident memory seen of this process and its children (MB)."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_mb = 0.0
        self._begin = time.monotonic()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage."""
        begin = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - begin, 1)
        self.sample()

    @contextmanager
    def sampling(self, period: float = 1.0) -> Iterator[None]:
        """Look at the memory every `period` seconds meanwhile."""
        stop = threading.Event()

        def loop() -> None:
            while not stop.wait(period):
                self.sample()

        thread = threading.Thread(target=loop, name="memory", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def sample(self) -> None:
        """Look at the memory now."""
        here = psutil.Process()
        total = 0.0
        for process in [here, *here.children(recursive=True)]:
            try:
                total += process.memory_info().rss / 2**20
            except psutil.NoSuchProcess:
                continue
        self.peak_mb = max(self.peak_mb, round(total))

    @property
    def total(self) -> float:
        """Seconds since the beginning."""
        return round(time.monotonic() - self._begin, 1)
