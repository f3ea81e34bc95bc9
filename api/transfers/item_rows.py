"""Rows of transfer items: one blob of a transfer each, its destination key, and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from api.core.models import TransferItem
from api.db.pool import Statements, placeholders
from api.db.records import record, records
from api.db.times import from_nullable, to_row

_INSERT = (
    "INSERT INTO transfer_item (id, transfer_id, blob_id, size, state, phase, storage, object_key, upload_id, due_at, "
    "created_at) VALUES "
)
_PLANNED = "SELECT blob_id FROM transfer_item WHERE transfer_id = %s AND blob_id IN "
_DUE = (
    "SELECT id FROM transfer_item WHERE transfer_id = %s AND state = %s AND due_at <= %s "
    "ORDER BY transfer_id, state, due_at, id LIMIT %s"
)
_SET_QUEUED = "UPDATE transfer_item SET state = 'queued' WHERE state = 'waiting' AND id IN "
_QUEUED = (
    "SELECT i.id, j.state AS job, COALESCE(j.reason, '') AS reason, COALESCE(j.message, '') AS message "
    "FROM transfer_item i LEFT JOIN job j ON j.subject = i.id "
    "AND j.kind = 'transfer' WHERE i.transfer_id = %s AND i.state = 'queued'"
)
_NEXT_DUE = (
    "SELECT due_at FROM transfer_item WHERE transfer_id = %s AND state = 'waiting' "
    "ORDER BY transfer_id, state, due_at, id LIMIT 1"
)
_WORK = (
    "SELECT i.id, i.transfer_id, i.blob_id, i.size, i.state, i.phase, i.storage, i.object_key, i.upload_id, "
    "i.multipart_id, i.begun, i.binds_hash, i.copied, i.due_at, t.source, t.delete_source, t.keep_for, "
    "t.state AS transfer_state, b.state AS blob_state, p.hashes, i.complete_stage "
    "FROM transfer_item i JOIN transfer t ON t.id = i.transfer_id "
    "LEFT JOIN `blob` b ON b.id = i.blob_id LEFT JOIN blob_parts p ON p.blob_id = i.blob_id WHERE i.id = %s"
)
_LOCK = "SELECT copied FROM transfer_item WHERE id = %s FOR UPDATE"
_BEGIN = "UPDATE transfer_item SET begun = 1, binds_hash = %s WHERE id = %s AND begun = 0"
_SET_OPENED = "UPDATE transfer_item SET multipart_id = %s WHERE id = %s AND object_key = %s"
_SET_STAGE = "UPDATE transfer_item SET complete_stage = %s WHERE id = %s AND object_key = %s"
_RESTART = (
    "UPDATE transfer_item SET object_key = %s, upload_id = %s, multipart_id = '', begun = 0, binds_hash = 0, "
    "complete_stage = 0, copied = 0 WHERE id = %s AND object_key = %s"
)
_SET_COPIED = "UPDATE transfer_item SET copied = %s WHERE id = %s"
_POSTPONE = "UPDATE transfer_item SET state = 'waiting', due_at = %s WHERE id = %s"
_TO_DELETE = "UPDATE transfer_item SET state = 'waiting', phase = 'delete', copied = size, due_at = %s WHERE id = %s"
_FAIL = (
    "UPDATE transfer_item SET state = 'failed', reason = %s, message = %s, copied = 0 "
    "WHERE id = %s AND state <> 'failed'"
)
_FAILED = (
    "SELECT id, size FROM transfer_item WHERE transfer_id = %s AND state = 'failed' "
    "ORDER BY transfer_id, state, due_at, id LIMIT %s FOR UPDATE"
)
_REVIVE = (
    "UPDATE transfer_item SET state = 'waiting', due_at = %s, reason = NULL, message = NULL "
    "WHERE state = 'failed' AND id IN "
)
_FAILURES = (
    "SELECT i.blob_id, i.size, COALESCE(i.reason, '') AS reason, COALESCE(i.message, '') AS message, i.phase "
    "FROM transfer_item i WHERE i.transfer_id = %s "
    "AND i.state = 'failed' ORDER BY i.transfer_id, i.state, i.due_at, i.id LIMIT %s"
)
_REASONS = (
    "SELECT reason, COUNT(*) AS items FROM transfer_item WHERE transfer_id = %s AND state = 'failed' GROUP BY reason"
)
_DELETE = "DELETE FROM transfer_item WHERE id = %s"
_UNBEGUN = (
    "SELECT id FROM transfer_item WHERE transfer_id = %s AND state IN ('waiting', 'failed') "
    "AND (begun = 0 OR phase = 'delete') LIMIT %s FOR UPDATE"
)
_DELETE_MANY = "DELETE FROM transfer_item WHERE id IN "
_ANY_LEFT = "SELECT id FROM transfer_item WHERE transfer_id = %s AND state IN ('waiting', 'failed') LIMIT %s"
_ANY_QUEUED = "SELECT 1 FROM transfer_item WHERE transfer_id = %s AND state = 'queued' LIMIT 1"
_QUEUE_ANY = "UPDATE transfer_item SET state = 'queued' WHERE id IN "
_OURS = "SELECT object_key FROM transfer_item WHERE storage = %s AND object_key IN "
_OUR_UPLOADS = "SELECT upload_id FROM transfer_item WHERE upload_id IN "
_LOCK_BLOB_SHARED = "SELECT state FROM `blob` WHERE id = %s LOCK IN SHARE MODE"
_LOCK_BLOB = "SELECT state FROM `blob` WHERE id = %s FOR UPDATE"
_REPLICA_AT = "SELECT object_key FROM replica WHERE blob_id = %s AND storage = %s FOR UPDATE"
_DROP_REPLICA = "DELETE FROM replica WHERE blob_id = %s AND storage = %s AND object_key = %s"


@dataclass(frozen=True, slots=True)
class New:
    """An item to insert; its object key ends with ``upload_id``."""

    id: bytes
    blob_id: bytes
    size: int
    object_key: str
    upload_id: bytes


@dataclass(frozen=True, slots=True)
class Queued:
    """An item that has a job; ``job`` is the job's state, None if the job is lost."""

    id: bytes
    job: str | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a blob was not copied, or its source was not deleted; ``phase`` says which."""

    blob_id: bytes
    size: int
    reason: str
    message: str
    phase: str


def insert(
    db: Statements, transfer_id: bytes, storage: str, items: Sequence[New], due_at: datetime, now: datetime
) -> None:
    """Inserts waiting items."""
    args: list[object] = []
    for item in items:
        args += (item.id, transfer_id, item.blob_id, item.size, storage, item.object_key, item.upload_id)
        args += (to_row(due_at), to_row(now))
    row = "(%s, %s, %s, %s, 'waiting', 'copy', %s, %s, %s, %s, %s)"
    db.execute(_INSERT + placeholders(len(items), row), args)


def planned(db: Statements, transfer_id: bytes, blob_ids: Sequence[bytes]) -> set[bytes]:
    """The blobs that already have an item in this transfer."""
    return set(db.column(f"{_PLANNED}({placeholders(len(blob_ids))})", (transfer_id, *blob_ids)))


def due(db: Statements, transfer_id: bytes, now: datetime, limit: int) -> list[bytes]:
    """Waiting items that are due."""
    return db.column(_DUE, (transfer_id, "waiting", to_row(now), limit))


def next_due(db: Statements, transfer_id: bytes) -> datetime | None:
    """When the next waiting item is due; None if none is waiting."""
    return from_nullable(db.value(_NEXT_DUE, (transfer_id,)))


def set_queued(db: Statements, item_ids: Sequence[bytes]) -> None:
    """waiting → queued; the caller inserts the jobs in the same transaction."""
    db.execute(f"{_SET_QUEUED}({placeholders(len(item_ids))})", item_ids)


def queued(db: Statements, transfer_id: bytes) -> list[Queued]:
    """Items that have a job."""
    return records(Queued, db.all(_QUEUED, (transfer_id,)))


def any_queued(db: Statements, transfer_id: bytes) -> bool:
    """Whether any item has a job."""
    return db.one(_ANY_QUEUED, (transfer_id,)) is not None


def work(db: Statements, item_id: bytes) -> TransferItem | None:
    """An item with the data of its transfer and its blob; None if it has ended."""
    row = db.one(_WORK, (item_id,))
    return record(TransferItem, row) if row else None


def lock(db: Statements, item_id: bytes) -> int | None:
    """Locks an item. Returns its number of copied bytes, or None if it has ended."""
    copied: int | None = db.value(_LOCK, (item_id,))
    return copied


def begin(db: Statements, item_id: bytes, *, binds_hash: bool) -> bool:
    """Records that the copy has begun. Returns False if it had begun before."""
    return db.execute(_BEGIN, (binds_hash, item_id)) == 1


def set_opened(db: Statements, item: TransferItem, multipart_id: str) -> bool:
    """Saves the id of the destination's multipart upload. Returns False if the item changed."""
    return db.execute(_SET_OPENED, (multipart_id, item.id, item.object_key)) == 1


def set_complete_stage(db: Statements, item: TransferItem, stage: int) -> None:
    """Saves the stage of the complete; see `api.blobs.copying.complete`."""
    db.execute(_SET_STAGE, (stage, item.id, item.object_key))


def restart(db: Statements, item: TransferItem, object_key: str, upload_id: bytes) -> bool:
    """Starts the copy again with a new key. The caller marks the old object for deletion."""
    return db.execute(_RESTART, (object_key, upload_id, item.id, item.object_key)) == 1


def set_copied(db: Statements, item_id: bytes, copied: int) -> None:
    """Saves the number of bytes at the destination."""
    db.execute(_SET_COPIED, (copied, item_id))


def postpone(db: Statements, item_id: bytes, due_at: datetime) -> None:
    """Sets the item to waiting."""
    db.execute(_POSTPONE, (to_row(due_at), item_id))


def to_delete(db: Statements, item_id: bytes, due_at: datetime) -> None:
    """The copy is whole: schedules the deletion of the source's replica."""
    db.execute(_TO_DELETE, (to_row(due_at), item_id))


def fail(db: Statements, item_id: bytes, reason: str, message: str) -> bool:
    """Sets the item to failed, until an operator retries it. Returns False if it had failed before."""
    return db.execute(_FAIL, (reason[:64], message[:255], item_id)) == 1


def revive(db: Statements, transfer_id: bytes, now: datetime, limit: int) -> tuple[int, int]:
    """Sets up to ``limit`` failed items to waiting. Returns (items, bytes)."""
    rows = db.all(_FAILED, (transfer_id, limit))
    if rows:
        revive_these(db, [row.id for row in rows], now)
    return len(rows), sum(row.size for row in rows)


def revive_these(db: Statements, item_ids: Sequence[bytes], now: datetime) -> int:
    """Sets these items to waiting if they have failed. Returns their number."""
    return db.execute(f"{_REVIVE}({placeholders(len(item_ids))})", (to_row(now), *item_ids))


def failures(db: Statements, transfer_id: bytes, limit: int) -> list[Failure]:
    """Failed items with their reasons."""
    return records(Failure, db.all(_FAILURES, (transfer_id, limit)))


def reasons(db: Statements, transfer_id: bytes) -> dict[str, int]:
    """Number of failed items by reason."""
    return {str(row.reason): row.items for row in db.all(_REASONS, (transfer_id,))}


def delete(db: Statements, item_id: bytes) -> None:
    """Deletes an item that has ended.

    In the same transaction the caller makes the object a replica or marks it for deletion, unless it never existed.
    """
    db.execute(_DELETE, (item_id,))


def unbegun(db: Statements, transfer_id: bytes, limit: int) -> list[bytes]:
    """Locks items of a cancelled transfer that have no unfinished copy at the destination."""
    return db.column(_UNBEGUN, (transfer_id, limit))


def delete_many(db: Statements, item_ids: Sequence[bytes]) -> None:
    """Deletes many items; see `delete`."""
    db.execute(f"{_DELETE_MANY}({placeholders(len(item_ids))})", item_ids)


def queue_left(db: Statements, transfer_id: bytes, limit: int) -> list[bytes]:
    """Queues waiting and failed items of a cancelled transfer, so that jobs clean up after them."""
    ids = db.column(_ANY_LEFT, (transfer_id, limit))
    if ids:
        db.execute(f"{_QUEUE_ANY}({placeholders(len(ids))})", ids)
    return ids


# -- for the sweep


def ours(db: Statements, storage: str, object_keys: Sequence[str]) -> set[str]:
    """The keys, of at most 1,000, that belong to an item: their objects and uploads are no orphans."""
    if not object_keys:
        return set()
    return set(db.column(f"{_OURS}({placeholders(len(object_keys))})", (storage, *object_keys)))


def our_uploads(db: Statements, upload_ids: Sequence[bytes]) -> set[bytes]:
    """The ids, of at most 1,000 from `MultipartStorage.list_uploads`, that belong to an item."""
    if not upload_ids:
        return set()
    return set(db.column(f"{_OUR_UPLOADS}({placeholders(len(upload_ids))})", upload_ids))


# -- the item's blob


def lock_usable(db: Statements, blob_id: bytes) -> bool:
    """Locks a blob against deletion. Returns False if it is not verified."""
    return bool(db.value(_LOCK_BLOB_SHARED, (blob_id,)) == "verified")


def lock_alone(db: Statements, blob_id: bytes) -> bool:
    """Locks a blob exclusively, as needed to delete a replica. Returns False if it is not verified."""
    return bool(db.value(_LOCK_BLOB, (blob_id,)) == "verified")


def replica_at(db: Statements, blob_id: bytes, storage: str) -> str | None:
    """Locks the blob's replica on a storage and returns its key; None if there is none."""
    object_key: str | None = db.value(_REPLICA_AT, (blob_id, storage))
    return object_key


def drop_replica(db: Statements, blob_id: bytes, storage: str, object_key: str) -> bool:
    """Deletes a replica's row. The caller marks the object for deletion."""
    return db.execute(_DROP_REPLICA, (blob_id, storage, object_key)) == 1
