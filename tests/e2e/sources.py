"""Real files to upload, with part size, part hashes and digest as docs/api.md defines them."""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

MIB = 1024**2
PART = 8 * MIB
_MOST_PARTS = 10_000
_BLOCK = 4096


@dataclass(frozen=True)
class Source:
    """A file on this machine."""

    path: Path
    size: int

    @cached_property
    def part_size(self) -> int:
        size = PART
        while size * _MOST_PARTS < self.size:
            size *= 2
        return size

    @property
    def part_count(self) -> int:
        return -(-self.size // self.part_size)

    @property
    def numbers(self) -> list[int]:
        return list(range(1, self.part_count + 1))

    def read(self, offset: int, length: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def part(self, number: int) -> bytes:
        return self.read((number - 1) * self.part_size, self.part_size)

    @cached_property
    def hashes(self) -> list[str]:
        return [hashlib.sha256(self.part(number)).hexdigest() for number in self.numbers]

    def hashes_of(self, numbers: list[int]) -> dict[str, str]:
        """The map of hashes that POST /parts takes."""
        return {str(number): self.hashes[number - 1] for number in numbers}

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(b"".join(map(bytes.fromhex, self.hashes))).hexdigest()

    @cached_property
    def sha256(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def proof(self, challenge: Mapping[str, Any]) -> str:
        """The response to a challenge."""
        ranges = b"".join(self.read(offset, length) for offset, length in challenge["ranges"])
        return hashlib.sha256(bytes.fromhex(challenge["nonce"]) + ranges).hexdigest()


class Sources:
    """Makes files of any size; the bytes depend only on size and seed.

    Up to 1 MiB they are random. Larger ones have a random block in every MiB and a random last block:
    cheap to make, different in every part, and not the zeros that a lost write would leave.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, size: int, seed: int | str = 0) -> Source:
        path = self._folder / f"{size}-{seed}"
        noise = random.Random(f"{size} {seed}")
        with path.open("wb") as file:
            if size <= MIB:
                file.write(noise.randbytes(size))
            else:
                for offset in [*range(0, size, MIB), size - _BLOCK]:
                    file.seek(min(offset, size - 1))
                    file.write(noise.randbytes(min(_BLOCK, size - file.tell())))
        return Source(path, size)
