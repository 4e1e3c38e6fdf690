"""CRC-32C compiled: kafka-python checks every batch of messages by one in pure Python, which is most of what a poll costs.

The client itself takes a compiled one from the package `crc32c` where that is installed; then this changes nothing.
"""

from functools import cache
from typing import Any

import numpy as np
from kafka.record import default_records, util
from numba import njit, types


def _tables() -> Any:
    """The usual eight tables [8, 256] by which eight bytes are taken at once."""
    tables = np.zeros((8, 256), np.uint32)
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        tables[0, byte] = crc
    for k in range(1, 8):
        tables[k] = (tables[k - 1] >> np.uint32(8)) ^ tables[0][tables[k - 1] & np.uint32(255)]
    return tables


@cache
def _compiled() -> Any:
    readable = types.Array(types.uint8, 1, "C", readonly=True)

    @njit(types.uint32(readable, types.uint32[:, ::1]), nogil=True, cache=True)  # type: ignore[untyped-decorator]
    def crc32c(data: Any, t: Any) -> Any:
        crc = np.uint32(0xFFFFFFFF)
        whole = len(data) // 8 * 8
        for i in range(0, whole, 8):
            low = crc ^ (
                np.uint32(data[i])
                | (np.uint32(data[i + 1]) << np.uint32(8))
                | (np.uint32(data[i + 2]) << np.uint32(16))
                | (np.uint32(data[i + 3]) << np.uint32(24))
            )
            crc = (
                t[7, low & np.uint32(255)]
                ^ t[6, (low >> np.uint32(8)) & np.uint32(255)]
                ^ t[5, (low >> np.uint32(16)) & np.uint32(255)]
                ^ t[4, low >> np.uint32(24)]
                ^ t[3, data[i + 4]]
                ^ t[2, data[i + 5]]
                ^ t[1, data[i + 6]]
                ^ t[0, data[i + 7]]
            )
        for i in range(whole, len(data)):
            crc = t[0, (crc ^ data[i]) & np.uint32(255)] ^ (crc >> np.uint32(8))
        return crc ^ np.uint32(0xFFFFFFFF)

    tables = _tables()
    return lambda data: int(crc32c(np.frombuffer(data, np.uint8), tables))


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """The CRC-32C (Castagnoli) of some bytes."""
    found: int = _compiled()(data)
    return found


def accelerate() -> None:
    """Let kafka-python use it in this process, from the next client on."""
    if util.crc32c_c is None:
        _compiled()
        default_records.calc_crc32c = crc32c
