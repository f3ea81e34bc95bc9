"""The bytes of a transfer: parts streamed from one storage to another, several at once, in constant memory.

A part's bytes are hashed while they pass through, and the last piece is held back until the hash is right: a source
that gives wrong bytes never makes a part. What a destination has not compared by itself is read back.

Nothing here knows of rows; `api.transfers.job` does.
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

_TRIES: Final = 3
_PAUSE: Final = 0.2
_LOOK_EVERY: Final = 1.0
_HALT_WITHIN: Final = 10.0

_log = logging.getLogger(__name__)


class SourceCorrupt(StorageError):
    """Every replica gave wrong bytes, twice."""


class CopyCorrupt(StorageError):
    """The destination holds other bytes than were sent, also when it is read again."""


class _Halted(Exception):
    """The copy is to end; nothing is wrong."""


class _Wrong(Exception):
    """Bytes that are not what their hash says, or too few of them."""


class _Unreadable(Exception):
    """The source, not the destination, failed."""

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
    """The replicas that are still believed, the first of them first; shared by the threads of one copy."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._lock = threading.Lock()
        self._left = list(sources)
        self._why: StorageError = ObjectNotFound("the blob has no other replica")

    def first(self) -> Source:
        """Raises what made the last one unusable."""
        with self._lock:
            if not self._left:
                raise self._why
            return self._left[0]

    def drop(self, source: Source, why: StorageError) -> None:
        """Not to be read again."""
        with self._lock:
            if source in self._left:
                self._left.remove(source)
                # that one of them was corrupt is what a person has to know
                if not isinstance(self._why, SourceCorrupt):
                    self._why = why

    def demote(self, source: Source) -> None:
        """To be read when the others fail as well."""
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
    """Makes a copy's object of its parts, in one of three stages that a row keeps.

    Args:
        stage: 0 nothing was sent, 1 a complete may have been sent, 2 the object is there for good and is to be read.
        write_stage: writes the next one down.

    Raises:
        CompleteDoubtful: nobody may believe in this key; the copy begins anew under another one.
    """
    if stage == 2:
        return Completed(verified=False, sha256=None)
    write_stage(1)
    completed = destination.complete(replace(ref, completes_sent=stage), hashes, lease.keep)
    if not completed.verified:
        write_stage(2)
    return completed


class Copying:
    """One object on its way.

    Args:
        pool: runs parts; of all copies of the process, so that it bounds what is in memory.
        parallel: parts of this object at once.
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
        # of copying and reading back together: a segment is no longer for having both
        self._budget = SEGMENT_BYTES

    def length(self, number: int) -> int:
        """Bytes of a part."""
        return digests.part_length(number, self._ref.size, self._ref.part_size)

    def copy(self, numbers: Iterable[int], sources: Sequence[Source], done: Callable[[int], bool]) -> bool:
        """Copies these parts; False where the segment is over before they are.

        Args:
            done: is told each part that is stored, in this thread; False ends the segment.

        Raises:
            SourceCorrupt: no replica gives the right bytes.
            UploadGone: the destination does not know the upload any more.
            StorageError: one of the storages failed, several times.
        """
        left = _Sources(sources)
        return self._run(numbers, lambda number: self._copy_part(number, left), done)

    def read_back(self, numbers: Iterable[int], done: Callable[[int], bool]) -> bool:
        """Compares these parts of the finished object; False where the segment is over before they are.

        Raises:
            CopyCorrupt: it is not what was sent.
            StorageError: it cannot be read.
        """
        return self._run(numbers, self._read_part, done)

    # -- several at once

    def _run(self, numbers: Iterable[int], work: Callable[[int], None], done: Callable[[int], bool]) -> bool:
        todo, running = iter(numbers), dict[Future[None], int]()
        going = True
        try:
            while True:
                while going and len(running) < self._parallel:
                    # looked at first: a part that was taken out of the list must be done
                    if self._budget <= 0 or self._lease.stopping:
                        going = False
                    elif (number := next(todo, None)) is None:
                        break
                    else:
                        self._budget -= self.length(number)
                        running[self._pool.submit(work, number)] = number
                if not running:
                    return next(todo, None) is None
                ended, _ = wait(running, _LOOK_EVERY, FIRST_COMPLETED)
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
            wait(running, _HALT_WITHIN)
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
                _log.warning("a source gave wrong bytes", extra={"storage": source.name, "part": number})
                if source in wrong:
                    # two reads that disagree with the hash: the bytes are wrong, not the reading
                    _log.error("a replica is corrupt", extra={"storage": source.name, "key": source.object_key})
                    sources.drop(source, SourceCorrupt(f"part {number} on {source.name} is not what was uploaded"))
                wrong.append(source)
            except _Unreadable as ex:
                tries += 1
                if isinstance(ex.error, ObjectNotFound):
                    sources.drop(source, ex.error)
                elif tries == _TRIES:
                    raise ex.error from None
                else:
                    sources.demote(source)
                    self._pause(tries)
            except UploadGone:
                raise
            except StorageError as ex:
                tries += 1
                if tries == _TRIES:
                    raise
                self._pause(tries)
                # a part that is sent again leaks its first copy on some storages: only what is not there is
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
                _log.warning("a copy was read back wrong", extra={"key": self._ref.object_key, "part": number})
                if wrong == 2:
                    raise CopyCorrupt(f"part {number} of the copy is not what was sent") from ex
            except _Unreadable as ex:
                tries += 1
                if tries == _TRIES or isinstance(ex.error, ObjectNotFound):
                    raise ex.error from None
                self._pause(tries)

    def _pause(self, tries: int) -> None:
        if self._halt.wait(_PAUSE * 2 ** (tries - 1)):
            raise _Halted

    def _pieces(self, storage: Storage, object_key: str, number: int) -> Iterator[bytes]:
        """A part's bytes; the last of them only when the hash is right."""
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
