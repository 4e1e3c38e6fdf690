"""Waiting for another process: it tells nobody when it is ready, so it is asked again and again."""

import time
from collections.abc import Callable


def until(done: Callable[[], bool], patience: float, complaint: str, every: float = 0.05) -> None:
    """Ask every so often (s) until it is done; RuntimeError after `patience` seconds. What `done` raises comes through."""
    deadline = time.monotonic() + patience
    while not done():
        if time.monotonic() > deadline:
            raise RuntimeError(complaint)
        time.sleep(every)
