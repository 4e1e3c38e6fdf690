"""What child processes of this project have in common."""

import ctypes
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> Callable[[], None] | None:
    """A `preexec_fn`: the kernel sends the child SIGTERM when its parent ends, even by SIGKILL. Linux only, else None."""
    if sys.platform != "linux":
        return None

    def ask() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask
