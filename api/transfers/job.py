"""The job of one transfer item: copies a blob, verifies the copy, adds the replica, and may delete the source.

The object's key is committed before anything is stored under it. The item's row is deleted in the transaction that adds
the replica or marks the object for deletion. So every object has a row at any time. If the process is killed, the next
run finds the finished parts in the destination's list, and the finished replica in its row. The stage is saved before a
complete is sent. If its result is doubtful (`CompleteDoubtful`), the copy starts again under a new key.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Final

from api.blobs import rows as blobs
from api.blobs import scrub_rows as scrubs
from api.blobs.copying import CopyCorrupt, Copying, Source, SourceCorrupt, complete
from api.blobs.throttle import Throttle
from api.context import Context
from api.core import digests
from api.core.errors import CompleteDoubtful, StorageError, StorageUnavailable, UploadGone
from api.core.models import Clock, TransferItem, new_id
from api.db.pool import Database, Statements
from api.jobs.base import GiveUp, Lease, Outcome
from api.storage.base import MultipartRef, MultipartStorage
from api.storage.keys import object_key
from api.storage.stores import LATE_COMPLETE
from api.storage.wholeness import is_whole
from api.transfers import item_rows as transfer_items
from api.transfers import rows as transfers
from api.transfers.rows import Change

PROGRESS_INTERVAL_SECONDS: Final = 2.0
UNVERIFIED_PAUSE: Final = timedelta(seconds=60)
AWAY_PAUSE_SECONDS: Final = 15.0
"""Pause after which an item is tried again if its storages are unreachable. No failure is counted."""

_log = logging.getLogger(__name__)


class _Ended(Exception):
    """Another process ended the item."""


class TransferJob:
    """See the module's docstring."""

    kind = "transfer"

    def __init__(self, context: Context) -> None:
        self._db = context.db
        self._stores = context.stores
        self._clock = context.clock
        self._prefix = context.prefix
        self._parallel = context.config.transfer_parallel
        self._throttle = Throttle(context.config.transfer_rate)
        # for this time edges may still start to read the source, and then finish their downloads
        drain = context.config.target_ttl + context.config.link_grace + context.config.transfer_drain
        self._drain = timedelta(seconds=drain)
        self._pool = ThreadPoolExecutor(self._parallel, thread_name_prefix="transfer")

    def run(self, subject: bytes, lease: Lease) -> Outcome:
        """See `api.jobs.base.Job`."""
        item = transfer_items.work(self._db, subject)
        if item is None:
            return Outcome.DONE
        try:
            if item.transfer_state == "cancelled":
                return self._drop(item, lease, Change())
            if item.transfer_state == "paused":
                return self._put_back(item, lease, timedelta(0))
            if item.state == "failed":
                self._revive(item)
            if item.blob_state == "unverified":
                return self._put_back(item, lease, UNVERIFIED_PAUSE)
            if item.blob_state != "verified":
                return self._drop(item, lease, Change(skipped_items=1, skipped_bytes=item.size))
            if item.phase == "delete":
                return self._delete_source(item, lease)
            return self._copy(item, lease)
        except _Ended:
            return Outcome.DONE

    # -- ends of an item

    def _put_back(self, item: TransferItem, lease: Lease, pause: timedelta) -> Outcome:
        """Sets the item to waiting. The planner queues it again when it is due and its transfer is running."""

        def body(tx: Statements) -> None:
            transfer_items.postpone(tx, item.id, max(item.due_at, self._clock() + pause))
            lease.end(tx)

        self._db.transaction(body)
        return Outcome.DONE

    def _revive(self, item: TransferItem) -> None:
        """Sets a failed item to queued: an operator retried the job instead of the transfer."""

        def body(tx: Statements) -> None:
            if transfer_items.revive_these(tx, [item.id], self._clock()) == 1:
                transfer_items.set_queued(tx, [item.id])
                change = Change(failed_items=-1, failed_bytes=-item.size)
                transfers.count(tx, item.transfer_id, change, self._clock())
            transfers.set_state(tx, item.transfer_id, "running", ("done",), self._clock())

        self._db.transaction(body)

    def _drop(self, item: TransferItem, lease: Lease, change: Change) -> Outcome:
        """Ends an item without a copy and deletes its data at the destination."""
        if item.begun and item.phase == "copy":
            self._stores.named(item.storage).abort(self._ref(item))

        def body(tx: Statements) -> None:
            copied = self._lock(tx, item)
            self._forget(tx, item)
            transfer_items.delete(tx, item.id)
            transfers.count(tx, item.transfer_id, replace(change, live_bytes=-copied), self._clock())
            lease.end(tx)

        self._db.transaction(body)
        return Outcome.DONE

    def _lock(self, tx: Statements, item: TransferItem) -> int:
        """Locks the item and returns its number of copied bytes. Raises _Ended."""
        copied = transfer_items.lock(tx, item.id)
        if copied is None:
            raise _Ended
        return copied

    def _forget(self, tx: Statements, item: TransferItem) -> None:
        """Marks the item's object for deletion; after a day if a complete request may still take effect."""
        if item.begun and item.phase == "copy":
            now = self._clock()
            blobs.doom(
                tx, item.storage, item.object_key, now, now + LATE_COMPLETE if item.complete_stage == 1 else None
            )

    def _fail(self, item: TransferItem, reason: str, message: str) -> GiveUp:
        """Sets the item to failed: it is not retried automatically. Returns the exception to raise."""

        def body(tx: Statements) -> None:
            copied = self._lock(tx, item)
            if transfer_items.fail(tx, item.id, reason, message):
                change = Change(failed_items=1, failed_bytes=item.size, live_bytes=-copied)
                transfers.count(tx, item.transfer_id, change, self._clock())

        self._db.transaction(body)
        return GiveUp(reason, message)

    # -- the copy

    def _ref(self, item: TransferItem) -> MultipartRef:
        return MultipartRef(
            upload_id=item.upload_id.hex(),
            object_key=item.object_key,
            multipart_id=item.multipart_id,
            size=item.size,
            part_size=digests.part_size(item.size),
            part_count=digests.part_count(item.size),
            user_id="",
            generation=0,
            binds_hash=item.binds_hash,
        )

    def _copy(self, item: TransferItem, lease: Lease) -> Outcome:
        replicas = blobs.replicas(self._db, item.blob_id)
        if item.storage in dict(replicas):
            return self._made(item, lease, None, sha256=None)
        if not self._stores.answers(item.storage) or not any(self._stores.answers(name) for name, _ in replicas):
            return Outcome.later(AWAY_PAUSE_SECONDS)
        sources = [
            Source(name, self._stores.named(name), key)
            for name, key in sorted(replicas, key=lambda replica: replica[0] != item.source)
            if self._stores.answers(name)
        ]
        try:
            return self._segment(item, sources, lease)
        except SourceCorrupt as ex:
            item = self._again(item)
            self._stores.named(item.storage).abort(self._ref(item))
            raise self._fail(item, "SOURCE_CORRUPT", str(ex)) from ex
        except (UploadGone, CopyCorrupt, CompleteDoubtful) as ex:
            self._restart(self._again(item))
            # counts as a failure, so that the retries end if the destination never works
            raise StorageUnavailable(f"the copy starts again: {ex}") from ex

    def _again(self, item: TransferItem) -> TransferItem:
        """Reads the item again. Raises _Ended."""
        found = transfer_items.work(self._db, item.id)
        if found is None:
            raise _Ended
        return found

    def _segment(self, item: TransferItem, sources: list[Source], lease: Lease) -> Outcome:
        assert item.hashes is not None
        destination, hashes, began = self._stores.named(item.storage), item.hashes, time.monotonic()
        item, fresh = self._open(item, destination)
        ref = self._ref(item)
        copying = Copying(self._pool, self._parallel, self._throttle, ref, destination, hashes, lease)
        try:
            listed = {} if fresh else destination.list_parts(ref)
        except UploadGone:
            pass  # completed or lost; the complete call finds out which
        else:
            missing = [n for n in range(1, ref.part_count + 1) if listed.get(n) != copying.length(n)]
            parts = ref.part_count - len(missing)
            progress = _Progress(self._db, self._clock, item, item.size - sum(map(copying.length, missing)), parts)

            def sent(number: int) -> bool:
                return progress.add(copying.length(number), lease)

            if not copying.copy(missing, sources, sent):
                progress.write(lease)
                return Outcome.MORE
        completed = complete(
            destination,
            ref,
            hashes,
            lease,
            item.complete_stage,
            lambda stage: transfer_items.set_complete_stage(self._db, item, stage),
        )
        copied = time.monotonic()
        whole = completed.verified or self._read_back(item, copying, lease)
        extra = {"blob": item.blob_id.hex(), "to": item.storage, "bytes": item.size, "verified": whole}
        spent = {"copy_seconds": round(copied - began, 3), "seconds": round(time.monotonic() - began, 3)}
        _log.info("copied", extra=extra | spent)
        if not whole:
            return Outcome.MORE
        sha256 = hashes if ref.part_count == 1 else completed.sha256
        return self._made(item, lease, item.object_key, sha256=sha256)

    def _open(self, item: TransferItem, destination: MultipartStorage) -> tuple[TransferItem, bool]:
        """Opens the multipart upload. Also returns whether it is new, so that it has no parts yet."""
        fresh = False
        if not item.begun:
            ref = self._ref(item)
            destination.check_room(item.size, ref.part_count)
            item = replace(item, begun=True, binds_hash=destination.enforces_sha256)
            fresh = transfer_items.begin(self._db, item.id, binds_hash=item.binds_hash)
            if not fresh:
                raise _Ended
        elif not item.multipart_id:
            # an upload whose creator was killed before it saved the upload's id
            destination.abort(self._ref(item))
        if not item.multipart_id:
            item = replace(item, multipart_id=destination.create(self._ref(item)))
            if not transfer_items.set_opened(self._db, item, item.multipart_id):
                raise _Ended
            fresh = True
        return item, fresh

    def _read_back(self, item: TransferItem, copying: Copying, lease: Lease) -> bool:
        """Compares the new object, from the saved position on. Returns False if the segment ended before."""
        count = digests.part_count(item.size)
        # a saved position is valid only for the object that it was saved for
        first = lease.place if lease.memo == item.upload_id else 0
        place, right = first, set[int]()

        def read(number: int) -> bool:
            nonlocal place
            right.add(number)
            while place + 1 in right:
                place += 1
            lease.keep()
            return True

        try:
            return copying.read_back(range(first + 1, count + 1), read)
        finally:
            if first < place < count:
                lease.save(place, item.upload_id)

    def _restart(self, item: TransferItem) -> None:
        """Starts the copy again under a new key. A used key is never used again."""
        upload_id = new_id()

        def body(tx: Statements) -> None:
            copied = self._lock(tx, item)
            if not transfer_items.restart(tx, item, object_key(self._prefix(), upload_id), upload_id):
                raise _Ended
            self._forget(tx, item)
            transfers.count(tx, item.transfer_id, Change(live_bytes=-copied), self._clock())

        self._stores.named(item.storage).abort(self._ref(item))
        self._db.transaction(body)

    def _made(self, item: TransferItem, lease: Lease, own_key: str | None, sha256: bytes | None) -> Outcome:
        """Ends the copy phase: the destination has the blob, by this copy or by another replica."""
        now = self._clock()
        if own_key is None and item.begun:
            self._stores.named(item.storage).abort(self._ref(item))

        def body(tx: Statements) -> bool:
            copied = self._lock(tx, item)
            if not transfer_items.lock_usable(tx, item.blob_id):
                return False
            if own_key is None or not blobs.add_replica(tx, item.blob_id, item.storage, own_key, now):
                self._forget(tx, item)
            moved = item.size - copied if own_key else 0
            if item.delete_source:
                transfer_items.to_delete(tx, item.id, now + timedelta(seconds=item.keep_for))
                change = Change(live_bytes=item.size - copied, moved_bytes=moved)
            else:
                transfer_items.delete(tx, item.id)
                change = Change(done_items=1, done_bytes=item.size, live_bytes=-copied, moved_bytes=moved)
            transfers.count(tx, item.transfer_id, change, now)
            lease.end(tx)
            return True

        if not self._db.transaction(body):
            return self._drop(item, lease, Change(skipped_items=1, skipped_bytes=item.size))
        if sha256 is not None:
            scrubs.set_sha256(self._db, item.blob_id, sha256)
        return Outcome.DONE

    # -- the source

    def _delete_source(self, item: TransferItem, lease: Lease) -> Outcome:
        if item.due_at > self._clock():
            return self._put_back(item, lease, timedelta(0))
        if not self._stores.answers(item.storage):
            return Outcome.later(AWAY_PAUSE_SECONDS)
        replicas = dict(blobs.replicas(self._db, item.blob_id))
        copy, source = replicas.get(item.storage), replicas.get(item.source)
        if source is not None and (copy is None or not self._is_whole(item, copy)):
            raise self._fail(item, "COPY_MISSING", f"the copy on {item.storage} is not whole; the source stays")

        def body(tx: Statements) -> bool:
            now, copied = self._clock(), self._lock(tx, item)
            if not transfer_items.lock_alone(tx, item.blob_id):
                return False
            if source is not None:
                assert copy is not None
                # checked under the lock: a transfer in the opposite direction may have deleted the copy
                if transfer_items.replica_at(tx, item.blob_id, item.storage) != copy:
                    raise StorageError("the copy was replaced; trying again")
                if transfer_items.drop_replica(tx, item.blob_id, item.source, source):
                    blobs.doom(tx, item.source, source, now, now + self._drain)
            transfer_items.delete(tx, item.id)
            change = Change(done_items=1, done_bytes=item.size, live_bytes=-copied)
            transfers.count(tx, item.transfer_id, change, now)
            lease.end(tx)
            return True

        if not self._db.transaction(body):
            return self._drop(item, lease, Change(skipped_items=1, skipped_bytes=item.size))
        return Outcome.DONE

    def _is_whole(self, item: TransferItem, object_key: str) -> bool:
        return is_whole(self._stores.named(item.storage), object_key, item.size)


class _Progress:
    """An item's number of copied bytes, saved every few seconds."""

    def __init__(self, db: Database, clock: Clock, item: TransferItem, copied: int, parts: int) -> None:
        self._db = db
        self._clock = clock
        self._item = item
        self._copied = copied
        self._parts = parts
        self._written = item.copied
        self._at = time.monotonic()

    def add(self, count: int, lease: Lease) -> bool:
        """Adds copied bytes. Returns False if the transfer was paused or cancelled."""
        self._copied += count
        self._parts += 1
        return time.monotonic() - self._at < PROGRESS_INTERVAL_SECONDS or self.write(lease)

    def write(self, lease: Lease) -> bool:
        """Saves the progress. Returns False if the transfer was paused or cancelled."""
        more, item = self._copied - self._written, self._item

        def body(tx: Statements) -> str:
            transfer_items.set_copied(tx, item.id, self._copied)
            state = transfers.state(tx, item.transfer_id)
            transfers.count(tx, item.transfer_id, Change(live_bytes=more, moved_bytes=max(more, 0)), self._clock())
            return state

        self._at = time.monotonic()
        state = self._db.transaction(body)
        self._written = self._copied
        lease.save(self._parts)
        return state == "running"
