"""How the C library treats memory that large rows take and give back."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_megabytes() -> None:
    """Keep up to 64 MB of freed memory for the next row instead of returning it to the kernel (glibc; else nothing).

    A row of 100,000 records is 3.2 MB. By default each copy of it is mapped anew, page by page: half of a read's time.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt:
            mallopt(_M_MMAP_THRESHOLD, 32 << 20)
            mallopt(_M_TRIM_THRESHOLD, 64 << 20)
