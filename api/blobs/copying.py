"""Copies an object from one storage to another: parts in parallel, in constant memory.

A part is hashed while it is streamed, and its last piece is sent only if the hash is right. So a source with wrong
bytes never produces a part. If a destination does not compare the hash itself, the copy is read back.

This module knows nothing of the database; `api.transfers.job` does.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final

from api.blobs.throttle import Throttle
from api.core import digests
from api.core.errors import ObjectNotFound, PartMismatch, StorageError, UploadGone
from api.jobs.base import SEGMENT_BYTES, Lease
from api.storage.base import Completed, MultipartRef, MultipartStorage, Storage

TRIES_PER_PART: Final = 3
FIRST_PAUSE_SECONDS: Final = 0.2
KEEP_LEASE_SECONDS: Final = 1.0
HALT_TIMEOUT_SECONDS: Final = 10.0

_log = logging.getLogger(__name__)


class SourceCorrupt(StorageError):
    """Every replica returned wrong bytes, twice."""


class CopyCorrupt(StorageError):
    """The destination holds other bytes than were sent. It was read twice."""


class _Halted(Exception):
    """The copy must stop. This is no error."""


class _Wrong(Exception):
    """The bytes do not match their hash, or there are too few."""


class _Unreadable(Exception):
    """The source failed, not the destination."""

    def __init__(self, error: StorageError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, slots=True)
class Source:
    """A replica to copy from."""

    name: str
    storage: Storage
    object_key: str


class _Sources:
    """The usable replicas in order of preference; shared by the threads of one copy."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._lock = threading.Lock()
        self._left = list(sources)
        self._why: StorageError = ObjectNotFound("the blob has no other replica")

    def first(self) -> Source:
        """The best replica. If none is left, raises the error of the last one."""
        with self._lock:
            if not self._left:
                raise self._why
            return self._left[0]

    def drop(self, source: Source, why: StorageError) -> None:
        """Removes a replica: it is not read again."""
        with self._lock:
            if source in self._left:
                self._left.remove(source)
                # if one of them was corrupt, the operator must learn that
                if not isinstance(self._why, SourceCorrupt):
                    self._why = why

    def demote(self, source: Source) -> None:
        """Puts a replica last: it is read again only if the others fail too."""
        with self._lock:
            if source in self._left:
                self._left.remove(source)
                self._left.append(source)


def complete(
    destination: MultipartStorage,
    ref: MultipartRef,
    hashes: bytes,
    lease: Lease,
    stage: int,
    write_stage: Callable[[int], None],
) -> Completed:
    """Completes a copy's multipart upload. A row keeps the stage.

    Args:
        stage: 0 if nothing was sent, 1 if a complete request may have been sent, 2 if the object exists permanently
            and only has to be read back.
        write_stage: saves the next stage.

    Raises:
        CompleteDoubtful: the object under this key cannot be trusted. The copy starts again under a new key.
    """
    if stage == 2:
        return Completed(verified=False, sha256=None)
    write_stage(1)
    completed = destination.complete(replace(ref, completes_sent=stage), hashes, lease.keep)
    if not completed.verified:
        write_stage(2)
    return completed


class Copying:
    """The copy of one object.

    Args:
        pool: runs the parts. All copies of the process share it, so it bounds the memory.
        parallel: parts of this object that are copied concurrently.
    """

    def __init__(
        self,
        pool: Executor,
        parallel: int,
        throttle: Throttle,
        ref: MultipartRef,
        destination: MultipartStorage,
        hashes: bytes,
        lease: Lease,
    ) -> None:
        self._pool = pool
        self._parallel = parallel
        self._throttle = throttle
        self._ref = ref
        self._destination = destination
        self._hashes = digests.split(hashes)
        self._lease = lease
        self._halt = threading.Event()
        # one budget for copying and reading back: both together are one segment
        self._budget = SEGMENT_BYTES

    def length(self, number: int) -> int:
        """Length of a part, in bytes."""
        return digests.part_length(number, self._ref.size, self._ref.part_size)

    def copy(self, numbers: Iterable[int], sources: Sequence[Source], done: Callable[[int], bool]) -> bool:
        """Copies these parts. Returns False if the segment ended before.

                Args:
        done: called in this thread with each part that was stored. If it returns False, the segment ends.

                Raises:
                    SourceCorrupt: no replica has the right bytes.
                    UploadGone: the destination no longer knows the upload.
                    StorageError: a storage failed several times.
        """
        left = _Sources(sources)
        return self._run(numbers, lambda number: self._copy_part(number, left), done)

    def read_back(self, numbers: Iterable[int], done: Callable[[int], bool]) -> bool:
        """Compares these parts of the new object. Returns False if the segment ended before.

        Raises:
            CopyCorrupt: the object differs from the bytes sent.
            StorageError: the object cannot be read.
        """
        return self._run(numbers, self._read_part, done)

    # -- parts in parallel

    def _run(self, numbers: Iterable[int], work: Callable[[int], None], done: Callable[[int], bool]) -> bool:
        todo, running = iter(numbers), dict[Future[None], int]()
        going = True
        try:
            while True:
                while going and len(running) < self._parallel:
                    # checked before `next`: a part that was taken from the iterator must be copied
                    if self._budget <= 0 or self._lease.stopping:
                        going = False
                    elif (number := next(todo, None)) is None:
                        break
                    else:
                        self._budget -= self.length(number)
                        running[self._pool.submit(work, number)] = number
                if not running:
                    return next(todo, None) is None
                ended, _ = wait(running, KEEP_LEASE_SECONDS, FIRST_COMPLETED)
                self._lease.keep()
                for future in ended:
                    number = running.pop(future)
                    future.result()
                    self._lease.moved += self.length(number)
                    going &= done(number)
        except BaseException:
            self._halt.set()
            for future in running:
                future.cancel()
            wait(running, HALT_TIMEOUT_SECONDS)
            raise

    # -- one part, in a thread of the pool

    def _copy_part(self, number: int, sources: _Sources) -> None:
        wrong: list[Source] = []
        tries = 0
        while True:
            source = sources.first()
            try:
                body = self._pieces(source.storage, source.object_key, number)
                self._destination.write_part(self._ref, number, body, self._hashes[number - 1].hex())
                return
            except _Wrong:
                _log.warning("a source returned wrong bytes", extra={"storage": source.name, "part": number})
                if source in wrong:
                    # two reads do not match the hash: the stored bytes are wrong, not the read
                    _log.error("a replica is corrupt", extra={"storage": source.name, "key": source.object_key})
                    sources.drop(source, SourceCorrupt(f"part {number} on {source.name} is not what was uploaded"))
                wrong.append(source)
            except _Unreadable as ex:
                tries += 1
                if isinstance(ex.error, ObjectNotFound):
                    sources.drop(source, ex.error)
                elif tries == TRIES_PER_PART:
                    raise ex.error from None
                else:
                    sources.demote(source)
                    self._pause(tries)
            except UploadGone:
                raise
            except StorageError as ex:
                tries += 1
                if tries == TRIES_PER_PART:
                    raise
                self._pause(tries)
                # on some storages a part that is sent again leaks its first copy: do not resend a stored one
                if not isinstance(ex, PartMismatch) and self._is_there(number):
                    return

    def _is_there(self, number: int) -> bool:
        return self._destination.list_parts(self._ref).get(number) == self.length(number)

    def _read_part(self, number: int) -> None:
        wrong = tries = 0
        while True:
            try:
                for _ in self._pieces(self._destination, self._ref.object_key, number):
                    pass
                return
            except _Wrong as ex:
                wrong += 1
                _log.warning(
                    "a copy was read back with wrong bytes", extra={"key": self._ref.object_key, "part": number}
                )
                if wrong == 2:
                    raise CopyCorrupt(f"part {number} of the copy is not what was sent") from ex
            except _Unreadable as ex:
                tries += 1
                if tries == TRIES_PER_PART or isinstance(ex.error, ObjectNotFound):
                    raise ex.error from None
                self._pause(tries)

    def _pause(self, tries: int) -> None:
        if self._halt.wait(FIRST_PAUSE_SECONDS * 2 ** (tries - 1)):
            raise _Halted

    def _pieces(self, storage: Storage, object_key: str, number: int) -> Iterator[bytes]:
        """Yields a part's bytes; the last piece only if the hash is right."""
        sha256, left, size = hashlib.sha256(), self.length(number), self._throttle.piece
        offset = (number - 1) * self._ref.part_size
        try:
            reader = storage.open(object_key, offset, left)
        except StorageError as ex:
            raise _Unreadable(ex) from ex
        with closing(reader):
            while left:
                self._throttle.take(min(left, size), self._halt)
                if self._halt.is_set():
                    raise _Halted
                try:
                    data = reader.read(min(left, size))
                except StorageError as ex:
                    raise _Unreadable(ex) from ex
                sha256.update(data)
                left -= len(data)
                if not data or (not left and sha256.digest() != self._hashes[number - 1]):
                    raise _Wrong
                yield data
