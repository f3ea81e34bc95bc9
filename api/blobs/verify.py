"""Reads a blob back and compares each part with its hash, if the storage did not compare it.

Until then the blob belongs to its uploader only and matches no instant upload. Afterwards it is verified, or merged
with a blob that was verified first, or corrupt. After an I/O error the job is tried again later.

This job also computes the SHA-256 of the whole for large verified content on local storage, so that a complete request
does not wait for it.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Final

from api.blobs import merge
from api.blobs import rows as blobs
from api.blobs import verify_rows as verifications
from api.blobs.readback import ReadBack
from api.blobs.replicas import MEND
from api.blobs.verify_rows import Verification
from api.context import Context
from api.core import digests
from api.core.errors import ObjectNotFound, StorageError, StorageUnavailable
from api.core.sha256 import SHA256, resumes
from api.db.pool import Statements
from api.jobs import rows as jobs
from api.jobs.base import SEGMENT_BYTES, Lease, LeaseLost, Outcome
from api.storage.base import Storage

_log = logging.getLogger(__name__)

READ_BUFFER_BYTES: Final = 1024**2
_WHOLE_IN_MEMORY: Final = 32 * 1024**2
"""Most bytes of parts that wait in memory for the hash of the whole."""


class _Saving:
    """Saves positions in order, in a thread, since a commit takes as long as hashing a part."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="save")
        self._last: Future[None] | None = None

    def __enter__(self) -> _Saving:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def save(self, place: int, memo: bytes | None) -> None:
        """Starts to save. Waits for the previous save first, and raises its exception."""
        self.settle()
        self._last = self._thread.submit(self._lease.save, place, memo)

    def settle(self) -> None:
        """Waits until everything is saved. Raises LeaseLost, DatabaseUnavailable."""
        if self._last is not None:
            last, self._last = self._last, None
            last.result()


class Verifier:
    """See the module's docstring; the job of kind ``verify``, whose subject is a blob.

    Args:
        parallel: parts that are read concurrently.
    """

    kind = "verify"

    def __init__(self, context: Context) -> None:
        self._db = context.db
        self._stores = context.stores
        self._clock = context.clock
        self._parallel = context.config.verify_parallel

    def rescue(self) -> int:
        """Creates jobs for unverified blobs that have none. Returns their number."""
        found = verifications.stuck(self._db)
        jobs.insert_many(self._db, self.kind, found, self._clock())
        return len(found)

    def run(self, subject: bytes, lease: Lease) -> Outcome:
        work = verifications.load(self._db, subject)
        if work is None:
            return Outcome.DONE
        if work.blob.state == "unverified":
            return self._compare(work, lease)
        if work.blob.state == "verified" and work.blob.sha256 is None:
            try:
                return self._hash(work, lease)
            except ObjectNotFound:
                jobs.insert(
                    self._db, MEND, subject, self._clock()
                )  # marks it missing, so that the next try reads another replica
                raise
        return Outcome.DONE

    # -- every part against its hash

    def _compare(self, work: Verification, lease: Lease) -> Outcome:
        storage, object_key = self._replica(work)
        count, whole = digests.part_count(work.blob.size), self._whole(work, lease)
        reader = ReadBack(
            storage,
            object_key,
            work.blob.size,
            work.hashes,
            parallel=self._readers(work, with_whole=whole is not None),
            ahead=self._parallel,
            keep=lease.keep,
            with_data=whole is not None,
        )
        done = lease.place
        with _Saving(lease) as saving:
            # do not read ahead past the segment's end: the next segment would read it again
            for part in reader.parts(done, max(SEGMENT_BYTES // digests.part_size(work.blob.size), 1)):
                if not part.right:
                    saving.settle()
                    return self._corrupt(work, lease, part.number)
                done = part.number
                lease.moved += part.length
                if whole is not None:
                    for data in part.data:
                        whole.update(data)
                if done < count:
                    saving.save(done, whole.state() if whole else None)
                    if lease.stopping:
                        break
            saving.settle()
        if done < count:
            return Outcome.MORE
        # with a single part, its hash is the hash of the whole
        return self._verified(work, lease, work.hashes if count == 1 else whole.digest() if whole else None)

    def _readers(self, work: Verification, *, with_whole: bool) -> int:
        """Number of parts that are hashed concurrently.

        The hash of the whole cannot be computed in parallel and takes longest. On local storage, where the CPU is the
        bottleneck, one core is left free for it.
        """
        assert work.blob.storage is not None
        if not with_whole or self._stores.kind(work.blob.storage) != "local":
            return self._parallel
        return max(1, min(self._parallel, len(os.sched_getaffinity(0)) - 1))

    def _whole(self, work: Verification, lease: Lease) -> SHA256 | None:
        """The hash of the parts so far; None if it needs too much memory or its saved state cannot be used."""
        length = digests.part_size(work.blob.size)
        if work.blob.size <= length or length * self._parallel > _WHOLE_IN_MEMORY:
            return None
        if lease.place == 0:
            return SHA256()
        return SHA256(lease.memo) if resumes(lease.memo) else None

    def _corrupt(self, work: Verification, lease: Lease, number: int) -> Outcome:
        def body(tx: Statements) -> None:
            verifications.set_corrupt(tx, work.blob.id)
            lease.end(tx)

        self._db.transaction(body)
        _log.error("a blob is not what was uploaded", extra={"blob": work.blob.id.hex(), "part": number})
        return Outcome.DONE

    def _verified(self, work: Verification, lease: Lease, sha256: bytes | None) -> Outcome:
        blob = work.blob

        def claim(tx: Statements) -> bool:
            if not blobs.claim(tx, blob.digest, work.scope, blob.id):
                return False
            if not verifications.set_verified(tx, blob.id, sha256, self._clock()):
                raise LeaseLost
            lease.end(tx)
            return True

        for _ in range(3):
            if self._db.transaction(claim) or self._merge(work):
                return Outcome.DONE
        raise StorageError("a blob of this digest was created and deleted repeatedly")

    def _merge(self, work: Verification) -> bool:
        """Moves the files to the blob that was verified first. Returns False if that blob changed."""
        blob = work.blob
        assert blob.storage is not None
        first = merge.find(self._db, self._stores, blob.digest, blob.size, work.scope, blob.storage)
        if first is None:
            return False

        def body(tx: Statements) -> bool:
            assert blob.storage is not None
            assert blob.object_key is not None
            if not verifications.merge(tx, blob.id, first.blob.id, first.blob.state):
                return False
            new = blob.storage, blob.object_key, self._clock()
            merge.hold(tx, first, *new)
            merge.settle(tx, first, *new)
            return True

        return self._db.transaction(body)

    # -- the hash of the whole, in order

    def _hash(self, work: Verification, lease: Lease) -> Outcome:
        """Reads from start to end. Saves the hash's state at the end of a segment, if it can be exported."""
        storage, object_key = self._replica(work)
        length, count = digests.part_size(work.blob.size), digests.part_count(work.blob.size)
        resumed = lease.place > 0 and resumes(lease.memo)
        done, whole = (lease.place, SHA256(lease.memo)) if resumed else (0, SHA256())
        for number in range(done + 1, count + 1):
            left = digests.part_length(number, work.blob.size, length)
            with closing(storage.open(object_key, (number - 1) * length, left)) as reader:
                while left > 0 and (data := reader.read(min(left, READ_BUFFER_BYTES))):
                    whole.update(data)
                    left -= len(data)
                    lease.moved += len(data)
                    lease.keep()
            if left:
                raise StorageUnavailable("the object ended early")
            if number < count and (lease.moved >= SEGMENT_BYTES or lease.stopping) and (state := whole.state()):
                lease.save(number, state)
                return Outcome.MORE

        def body(tx: Statements) -> None:
            verifications.set_sha256(tx, work.blob.id, whole.digest())
            lease.end(tx)

        self._db.transaction(body)
        return Outcome.DONE

    def _replica(self, work: Verification) -> tuple[Storage, str]:
        if work.blob.storage is None or work.blob.object_key is None:
            raise ObjectNotFound("no storage has the blob")
        return self._stores.named(work.blob.storage), work.blob.object_key
