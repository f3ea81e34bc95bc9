"""CRC-64/XZ, which OSS calls crc64ecma: over bytes by fastcrc, over parts that were summed alone by arithmetic.

oss2 brings crcmod for it. crcmod runs at 10 MB/s if it was installed without a C compiler, and oss2 combines part by
part at milliseconds each. Source of the arithmetic: zlib's crc32_combine (multiplication of polynomials over GF(2)
modulo the CRC's), with 64 bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from fastcrc import crc64

_POLYNOMIAL: Final = 0xC96C5795D7870F42
"""ECMA-182's, with its bits reversed."""

_ONE: Final = 1 << 63
"""The polynomial 1; bits are reversed here too."""


def update(crc: int, data: bytes) -> int:
    """The CRC of what ``crc`` (0 at first) stands for, followed by ``data``."""
    return crc64.xz(data, crc or None)


def combine(parts: Iterable[tuple[int, int]]) -> int:
    """The CRC of parts put together, from the (CRC, length in bytes) of each."""
    whole = 0
    for crc, length in parts:
        whole = _times(_shift(length), whole) ^ crc
    return whole


@lru_cache(maxsize=64)
def _shift(length: int) -> int:
    """x to the power of 8 × ``length``: what bytes that follow do to a CRC."""
    power, square = _ONE, _ONE >> 8
    while length:
        if length & 1:
            power = _times(square, power)
        square = _times(square, square)
        length >>= 1
    return power


def _times(left: int, right: int) -> int:
    """``left`` × ``right`` modulo the CRC's polynomial."""
    product, bit = 0, _ONE
    while left:
        if left & bit:
            product ^= right
            left ^= bit
        bit >>= 1
        right = (right >> 1) ^ _POLYNOMIAL if right & 1 else right >> 1
    return product
