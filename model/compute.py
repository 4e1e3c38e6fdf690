"""How this process computes: settings of the allocator and of the floating-point unit that long histories need."""

import ctypes
import sys

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def tune() -> None:
    """Call before the first computation, since the threads that compute inherit it. Safe to repeat.

    Denormal numbers are taken for zero: softmax weights of unlikely behaviours are full of them, and processors are
    slow at each. The allocator keeps freed blocks of megabytes (glibc), which attention over a long
    history would have mapped and zeroed anew at every step.
    """
    torch.set_flush_denormal(True)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
