"""Reads a stored object and compares each part's hash: in parallel, in constant memory."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from api.core import digests
from api.core.errors import ObjectNotFound
from api.storage.base import Storage

READ_BUFFER_BYTES: Final = 1024**2
KEEP_SECONDS: Final = 1.0


def _nothing() -> None:
    """In a pool thread: the thread that waits for the part keeps the lease."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part as it was read.

    Attributes:
        right: True if its bytes match the recorded hash.
        data: its bytes in pieces, if they were asked for.
    """

    number: int
    length: int
    right: bool
    data: tuple[bytes, ...]


class ReadBack:
    """Reads one object.

    Args:
        hashes: packed, 32 bytes per part.
        parallel: parts that are read and hashed concurrently.
        ahead: most parts that are being read or wait for the caller; ``parallel`` by default.
        keep: called about once per second while waiting for a storage. An exception from it ends the reading.
        with_data: also return the parts' bytes. Up to ``ahead`` parts are then in memory.
    """

    def __init__(
        self,
        storage: Storage,
        object_key: str,
        size: int,
        hashes: bytes,
        *,
        parallel: int,
        keep: Callable[[], None],
        with_data: bool = False,
        ahead: int | None = None,
    ) -> None:
        self._storage = storage
        self._object_key = object_key
        self._size = size
        self._hashes = digests.split(hashes)
        self._length = digests.part_size(size)
        self._parallel = parallel
        self._ahead = ahead or parallel
        self._keep = keep
        self._with_data = with_data

    def parts(self, done: int, most: int | None = None) -> Iterator[Part]:
        """Yields the parts after the first ``done`` ones, in order; at most ``most`` of them.

        Raises:
            StorageError: the object could not be read. This does not mean that its bytes are wrong.
        """
        last = len(self._hashes) if most is None else min(done + most, len(self._hashes))
        if last - done == 1 or self._ahead == 1:
            for number in range(done + 1, last + 1):
                yield self._read(number, self._keep)
            return
        pool = ThreadPoolExecutor(self._parallel, thread_name_prefix="read back")
        try:
            pending: deque[Future[Part]] = deque()
            for number in range(done + 1, last + 1):
                pending.append(pool.submit(self._read, number, _nothing))
                if len(pending) == self._ahead:
                    yield self._settle(pending.popleft())
            while pending:
                yield self._settle(pending.popleft())
        finally:
            # do not wait for a read that hangs
            pool.shutdown(wait=False, cancel_futures=True)

    def _settle(self, future: Future[Part]) -> Part:
        while True:
            try:
                part = future.result(KEEP_SECONDS)
            except NotYet:
                if future.done():
                    raise
                self._keep()
            else:
                self._keep()
                return part

    def _read(self, number: int, keep: Callable[[], None]) -> Part:
        """Reads a part; twice if the hash differs, since the read itself may have failed."""
        length = digests.part_length(number, self._size, self._length)
        for _ in range(2):
            sha256, data = self._hash((number - 1) * self._length, length, keep)
            if sha256 == self._hashes[number - 1]:
                return Part(number, length, True, data)
        return Part(number, length, False, ())

    def _hash(self, offset: int, length: int, keep: Callable[[], None]) -> tuple[bytes, tuple[bytes, ...]]:
        """(SHA-256, bytes) of a range; an empty hash if the object is gone."""
        sha256, left, kept = hashlib.sha256(), length, list[bytes]()
        try:
            with closing(self._storage.open(self._object_key, offset, length)) as reader:
                while left > 0 and (data := reader.read(min(left, READ_BUFFER_BYTES))):
                    sha256.update(data)
                    if self._with_data:
                        kept.append(data)
                    left -= len(data)
                    keep()
        except ObjectNotFound:
            return b"", ()
        return sha256.digest(), tuple(kept)
