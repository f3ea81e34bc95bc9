"""Reads a stored object part by part and compares: several parts at once, in constant memory."""

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

_BUFFER: Final = 1024**2
_LOOK_UP_EVERY: Final = 1.0


def _nothing() -> None:
    """Who waits for a part keeps the lease; the thread that reads it has nothing to do with that."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part as it was read.

    Attributes:
        right: its bytes have the hash that was written down.
        data: the bytes themselves in pieces, where they were asked for.
    """

    number: int
    length: int
    right: bool
    data: tuple[bytes, ...]


class ReadBack:
    """One object to be read.

    Args:
        hashes: packed, 32 bytes a part.
        parallel: parts that are read and hashed at the same time.
        ahead: parts that are on their way, or wait until they are taken, at the same time; as many as ``parallel``
            where it is not given.
        keep: called about every second while a storage keeps us waiting; what it raises ends the reading.
        with_data: the parts' bytes are handed out too: ``ahead`` parts are in memory then.
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
        """The parts after the first ``done`` ones, in order, ``most`` of them where that is given.

        Raises:
            StorageError: the object could not be read. That says nothing about its bytes.
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
            # a read that hangs is not waited for
            pool.shutdown(wait=False, cancel_futures=True)

    def _settle(self, future: Future[Part]) -> Part:
        while True:
            try:
                part = future.result(_LOOK_UP_EVERY)
            except NotYet:
                if future.done():
                    raise
                self._keep()
            else:
                self._keep()
                return part

    def _read(self, number: int, keep: Callable[[], None]) -> Part:
        """Reads a part; a second time where the first reading disagrees: the reading may have been wrong."""
        length = digests.part_length(number, self._size, self._length)
        for _ in range(2):
            sha256, data = self._hash((number - 1) * self._length, length, keep)
            if sha256 == self._hashes[number - 1]:
                return Part(number, length, True, data)
        return Part(number, length, False, ())

    def _hash(self, offset: int, length: int, keep: Callable[[], None]) -> tuple[bytes, tuple[bytes, ...]]:
        """An object that is gone has no bytes."""
        sha256, left, kept = hashlib.sha256(), length, list[bytes]()
        try:
            with closing(self._storage.open(self._object_key, offset, length)) as reader:
                while left > 0 and (data := reader.read(min(left, _BUFFER))):
                    sha256.update(data)
                    if self._with_data:
                        kept.append(data)
                    left -= len(data)
                    keep()
        except ObjectNotFound:
            return b"", ()
        return sha256.digest(), tuple(kept)
