"""Content that is defined by its seed: not stored, but generated again for each comparison."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import cached_property
from typing import Any

KIB = 1024
PART = 8 * 1024**2  # docs/api.md, "The digest"; files here need no larger parts


@dataclass(frozen=True)
class Content:
    """Bytes that depend only on seed and size."""

    seed: str
    size: int

    def read(self) -> bytes:
        return random.Random(f"{self.seed} {self.size}").randbytes(self.size)

    @property
    def numbers(self) -> list[int]:
        return list(range(1, -(-self.size // PART) + 1))

    @cached_property
    def hashes(self) -> list[str]:
        data = self.read()
        return [hashlib.sha256(part_of(data, number)).hexdigest() for number in self.numbers]

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(b"".join(map(bytes.fromhex, self.hashes))).hexdigest()

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.read()).hexdigest()

    def hashes_of(self, numbers: list[int]) -> dict[str, str]:
        """The map of hashes that POST /uploads and /parts take."""
        return {str(number): self.hashes[number - 1] for number in numbers}

    def proof(self, challenge: dict[str, Any]) -> str:
        """The response to a challenge."""
        data = self.read()
        ranges = b"".join(data[offset : offset + length] for offset, length in challenge["ranges"])
        return hashlib.sha256(bytes.fromhex(challenge["nonce"]) + ranges).hexdigest()


def part_of(data: bytes, number: int) -> bytes:
    return data[(number - 1) * PART : number * PART]


def small(noise: random.Random, seed: str) -> Content:
    """One PUT, also on Ceph (see `stand.SETTINGS`); sometimes an empty file."""
    return Content(seed, noise.choice((0, 1, noise.randrange(64 * KIB), 64 * KIB)))


def medium(noise: random.Random, seed: str) -> Content:
    """A multipart upload of one part on Ceph: the target of kills during a complete, and cheap."""
    return Content(seed, noise.randrange(64 * KIB + 1, 512 * KIB))


def multipart(noise: random.Random, seed: str) -> Content:
    """Two parts, sometimes three."""
    return Content(seed, noise.choice((1, 1, 1, 2)) * PART + noise.randrange(1, 256 * KIB))
