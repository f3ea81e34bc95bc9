"""Finalizes uploads: makes a file from the parts of an upload in state ``finalizing``, in the API or in a worker.

One process at a time works on an upload. It holds a lease on the row, extends it while it works, and loses it if it
dies. The next process that takes the lease repeats all steps, and every step continues from what an earlier try left.
Large uploads are jobs from the start. If a process died while it completed an upload without a job, `Finalizer.rescue`
creates the job.

Every complete is counted in the row before it is sent. If one is in doubt (its answer was lost, its process died, or
the storage's answers contradict each other), the object key must not be used any more: a new key is written into the
row, a job has the storage copy the object there (`MultipartStorage.copy_completed`), and the new key becomes the
blob's. The old key is marked for deletion, and deleted a day later: until then a storage daemon that hung may resume
and write it again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from api.blobs import merge
from api.blobs import rows as blobs
from api.blobs.merge import First
from api.context import Context
from api.core.errors import CompleteDoubtful, PartMismatch, StorageError, StorageFull, StorageUnavailable, UploadGone
from api.core.models import Blob, File, Upload, new_id
from api.db.pool import Statements
from api.files import rows as files
from api.jobs import rows as jobs
from api.jobs.base import Busy, Lease, LeaseLost, Outcome
from api.storage.base import Completed
from api.storage.stores import LATE_COMPLETE, multipart_ref
from api.uploads import ranges
from api.uploads import rows as uploads
from api.uploads.proof import Instant

LEASE: Final = timedelta(seconds=15)
_URLS_DEAD: Final = timedelta(hours=2)
"""Until then a URL of an upload of one PUT may bring a deleted object back: it lives an hour at most."""
_EXTEND_EVERY: Final = 5.0
MOST_COMPLETES: Final = 5
"""Completes that read bytes, an upload: sending wrong parts for ever costs reading for ever."""

_log = logging.getLogger(__name__)


class _Claimed(Exception):
    """Another blob has this digest already."""


class Stopped(Exception):
    """The worker has to stop. The next try continues from what is stored."""


class Finalizer:
    """See the module's docstring; the job of kind ``finalize``, whose subject is an upload."""

    kind = "finalize"

    def __init__(self, context: Context, instant: Instant) -> None:
        self._db = context.db
        self._queue = context.queue
        self._stores = context.stores
        self._instant = instant
        self._clock = context.clock

    def rescue(self) -> int:
        """Creates jobs for finalizing uploads without a valid lease and without a job: their process died."""
        found = uploads.stuck(self._db, self._clock())
        jobs.insert_many(self._db, self.kind, found, self._clock())
        return len(found)

    def run(self, subject: bytes, lease: Lease) -> Outcome:
        owner, now = new_id(), self._clock()
        if not uploads.take_lease(self._db, subject, owner, now, now + LEASE):
            if uploads.is_finalizing(self._db, subject):
                raise Busy("a complete is still at it")
            return Outcome.DONE
        found = uploads.leased(self._db, subject, owner)
        if found is None:
            return Outcome.DONE
        try:
            self.finish(found[0], found[1], owner, lease)
        except (PartMismatch, StorageFull) as ex:
            _log.info("an upload is open again", extra={"upload": subject.hex(), "error": str(ex)})
        except StorageError:
            uploads.release_lease(self._db, subject, owner)
            raise
        except Stopped:
            uploads.release_lease(self._db, subject, owner)
            return Outcome.MORE
        return Outcome.DONE

    def finish(
        self, upload: Upload, hashes: bytes, owner: bytes, lease: Lease | None = None, *, believed: bool = False
    ) -> File | None:
        """Finalizes an upload whose lease the caller holds as ``owner``; a job holds ``lease`` besides.

        Args:
            believed: the API has not asked which parts are stored, so a missing part does not count as a try.

        Returns:
            The file; None if the upload did not get done here. Its row then says why.

        Raises:
            StorageError: the storage could not be used; the upload stays ``finalizing`` and is tried again.
            PartMismatch, StorageFull: the upload is open again, and takes parts and another complete.
            DatabaseUnavailable: the same holds.
            Stopped: the job's worker was told to stop.
        """
        try:
            made = self._complete(upload, hashes, owner, lease)
            return self._finish(made[0], hashes, owner, made[1]) if made else None
        except PartMismatch as ex:
            if believed:
                uploads.take_back(self._db, upload.id, owner, _without(upload, ex.parts), self._clock())
            else:
                self._reopen(upload, owner, "PART_MISMATCH", ex.parts, lease)
            raise
        except StorageFull:
            self._reopen(upload, owner, "STORAGE_FULL", (), lease)
            raise
        except UploadGone:
            self._fail(upload, owner, "UPLOAD_GONE")
            _log.error("an upload's parts are gone", extra={"upload": upload.id.hex()})
        except LeaseLost:
            _log.warning("another process finalizes this upload", extra={"upload": upload.id.hex()})
        return None

    def _complete(
        self, upload: Upload, hashes: bytes, owner: bytes, lease: Lease | None
    ) -> tuple[Upload, Completed] | None:
        """The upload as its row is now, and its object; None if a job has to copy the object to another key."""
        storage, keep_alive = self._stores.named(upload.storage), self._keep_alive(upload, owner, lease)
        ref = replace(multipart_ref(upload), completes_sent=max(upload.completes_sent - 1, 0))
        if upload.copy_key is None:
            try:
                return upload, storage.complete(ref, hashes, keep_alive)
            except CompleteDoubtful as ex:
                _log.warning("a complete is in doubt", extra={"upload": upload.id.hex(), "error": str(ex)})
                upload = self._under_new_key(upload, owner, lease)
        elif lease is None:
            self._leave_to_job(upload, owner, upload.copy_key)
        if lease is None:
            return None  # a client waits for this call, and the storage may have to be waited for
        assert upload.copy_key is not None
        try:
            completed = storage.copy_completed(ref, upload.copy_key, keep_alive)
        except CompleteDoubtful as ex:
            self._under_new_key(upload, owner, lease)
            raise StorageUnavailable(f"the copy is in doubt, too: {ex}") from ex
        _log.info("an object was brought under another key", extra={"upload": upload.id.hex()})
        return upload, completed

    def _under_new_key(self, upload: Upload, owner: bytes, lease: Lease | None) -> Upload:
        """Writes down a new key, before anything is stored under it."""
        name = new_id()
        key = f"{upload.object_key.rsplit('/', 2)[0]}/{name[-1:].hex()}/{name.hex()}"
        if lease is None:
            self._leave_to_job(upload, owner, key)
        else:
            self._db.transaction(lambda tx: self._begin_copy(tx, upload, owner, key, self._clock() + LEASE))
        return replace(upload, copy_key=key)

    def _leave_to_job(self, upload: Upload, owner: bytes, key: str) -> None:
        def body(tx: Statements) -> None:
            self._begin_copy(tx, upload, owner, key, None)
            jobs.insert(tx, self.kind, upload.id, self._clock())

        self._db.transaction(body)
        self._queue.enqueue(self.kind, [upload.id])

    def _begin_copy(self, tx: Statements, upload: Upload, owner: bytes, key: str, until: datetime | None) -> None:
        if not uploads.begin_copy(tx, upload.id, owner, key, until):
            raise LeaseLost
        if upload.copy_key not in (None, key):
            self._doom_late(tx, upload.storage, upload.copy_key)

    def _doom_late(self, tx: Statements, storage: str, object_key: str | None) -> None:
        """Marks an object key in doubt for deletion, at a time when no complete can write it any more."""
        if object_key is not None:
            now = self._clock()
            blobs.doom(tx, storage, object_key, now, now + LATE_COMPLETE)

    def _fail(self, upload: Upload, owner: bytes, failure: str) -> bool:
        """Ends the upload. If a complete was in doubt, marks the objects under both keys for deletion."""

        def body(tx: Statements) -> bool:
            if not uploads.fail_finalizing(tx, upload.id, owner, failure, self._clock()):
                return False
            if copy_key := uploads.copy_key(tx, upload.id):
                self._doom_late(tx, upload.storage, upload.object_key)
                self._doom_late(tx, upload.storage, copy_key)
            return True

        return self._db.transaction(body)

    def _keep_alive(self, upload: Upload, owner: bytes, lease: Lease | None) -> Callable[[], None]:
        last = time.monotonic()

        def extend() -> None:
            nonlocal last
            if lease is not None:
                if lease.leaving:
                    raise Stopped
                lease.keep()
            if time.monotonic() - last < _EXTEND_EVERY:
                return
            last = time.monotonic()
            if not uploads.extend_lease(self._db, upload.id, owner, self._clock() + LEASE):
                raise LeaseLost

        return extend

    def _reopen(self, upload: Upload, owner: bytes, failure: str, wrong: tuple[int, ...], lease: Lease | None) -> None:
        """The upload takes parts again, unless it had its share of tries."""
        now = self._clock()
        if failure == "PART_MISMATCH" and upload.completes >= MOST_COMPLETES:
            if self._fail(upload, owner, failure):
                self._stores.named(upload.storage).abort(multipart_ref(upload))
            return

        def body(tx: Statements) -> None:
            uploads.reopen(tx, upload.id, owner, _without(upload, wrong), failure, now)
            if lease is not None:
                lease.end(tx)  # the next complete may come immediately, and makes a new row

        self._db.transaction(body)

    # -- rows

    def _finish(self, upload: Upload, hashes: bytes, owner: bytes, completed: Completed) -> File:
        """Makes the blob, or merges with the one that was verified first, and the file."""
        assert upload.digest is not None
        scope = self._instant.scope(upload.user_id)
        blob = Blob(
            id=new_id(),
            size=upload.size,
            digest=upload.digest,
            state="verified",
            sha256=completed.sha256,
            storage=upload.storage,
            object_key=upload.blob_key,
        )

        def make_unverified(tx: Statements) -> File:
            unverified = replace(blob, state="unverified")
            blobs.insert_unverified(tx, unverified, scope, hashes, self._clock())
            jobs.insert(tx, "verify", blob.id, self._clock())
            file = self._link(tx, upload, owner, unverified)
            assert file is not None
            return file

        if not completed.verified:
            file = self._db.transaction(make_unverified)
            self._queue.enqueue("verify", [blob.id])
            return file

        def make(tx: Statements) -> File:
            if not blobs.insert_verified(tx, blob, scope, hashes, self._clock()):
                raise _Claimed
            if completed.hash_later:
                jobs.insert(tx, "verify", blob.id, self._clock())
            file = self._link(tx, upload, owner, blob)
            assert file is not None
            return file

        # A blob that holds the claim may be deleted before the merge links it: then the claim is free again.
        for _ in range(3):
            try:
                file = self._db.transaction(make)
            except _Claimed:
                first = merge.find(self._db, self._stores, upload.digest, upload.size, scope, upload.storage)
                if first is not None and (merged := self._merge(upload, owner, first)):
                    return merged
            else:
                if completed.hash_later:
                    self._queue.enqueue("verify", [blob.id])
                return file
        raise StorageError("a blob of this digest came and went")

    def _link(self, tx: Statements, upload: Upload, owner: bytes, blob: Blob) -> File | None:
        """Makes the file and ends the upload; None if the blob is not usable any more."""
        now = self._clock()
        file = File.of(upload, blob, new_id(), now)
        if not files.link_blob(tx, file, blob.state):
            return None
        if not uploads.set_done(tx, upload.id, owner, file.id, now):
            raise LeaseLost
        if upload.copy_key is not None:
            self._doom_late(tx, upload.storage, upload.object_key)
        return file

    def _merge(self, upload: Upload, owner: bytes, first: First) -> File | None:
        """Links the first blob, and marks one of the two objects for deletion."""

        def body(tx: Statements) -> File | None:
            new = upload.storage, upload.blob_key, self._clock()
            blob = merge.hold(tx, first, *new)
            file = self._link(tx, upload, owner, blob) if blob else None
            if file is not None:
                merge.settle(tx, first, *new, keep_until=self._clock() + _URLS_DEAD if upload.is_single else None)
            return file

        return self._db.transaction(body)


def _without(upload: Upload, wrong: Iterable[int]) -> bytes:
    """The parts that are not wrong, as bits."""
    return ranges.to_bits(set(range(1, upload.part_count + 1)).difference(wrong))
