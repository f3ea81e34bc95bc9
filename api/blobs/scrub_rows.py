"""Rows for the scrub: which replicas are due, results, and replacement objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from api.blobs import rows as blobs
from api.db.pool import Statements, placeholders
from api.db.times import from_row, to_row

_OLDEST = (
    "SELECT blob_id, checked_at FROM replica FORCE INDEX (replica_checked) WHERE storage = %s AND checked_at < %s "
    "ORDER BY checked_at LIMIT 2"
)
_WAITING = "SELECT COUNT(*) FROM job WHERE state = 'waiting' AND kind = 'scrub'"
_BLOB = (
    "SELECT b.id, b.size, b.state, b.sha256, p.hashes FROM `blob` b JOIN blob_parts p ON p.blob_id = b.id "
    "WHERE b.id = %s"
)
_REPLICAS = (
    "SELECT storage, object_key, checked_at, suspect, missing_at FROM replica WHERE blob_id = %s ORDER BY storage"
)
_CHECKED = (
    "UPDATE replica SET checked_at = %s, missing_at = NULL, suspect = NULL "
    "WHERE blob_id = %s AND storage = %s AND object_key = %s"
)
_PUT_OFF = "UPDATE replica SET checked_at = %s WHERE blob_id = %s"
_LOST = (
    "UPDATE replica SET missing_at = COALESCE(missing_at, %s), suspect = NULL, checked_at = %s "
    "WHERE blob_id = %s AND storage = %s"
)
_SET_SHA256 = "UPDATE `blob` SET sha256 = %s WHERE id = %s AND sha256 IS NULL"
_LOCK = "SELECT state FROM `blob` WHERE id = %s FOR UPDATE"
_SET_CORRUPT = "UPDATE `blob` SET state = 'corrupt' WHERE id = %s"
_DROP_CLAIM = "DELETE FROM blob_digest WHERE blob_id = %s"

_HEALING = "object_key, upload_id, multipart_id, binds_hash, complete_stage"
_GET_HEALING = f"SELECT {_HEALING} FROM healing WHERE blob_id = %s AND storage = %s"
_LOCK_HEALING = f"SELECT {_HEALING} FROM healing WHERE blob_id = %s AND storage = %s FOR UPDATE"
_BEGIN_HEALING = (
    "INSERT INTO healing (blob_id, storage, object_key, upload_id, binds_hash, created_at) "
    "VALUES (%s, %s, %s, %s, %s, %s) ON DUPLICATE KEY UPDATE created_at = healing.created_at"
)
_OPENED = "UPDATE healing SET multipart_id = %s WHERE blob_id = %s AND storage = %s AND object_key = %s"
_SET_STAGE = "UPDATE healing SET complete_stage = %s WHERE blob_id = %s AND storage = %s AND object_key = %s"
_END_HEALING = "DELETE FROM healing WHERE blob_id = %s AND storage = %s AND object_key = %s"
_MOVE = "UPDATE replica SET object_key = %s WHERE blob_id = %s AND storage = %s AND object_key = %s"
_AT_KEYS = (
    "SELECT b.id, b.size, r.object_key, r.checked_at FROM replica r JOIN `blob` b ON b.id = r.blob_id "
    "WHERE r.storage = %s AND r.object_key IN "
)
_SWAP = (
    "UPDATE replica SET object_key = %s, checked_at = %s, missing_at = NULL, suspect = NULL "
    "WHERE blob_id = %s AND storage = %s AND object_key = %s"
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A replica, when its bytes were last compared, and its faults (`api.blobs.replica_rows`)."""

    storage: str
    object_key: str
    checked_at: datetime
    suspect: str | None = None
    is_missing: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """A blob to read, with the hashes to compare and its replicas."""

    blob_id: bytes
    size: int
    state: str
    sha256: bytes | None
    hashes: bytes
    replicas: tuple[Stored, ...]


@dataclass(frozen=True, slots=True)
class Healing:
    """The new object that will replace a damaged one."""

    object_key: str
    upload_id: bytes
    multipart_id: str
    binds_hash: bool
    complete_stage: int = 0


def oldest(db: Statements, storage: str, before: datetime) -> list[tuple[bytes, datetime]]:
    """Up to two replicas compared longest ago, and before this time, as (blob id, time of the comparison)."""
    return [(row[0], from_row(row[1])) for row in db.all(_OLDEST, (storage, to_row(before)))]


def waiting(db: Statements) -> int:
    """Number of scrub jobs that are not dead."""
    row = db.one(_WAITING)
    assert row is not None
    return int(row[0])


def load(db: Statements, blob_id: bytes) -> Subject | None:
    """The blob with its hashes and replicas; None if it is gone."""
    row = db.one(_BLOB, (blob_id,))
    if row is None:
        return None
    stored = tuple(
        Stored(found[0], found[1], from_row(found[2]), found[3], found[4] is not None)
        for found in db.all(_REPLICAS, (blob_id,))
    )
    return Subject(row[0], int(row[1]), row[2], row[3], row[4], stored)


def set_checked(db: Statements, blob_id: bytes, stored: Stored, now: datetime) -> None:
    """Records that every byte of the object was compared and is right."""
    db.execute(_CHECKED, (to_row(now), blob_id, stored.storage, stored.object_key))


def put_off(db: Statements, blob_id: bytes, now: datetime) -> None:
    """Postpones the scrub of all replicas of the blob."""
    db.execute(_PUT_OFF, (to_row(now), blob_id))


def set_lost(db: Statements, blob_id: bytes, storage: str, now: datetime) -> None:
    """Marks a replica as missing; the blob has no other one."""
    db.execute(_LOST, (to_row(now), to_row(now), blob_id, storage))


def set_sha256(db: Statements, blob_id: bytes, sha256: bytes) -> None:
    """Saves the SHA-256 of the whole content, if it was unknown."""
    db.execute(_SET_SHA256, (sha256, blob_id))


def set_corrupt(tx: Statements, subject: Subject) -> bool:
    """verified → corrupt; drops the digest claim, so no upload is linked to it. False if its rows changed."""
    row = tx.one(_LOCK, (subject.blob_id,))
    keys = {(stored.storage, stored.object_key) for stored in subject.replicas}
    if row is None or row[0] != "verified" or set(blobs.replicas(tx, subject.blob_id)) != keys:
        return False
    tx.execute(_SET_CORRUPT, (subject.blob_id,))
    tx.execute(_DROP_CLAIM, (subject.blob_id,))
    return True


def healing(db: Statements, blob_id: bytes, storage: str, fresh: Healing, now: datetime) -> Healing:
    """The replacement that is being written: one begun earlier, or else ``fresh``, which is inserted."""
    args = (blob_id, storage, fresh.object_key, fresh.upload_id, fresh.binds_hash, to_row(now))
    db.execute(_BEGIN_HEALING, args)
    row = db.one(_GET_HEALING, (blob_id, storage))
    assert row is not None
    return Healing(row[0], row[1], row[2], bool(row[3]), row[4])


def is_healing(db: Statements, blob_id: bytes, storage: str) -> bool:
    """Whether a replacement for the storage's replica is being written."""
    return db.one(_GET_HEALING, (blob_id, storage)) is not None


def set_opened(db: Statements, blob_id: bytes, storage: str, begun: Healing) -> None:
    """Saves the id of the storage's multipart upload."""
    db.execute(_OPENED, (begun.multipart_id, blob_id, storage, begun.object_key))


def set_complete_stage(db: Statements, blob_id: bytes, storage: str, begun: Healing, stage: int) -> None:
    """Saves the stage of the complete; see `api.blobs.copying.complete`."""
    db.execute(_SET_STAGE, (stage, blob_id, storage, begun.object_key))


def swap(tx: Statements, blob_id: bytes, damaged: Stored, begun: Healing, now: datetime) -> bool:
    """Replaces the damaged object and marks it for deletion. Returns False if the new one is not needed any more."""
    row = tx.one(_LOCK, (blob_id,))
    if tx.one(_LOCK_HEALING, (blob_id, damaged.storage)) is None:
        return False
    args = (begun.object_key, to_row(now), blob_id, damaged.storage, damaged.object_key)
    wanted = row is not None and row[0] == "verified" and tx.execute(_SWAP, args) == 1
    blobs.doom(tx, damaged.storage, damaged.object_key if wanted else begun.object_key, now)
    tx.execute(_END_HEALING, (blob_id, damaged.storage, begun.object_key))
    return wanted


def move(tx: Statements, blob_id: bytes, old: Stored, begun: Healing, now: datetime, keep_until: datetime) -> bool:
    """Replaces a replica's object by a copy with the same bytes.

    Args:
        keep_until: earliest deletion of the old object; until then edges may be serving it.

    Returns:
        False if the copy is not needed any more.
    """
    state: str | None = tx.value(_LOCK, (blob_id,))
    if tx.one(_LOCK_HEALING, (blob_id, old.storage)) is None:
        return False
    args = (begun.object_key, blob_id, old.storage, old.object_key)
    wanted = state in ("verified", "unverified") and tx.execute(_MOVE, args) == 1
    blobs.doom(tx, old.storage, old.object_key if wanted else begun.object_key, now, keep_until)
    tx.execute(_END_HEALING, (blob_id, old.storage, begun.object_key))
    return wanted


def at_keys(db: Statements, storage: str, keys: Sequence[str]) -> list[tuple[bytes, int, Stored]]:
    """The replicas that have one of these keys, as (blob id, size in bytes, replica)."""
    rows = db.all(f"{_AT_KEYS}({placeholders(len(keys))})", [storage, *keys]) if keys else []
    return [(row[0], int(row[1]), Stored(storage, row[2], from_row(row[3]))) for row in rows]


def give_up(
    tx: Statements, blob_id: bytes, storage: str, begun: Healing, now: datetime, keep_until: datetime | None
) -> None:
    """Marks the replacement for deletion; the next attempt uses a new key.

    Args:
        keep_until: earliest deletion; until then a complete request may still take effect.
    """
    if tx.one(_LOCK_HEALING, (blob_id, storage)) is not None:
        blobs.doom(tx, storage, begun.object_key, now, keep_until)
        tx.execute(_END_HEALING, (blob_id, storage, begun.object_key))
