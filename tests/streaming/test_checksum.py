"""The compiled checksum is the client's own."""

from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.record._crc32c import crc

from streaming.checksum import crc32c


@settings(deadline=None)  # compiling takes a second, once
@given(st.binary(max_size=100) | st.binary(min_size=1000, max_size=1100))
def test_it_is_what_the_client_computes(data: bytes) -> None:
    assert crc32c(data) == crc(memoryview(data))
    assert crc32c(memoryview(bytearray(data))[3:]) == crc(memoryview(data)[3:])


def test_the_value_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283
