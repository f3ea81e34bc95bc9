"""The digest: SHA-256 over the parts' SHA-256s, and the part size that both sides compute (docs/api.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sluice.source import Source

SMALLEST_PART = 8 * 1024**2
MOST_PARTS = 10_000
READ = 1024**2
"""Bytes that are read and hashed at a time: enough to leave Python seldom, little enough for many threads."""
_SAMPLES = 16
_SAMPLE_LENGTH = 4096


@dataclass(frozen=True)
class Plan:
    """How content of a size is cut into parts."""

    size: int
    part_size: int
    part_count: int

    @classmethod
    def of(cls, size: int) -> Plan:
        part_size = SMALLEST_PART
        while part_size * MOST_PARTS < size:
            part_size *= 2
        return cls(size, part_size, -(-size // part_size))

    def part(self, number: int) -> tuple[int, int]:
        """A part's (offset, length)."""
        offset = (number - 1) * self.part_size
        return offset, min(self.part_size, self.size - offset)


def composite(hashes: Sequence[str]) -> str:
    """The digest of content whose parts have these SHA-256s, in order."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, hashes))).hexdigest()


def hash_part(source: Source, offset: int, length: int, check: Callable[[], None] = lambda: None) -> str:
    """A part's SHA-256.

    Args:
        check: called now and then; raises what ends the work.
    """
    sha256, view = hashlib.sha256(), memoryview(bytearray(min(READ, length)))
    end = offset + length
    while offset < end:
        check()
        count = source.read_into(offset, view[: min(len(view), end - offset)])
        sha256.update(view[:count])
        offset += count
    return sha256.hexdigest()


def hash_parts(
    source: Source,
    plan: Plan,
    parts: Sequence[int],
    threads: int,
    on_hashed: Callable[[int], None] = lambda _: None,
    check: Callable[[], None] = lambda: None,
) -> dict[int, str]:
    """SHA-256 of parts, by number; several are hashed concurrently.

    Args:
        on_hashed: called with the number of bytes of each part that is done.
    """

    from concurrent.futures import ThreadPoolExecutor  # costs every command's start what only this needs

    def one(number: int) -> str:
        offset, length = plan.part(number)
        found = hash_part(source, offset, length, check)
        on_hashed(length)
        return found

    with ThreadPoolExecutor(max(1, min(threads, len(parts))), thread_name_prefix="hash") as pool:
        try:
            return dict(zip(parts, pool.map(one, parts), strict=True))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def digest_of(source: Source, threads: int) -> str:
    """The digest of a whole content."""
    plan = Plan.of(source.size)
    return composite(list(hash_parts(source, plan, range(1, plan.part_count + 1), threads).values()))


def sample(source: Source, size: int) -> str:
    """A name for content that was not read yet: SHA-256 over its size and a few short pieces of it.

    It is what an unfinished upload is found again by, from any machine. Two contents may share it: the parts' hashes
    and the digest decide, always.
    """
    sha256, view = hashlib.sha256(str(size).encode()), memoryview(bytearray(_SAMPLE_LENGTH))
    last = max(0, size - _SAMPLE_LENGTH)
    for offset in sorted({last * index // (_SAMPLES - 1) for index in range(_SAMPLES)}):
        sha256.update(view[: source.read_into(offset, view[: min(_SAMPLE_LENGTH, size - offset)])])
    return sha256.hexdigest()


def answer_challenge(source: Source, nonce: bytes, ranges: Sequence[tuple[int, int]]) -> str:
    """The proof that the content is at hand: SHA-256 over the nonce and the bytes that are asked for."""
    proof = hashlib.sha256(nonce)
    for offset, length in ranges:
        view = memoryview(bytearray(length))
        done = 0
        while done < length:
            done += source.read_into(offset + done, view[done:])
        proof.update(view)
    return proof.hexdigest()
