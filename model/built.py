"""Shared libraries that were compiled from C when the package was installed."""

import ctypes
from functools import cache
from importlib.util import find_spec


@cache
def built(module: str) -> ctypes.CDLL | None:
    """The library of an extension module, or None where there was no C compiler."""
    found = find_spec(module)
    return None if found is None or found.origin is None else ctypes.CDLL(found.origin)
