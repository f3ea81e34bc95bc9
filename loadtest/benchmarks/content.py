"""Content of any size without a file: one random block, with a different head in each part."""

from __future__ import annotations

import hashlib
import os
import struct
from functools import cache
from pathlib import Path

MIB = 1024**2
GIB = 1024**3
PART_SIZE = 8 * MIB  # part_size() of every size up to 80 GB


@cache
def _block() -> memoryview:
    return memoryview(os.urandom(PART_SIZE))


@cache
def _part_sha256(seed: int, number: int, length: int) -> str:
    head, tail = _part(seed, number, length)
    digest = hashlib.sha256(head)
    digest.update(tail)
    return digest.hexdigest()


def _part(seed: int, number: int, length: int) -> tuple[bytes, memoryview]:
    head = struct.pack(">QQ", seed, number)[-length:]
    return head, _block()[len(head) : length]


class Content:
    """Bytes that were never uploaded before, unless `seed` is given again.

    Only the first part depends on `seed`: the other parts' hashes are computed once per run.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self._seed = seed

    @property
    def part_count(self) -> int:
        return -(-self.size // PART_SIZE)

    def _seed_of(self, number: int) -> int:
        return self._seed if number == 1 else 0

    def _length(self, number: int) -> int:
        return min(PART_SIZE, self.size - (number - 1) * PART_SIZE)

    def part(self, number: int) -> tuple[bytes, memoryview]:
        """A part's bytes, in two pieces."""
        return _part(self._seed_of(number), number, self._length(number))

    def write(self, path: Path) -> None:
        """Writes all bytes into a file."""
        with path.open("wb") as file:
            for number in range(1, self.part_count + 1):
                file.writelines(self.part(number))

    def hashes(self) -> dict[str, str]:
        """The parts, in the form that /parts takes."""
        return {
            str(number): _part_sha256(self._seed_of(number), number, self._length(number))
            for number in range(1, self.part_count + 1)
        }

    def digest(self) -> str:
        joined = b"".join(map(bytes.fromhex, self.hashes().values()))
        return hashlib.sha256(joined).hexdigest()

    def read(self, offset: int, length: int) -> bytes:
        """The bytes of a range, for a proof."""
        found = bytearray()
        while length > 0:
            number, inside = divmod(offset, PART_SIZE)
            head, tail = self.part(number + 1)
            piece = (head + bytes(tail))[inside : inside + length]
            found += piece
            offset += len(piece)
            length -= len(piece)
        return bytes(found)
