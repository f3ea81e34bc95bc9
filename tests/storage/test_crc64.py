"""CRC64 as OSS computes it, and combined from separately computed parts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from api.storage.oss import crc64


def test_the_check_value_is_the_catalogues() -> None:
    assert crc64.update(0, b"123456789") == 0x995DC9BBDF1939FA  # CRC-64/XZ


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_parts_combine_to_the_whole(parts: list[bytes]) -> None:
    whole, expected = 0, crc64.update(0, b"".join(parts))
    for part in parts:
        whole = crc64.update(whole, part)
    assert whole == expected
    assert crc64.combine((crc64.update(0, part), len(part)) for part in parts) == expected


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(0, 2**40))
def test_lengths_of_any_size_add_up(first: int, second: int, length: int, further: int) -> None:
    behind = crc64.combine([(first, 1), (0, length), (0, further), (second, 0)])
    assert behind == crc64.combine([(first, 1), (0, length + further), (second, 0)])
