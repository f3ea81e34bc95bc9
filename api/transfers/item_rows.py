"""Single blobs of transfers: what is to be copied, under which key, and how that went."""

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
_SET_SHA256 = "UPDATE `blob` SET sha256 = %s WHERE id = %s AND sha256 IS NULL"


@dataclass(frozen=True, slots=True)
class New:
    """An item to be; its key ends with ``upload_id``."""

    id: bytes
    blob_id: bytes
    size: int
    object_key: str
    upload_id: bytes


@dataclass(frozen=True, slots=True)
class Queued:
    """An item that a job is about; ``job`` is that one's state, None where it is not there."""

    id: bytes
    job: str | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a blob was not copied, or its source not deleted (``phase``)."""

    blob_id: bytes
    size: int
    reason: str
    message: str
    phase: str


def insert(
    db: Statements, transfer_id: bytes, storage: str, items: Sequence[New], due_at: datetime, now: datetime
) -> None:
    """Items that wait until they are due."""
    args: list[object] = []
    for item in items:
        args += (item.id, transfer_id, item.blob_id, item.size, storage, item.object_key, item.upload_id)
        args += (to_row(due_at), to_row(now))
    row = "(%s, %s, %s, %s, 'waiting', 'copy', %s, %s, %s, %s, %s)"
    db.execute(_INSERT + placeholders(len(items), row), args)


def planned(db: Statements, transfer_id: bytes, blob_ids: Sequence[bytes]) -> set[bytes]:
    """The blobs that a transfer has an item of already."""
    return set(db.column(f"{_PLANNED}({placeholders(len(blob_ids))})", (transfer_id, *blob_ids)))


def due(db: Statements, transfer_id: bytes, now: datetime, limit: int) -> list[bytes]:
    """Items that wait and are due."""
    return db.column(_DUE, (transfer_id, "waiting", to_row(now), limit))


def next_due(db: Statements, transfer_id: bytes) -> datetime | None:
    """When the first of the waiting items is due; None where none waits."""
    return from_nullable(db.value(_NEXT_DUE, (transfer_id,)))


def set_queued(db: Statements, item_ids: Sequence[bytes]) -> None:
    """waiting → queued; the caller makes the jobs in the same transaction."""
    db.execute(f"{_SET_QUEUED}({placeholders(len(item_ids))})", item_ids)


def queued(db: Statements, transfer_id: bytes) -> list[Queued]:
    """The items that jobs are about."""
    return records(Queued, db.all(_QUEUED, (transfer_id,)))


def any_queued(db: Statements, transfer_id: bytes) -> bool:
    """Whether a job is about any of them."""
    return db.one(_ANY_QUEUED, (transfer_id,)) is not None


def work(db: Statements, item_id: bytes) -> TransferItem | None:
    """An item with what is to be known of its transfer and its blob."""
    row = db.one(_WORK, (item_id,))
    return record(TransferItem, row) if row else None


def lock(db: Statements, item_id: bytes) -> int | None:
    """Keeps others from ending an item; answers the bytes that its row says are copied, None where it has ended."""
    copied: int | None = db.value(_LOCK, (item_id,))
    return copied


def begin(db: Statements, item_id: bytes, *, binds_hash: bool) -> bool:
    """Something may be at the destination from now on; False where that was so before."""
    return db.execute(_BEGIN, (binds_hash, item_id)) == 1


def set_opened(db: Statements, item: TransferItem, multipart_id: str) -> bool:
    """The destination takes parts."""
    return db.execute(_SET_OPENED, (multipart_id, item.id, item.object_key)) == 1


def set_complete_stage(db: Statements, item: TransferItem, stage: int) -> None:
    """How far the complete of the copy is; see `api.blobs.copying.complete`."""
    db.execute(_SET_STAGE, (stage, item.id, item.object_key))


def restart(db: Statements, item: TransferItem, object_key: str, upload_id: bytes) -> bool:
    """From the beginning, under another key; the caller dooms the first."""
    return db.execute(_RESTART, (object_key, upload_id, item.id, item.object_key)) == 1


def set_copied(db: Statements, item_id: bytes, copied: int) -> None:
    """So many bytes are at the destination."""
    db.execute(_SET_COPIED, (copied, item_id))


def postpone(db: Statements, item_id: bytes, due_at: datetime) -> None:
    """Back to waiting."""
    db.execute(_POSTPONE, (to_row(due_at), item_id))


def to_delete(db: Statements, item_id: bytes, due_at: datetime) -> None:
    """The copy is whole; the source is to go then."""
    db.execute(_TO_DELETE, (to_row(due_at), item_id))


def fail(db: Statements, item_id: bytes, reason: str, message: str) -> bool:
    """Nobody tries again until a person says so; False where it had failed already."""
    return db.execute(_FAIL, (reason[:64], message[:255], item_id)) == 1


def revive(db: Statements, transfer_id: bytes, now: datetime, limit: int) -> tuple[int, int]:
    """Failed items wait again; (items, bytes) of them."""
    rows = db.all(_FAILED, (transfer_id, limit))
    if rows:
        revive_these(db, [row.id for row in rows], now)
    return len(rows), sum(row.size for row in rows)


def revive_these(db: Statements, item_ids: Sequence[bytes], now: datetime) -> int:
    """The same for these; answers how many had failed."""
    return db.execute(f"{_REVIVE}({placeholders(len(item_ids))})", (to_row(now), *item_ids))


def failures(db: Statements, transfer_id: bytes, limit: int) -> list[Failure]:
    """Items that failed, and why."""
    return records(Failure, db.all(_FAILURES, (transfer_id, limit)))


def reasons(db: Statements, transfer_id: bytes) -> dict[str, int]:
    """How many failed, by reason."""
    return {str(row.reason): row.items for row in db.all(_REASONS, (transfer_id,))}


def delete(db: Statements, item_id: bytes) -> None:
    """The item has ended; what its key names is a replica's or doomed, in the same transaction, or was never made."""
    db.execute(_DELETE, (item_id,))


def unbegun(db: Statements, transfer_id: bytes, limit: int) -> list[bytes]:
    """Of a cancelled transfer: items that have nothing at the destination but replicas, locked."""
    return db.column(_UNBEGUN, (transfer_id, limit))


def delete_many(db: Statements, item_ids: Sequence[bytes]) -> None:
    """The same as `delete`, of many."""
    db.execute(f"{_DELETE_MANY}({placeholders(len(item_ids))})", item_ids)


def queue_left(db: Statements, transfer_id: bytes, limit: int) -> list[bytes]:
    """Of a cancelled transfer: items that waited or had failed are queued, so that jobs tidy up after them."""
    ids = db.column(_ANY_LEFT, (transfer_id, limit))
    if ids:
        db.execute(f"{_QUEUE_ANY}({placeholders(len(ids))})", ids)
    return ids


# -- what the sweep asks


def ours(db: Statements, storage: str, object_keys: Sequence[str]) -> set[str]:
    """Those of up to 1,000 keys of a storage that an item names: an object or upload under one is no orphan."""
    if not object_keys:
        return set()
    return set(db.column(f"{_OURS}({placeholders(len(object_keys))})", (storage, *object_keys)))


def our_uploads(db: Statements, upload_ids: Sequence[bytes]) -> set[bytes]:
    """Those of up to 1,000 ids that an item's key ends with; `MultipartStorage.list_uploads` yields them."""
    if not upload_ids:
        return set()
    return set(db.column(f"{_OUR_UPLOADS}({placeholders(len(upload_ids))})", upload_ids))


# -- the blob that an item is about


def lock_usable(db: Statements, blob_id: bytes) -> bool:
    """Locks a blob against deletion; False where it is not verified (any more)."""
    return bool(db.value(_LOCK_BLOB_SHARED, (blob_id,)) == "verified")


def lock_alone(db: Statements, blob_id: bytes) -> bool:
    """The same against everybody: only so a replica may be dropped."""
    return bool(db.value(_LOCK_BLOB, (blob_id,)) == "verified")


def replica_at(db: Statements, blob_id: bytes, storage: str) -> str | None:
    """The key of a blob's replica there, locked."""
    object_key: str | None = db.value(_REPLICA_AT, (blob_id, storage))
    return object_key


def drop_replica(db: Statements, blob_id: bytes, storage: str, object_key: str) -> bool:
    """Drops a replica's row; the caller dooms the object."""
    return db.execute(_DROP_REPLICA, (blob_id, storage, object_key)) == 1


def set_sha256(db: Statements, blob_id: bytes, sha256: bytes) -> None:
    """The whole content's SHA-256 became known on the way."""
    db.execute(_SET_SHA256, (sha256, blob_id))
