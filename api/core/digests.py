"""Part sizes and the composite digest. Server and clients must compute them in the same way."""

from __future__ import annotations

import hashlib
from typing import Final

MIN_PART_SIZE: Final = 8 * 1024**2
MAX_PARTS: Final = 10_000
"""Limit of S3 and OSS on part numbers."""

HASH_LENGTH: Final = 32
EMPTY_DIGEST: Final = hashlib.sha256(b"").digest()


def part_size(size: int) -> int:
    """Part size in bytes: 8 MiB, doubled until at most 10,000 parts are needed. The last part may be shorter."""
    length = MIN_PART_SIZE
    while -(-size // length) > MAX_PARTS:
        length *= 2
    return length


def part_count(size: int) -> int:
    """Number of parts of a content of ``size`` bytes; 0 if it is empty."""
    return -(-size // part_size(size))


def part_length(number: int, size: int, length: int) -> int:
    """Length of part ``number`` (from 1), in bytes, if parts have ``length`` bytes."""
    return min(length, size - (number - 1) * length)


def composite(hashes: bytes) -> bytes:
    """The digest: SHA-256 over the parts' SHA-256s, 32 bytes each, in order."""
    return hashlib.sha256(hashes).digest()


def split(hashes: bytes) -> list[bytes]:
    """The hashes of a packed list."""
    return [hashes[i : i + HASH_LENGTH] for i in range(0, len(hashes), HASH_LENGTH)]
