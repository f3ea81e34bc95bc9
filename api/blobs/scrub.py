"""Reads stored objects slowly and continuously, and compares them with the recorded hashes.

The scrub reads one replica at a time, at ``SLUICE_SCRUB_RATE``, beginning with the one that was compared longest ago.
A part is damaged if two reads do not match its hash. If there is another replica, the scrub replaces the damaged object
by a copy of that one. If there is none, the blob becomes corrupt: its files report that, and a new upload of the same
content repairs it. A missing object is replaced in the same way, or reported. If an object cannot be read, the scrub
tries again later and changes nothing.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Final

from api.blobs import scrub_rows as scrubs
from api.blobs.copying import CopyCorrupt, Copying, Source, SourceCorrupt, complete
from api.blobs.scrub_rows import Healing, Stored, Subject
from api.blobs.throttle import Throttle
from api.context import Context
from api.core import digests, metrics
from api.core.errors import CompleteDoubtful, ObjectNotFound, StorageError, StorageUnavailable, UploadGone
from api.core.models import new_id
from api.core.sha256 import SHA256, resumes
from api.jobs import rows as jobs
from api.jobs.base import SEGMENT_BYTES, Busy, Lease, Outcome
from api.storage.base import MultipartRef, MultipartStorage, Storage
from api.storage.keys import object_key
from api.storage.stores import LATE_COMPLETE
from api.storage.wholeness import is_whole

MOST_SCRUB_JOBS: Final = 2
"""Scrub jobs in the table at the same time. All other replicas wait without a job."""
RETRY_SECONDS: Final = 300.0

_log = logging.getLogger(__name__)


class Pause(Exception):
    """The segment is over; its position is saved."""


class Away(Exception):
    """The storages of all other replicas are unreachable; nothing is changed."""


class Scrubber:
    """See the module's docstring; the job of kind ``scrub``, whose subject is a blob."""

    kind = "scrub"

    def __init__(self, context: Context) -> None:
        self._db = context.db
        self._stores = context.stores
        self._queue = context.queue
        self._clock = context.clock
        self._prefix = context.prefix
        self._rate = context.config.scrub_rate
        self._interval = timedelta(seconds=context.config.scrub_interval)
        self._throttle = Throttle(context.config.scrub_rate)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="scrub")
        self._never = threading.Event()

    def plan(self) -> int:
        """Creates jobs for the replicas that were compared longest ago, up to two jobs. Returns 0."""
        if self._rate and scrubs.waiting(self._db) < MOST_SCRUB_JOBS:
            before = self._clock() - self._interval
            due = [
                (checked_at, blob_id)
                for name, _ in self._stores
                if self._stores.answers(name)
                for blob_id, checked_at in scrubs.oldest(self._db, name, before)
            ]
            chosen = list(dict.fromkeys(blob_id for _, blob_id in sorted(due)))[:MOST_SCRUB_JOBS]
            jobs.insert_many(self._db, self.kind, chosen, self._clock())
            self._queue.enqueue(self.kind, chosen)
        return 0  # a rescue returns the jobs that were lost: none here

    def run(self, subject: bytes, lease: Lease) -> Outcome:
        """See `api.jobs.base.Job`."""
        found = scrubs.load(self._db, subject)
        if found is not None and found.state != "verified":
            scrubs.put_off(self._db, subject, self._clock())
        elif found is not None:
            try:
                for stored in found.replicas:
                    if stored.checked_at < self._clock() - self._interval and self._stores.answers(stored.storage):
                        self.look(found, stored, lease)
            except Pause:
                return Outcome.MORE
            except Away:
                return Outcome.later(RETRY_SECONDS)
        lease.keep()
        self._db.transaction(lease.end)
        self.plan()
        return Outcome.DONE

    # -- one replica

    def look(self, subject: Subject, stored: Stored, lease: Lease) -> None:
        """Compares every byte of a replica and heals it if needed. Raises Pause, Away."""
        try:
            # an earlier segment found it damaged
            if len(subject.replicas) > 1 and scrubs.is_healing(self._db, subject.blob_id, stored.storage):
                self._stores.named(stored.storage).stat(stored.object_key)
                raise _Damaged(0)
            sha256 = self._read(subject, stored, lease)
        except ObjectNotFound:
            # checked a second time: the disk may have been unmounted for a moment
            if is_whole(self._stores.named(stored.storage), stored.object_key, subject.size):
                raise StorageUnavailable("an object was gone and is back; trying again") from None
            self.mend(subject, stored, lease, "gone")
        except _Damaged as ex:
            extra = {"blob": subject.blob_id.hex(), "storage": stored.storage, "key": stored.object_key}
            _log.error("a replica is damaged", extra=extra | {"part": ex.number})
            self.mend(subject, stored, lease, "damaged")
        else:
            scrubs.set_checked(self._db, subject.blob_id, stored, self._clock())
            if sha256 is not None:
                scrubs.set_sha256(self._db, subject.blob_id, sha256)
            metrics.SCRUBBED.labels(stored.storage, "right").inc()
        lease.save(0, None)

    def _read(self, subject: Subject, stored: Stored, lease: Lease) -> bytes | None:
        """Compares every part, in order. Returns the whole object's hash if this run could compute it."""
        storage, name = self._stores.named(stored.storage), stored.object_key.encode()[-32:]
        memo = lease.memo or b""
        done = lease.place if memo.startswith(name) else 0
        state = memo[len(name) :] if done else None
        whole = SHA256(state) if state is None or resumes(state) else None
        hashes = digests.split(subject.hashes)
        for number, expected in enumerate(hashes, 1):
            if number <= done:
                continue
            if self._hash(storage, subject, stored.object_key, number, lease, whole) != expected:
                whole = None
                # two reads do not match the hash: the stored bytes are wrong, not the read
                if self._hash(storage, subject, stored.object_key, number, lease, None) != expected:
                    raise _Damaged(number)
            if number < len(hashes):
                lease.save(number, name + ((whole.state() if whole else None) or b"-"))
                if lease.moved >= SEGMENT_BYTES or lease.stopping:
                    raise Pause
        return whole.digest() if whole else None

    def _hash(
        self, storage: Storage, subject: Subject, key: str, number: int, lease: Lease, whole: SHA256 | None
    ) -> bytes:
        length, size = digests.part_size(subject.size), self._throttle.piece
        left, sha256 = digests.part_length(number, subject.size, length), hashlib.sha256()
        with closing(storage.open(key, (number - 1) * length, left)) as reader:
            while left > 0:
                self._throttle.take(min(left, size), self._never)
                lease.keep()
                if not (data := reader.read(min(left, size))):
                    break
                sha256.update(data)
                if whole is not None:
                    whole.update(data)
                left -= len(data)
                lease.moved += len(data)
        return sha256.digest()

    # -- healing

    def mend(self, subject: Subject, stored: Stored, lease: Lease, what: str) -> None:
        """Replaces a replica by a copy of another one. Without another, reports it lost or the blob corrupt.

        Args:
            what: what is wrong with the replica: "gone" or "damaged".

        Raises:
            Pause: the segment is over.
            Away: there are other replicas, but their storages are unreachable.
        """
        others = [other for other in subject.replicas if other != stored]
        sources = [
            Source(other.storage, self._stores.named(other.storage), other.object_key)
            for other in others
            if self._stores.answers(other.storage)
        ]
        if others and not sources:
            raise Away
        try:
            if not sources:
                raise SourceCorrupt("there is no other replica")
            self._heal(subject, stored, sources, lease)
        except (SourceCorrupt, ObjectNotFound) as ex:
            self._lose(subject, stored, what, str(ex))
        else:
            metrics.SCRUBBED.labels(stored.storage, "healed").inc()

    def _lose(self, subject: Subject, stored: Stored, what: str, why: str) -> None:
        """Records that no replica has the bytes. A gone object may come back; a damaged one makes the blob corrupt."""
        extra = {"blob": subject.blob_id.hex(), "storage": stored.storage, "key": stored.object_key, "error": why}
        metrics.SCRUBBED.labels(stored.storage, what).inc()
        if what == "gone":
            _log.error("a blob's object is gone, and there is no other", extra=extra)
            scrubs.set_lost(self._db, subject.blob_id, stored.storage, self._clock())
        elif self._db.transaction(lambda tx: scrubs.set_corrupt(tx, subject)):
            _log.error("a blob is corrupt, and there is no other replica", extra=extra)
        else:
            raise StorageUnavailable("the blob's replicas changed; trying again")

    def _heal(self, subject: Subject, stored: Stored, sources: list[Source], lease: Lease) -> None:
        """Copies another replica to a new object, which replaces the damaged one. Raises Pause.

        The lock is needed because the scrub and the report of an edge may heal the same blob at the same time.
        """
        with self._db.named_lock(f"heal {subject.blob_id.hex()}", 0) as held:
            if not held:
                raise Busy("another process heals this blob")
            self._heal_alone(subject, stored, sources, lease)

    def _heal_alone(self, subject: Subject, stored: Stored, sources: list[Source], lease: Lease) -> None:
        destination, upload_id = self._stores.named(stored.storage), new_id()
        fresh = Healing(object_key(self._prefix(), upload_id), upload_id, "", destination.enforces_sha256)
        begun = scrubs.healing(self._db, subject.blob_id, stored.storage, fresh, self._clock())
        ref = MultipartRef(
            begun.upload_id.hex(),
            begun.object_key,
            begun.multipart_id,
            subject.size,
            digests.part_size(subject.size),
            digests.part_count(subject.size),
            "",
            0,
            begun.binds_hash,
        )

        def write_stage(stage: int) -> None:
            nonlocal begun
            begun = replace(begun, complete_stage=stage)
            scrubs.set_complete_stage(self._db, subject.blob_id, stored.storage, begun, stage)

        try:
            if not begun.multipart_id:
                destination.abort(ref)  # an upload whose creator was killed before it saved the upload's id
                ref = replace(ref, multipart_id=destination.create(ref))
                begun = replace(begun, multipart_id=ref.multipart_id)
                scrubs.set_opened(self._db, subject.blob_id, stored.storage, begun)
            copying = Copying(self._pool, 1, self._throttle, ref, destination, subject.hashes, lease)
            self._copy(ref, destination, copying, sources)
            completed = complete(destination, ref, subject.hashes, lease, begun.complete_stage, write_stage)
            if not completed.verified:
                self._compare(ref, copying, lease)
        except (UploadGone, CopyCorrupt, CompleteDoubtful, SourceCorrupt, ObjectNotFound) as ex:
            destination.abort(ref)
            now = self._clock()
            late = now + LATE_COMPLETE if begun.complete_stage == 1 else None
            self._db.transaction(lambda tx: scrubs.give_up(tx, subject.blob_id, stored.storage, begun, now, late))
            if isinstance(ex, SourceCorrupt | ObjectNotFound):
                raise
            raise StorageUnavailable(f"the copy starts again: {ex}") from ex
        if self._db.transaction(lambda tx: scrubs.swap(tx, subject.blob_id, stored, begun, self._clock())):
            extra = {"blob": subject.blob_id.hex(), "storage": stored.storage, "key": begun.object_key}
            _log.warning("a replica was healed from another one", extra=extra)

    @staticmethod
    def _copy(ref: MultipartRef, destination: MultipartStorage, copying: Copying, sources: list[Source]) -> None:
        try:
            listed = destination.list_parts(ref)
        except UploadGone:
            return  # completed or lost; the complete call finds out which
        missing = [n for n in range(1, ref.part_count + 1) if listed.get(n) != copying.length(n)]
        if not copying.copy(missing, sources, lambda number: True):
            raise Pause

    @staticmethod
    def _compare(ref: MultipartRef, copying: Copying, lease: Lease) -> None:
        """Reads the new object back, from the position where the last segment stopped."""
        memo = ref.upload_id.encode()
        done = lease.place if lease.memo == memo else 0

        def right(number: int) -> bool:
            lease.save(number, memo)
            return True

        if not copying.read_back(range(done + 1, ref.part_count + 1), right):
            raise Pause


class _Damaged(StorageError):
    """Two reads of a part did not match its hash."""

    def __init__(self, number: int) -> None:
        super().__init__(f"part {number}")
        self.number = number
