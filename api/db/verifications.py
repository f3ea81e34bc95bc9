"""Blobs that wait to be read, for their parts' hashes or the whole one, and how that ends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from api.db.pool import Statements
from api.db.times import to_row
from api.models import Blob

_INSERT = "INSERT INTO verification (blob_id, created_at) VALUES (%s, %s)"
_DUE = "SELECT blob_id FROM verification WHERE lease_until IS NULL OR lease_until < %s LIMIT 100"
_TAKE = (
    "UPDATE verification SET lease_owner = %s, lease_until = %s, tries = tries + 1 WHERE blob_id = %s "
    "AND (lease_until IS NULL OR lease_until < %s)"
)
_TAKEN = (
    "SELECT b.id, b.size, b.digest, b.state, b.sha256, r.storage, r.object_key, b.scope, p.hashes, v.parts_done, "
    "v.tries FROM verification v JOIN `blob` b ON b.id = v.blob_id JOIN blob_parts p ON p.blob_id = b.id "
    "JOIN replica r ON r.blob_id = b.id WHERE v.blob_id = %s AND v.lease_owner = %s LIMIT 1"
)
_ADVANCE = "UPDATE verification SET parts_done = %s, lease_until = %s WHERE blob_id = %s AND lease_owner = %s"
_POSTPONE = "UPDATE verification SET lease_owner = NULL, lease_until = %s WHERE blob_id = %s AND lease_owner = %s"
_END = "DELETE FROM verification WHERE blob_id = %s AND lease_owner = %s"
_SET_VERIFIED = (
    "UPDATE `blob` SET state = 'verified', sha256 = %s, verified_at = %s WHERE id = %s AND state = 'unverified'"
)
_SET_SHA256 = "UPDATE `blob` SET sha256 = %s WHERE id = %s AND state = 'verified'"
_SET_CORRUPT = "UPDATE `blob` SET state = 'corrupt' WHERE id = %s AND state = 'unverified'"
_LOCK_VERIFIED = "SELECT id FROM `blob` WHERE id = %s AND state = 'verified' LOCK IN SHARE MODE"
_LOCK_UNVERIFIED = "SELECT id FROM `blob` WHERE id = %s AND state = 'unverified' FOR UPDATE"
_MOVE_FILES = "UPDATE file SET blob_id = %s WHERE blob_id = %s"
_DROP = (
    "DELETE FROM replica WHERE blob_id = %s",
    "DELETE FROM blob_parts WHERE blob_id = %s",
    "DELETE FROM `blob` WHERE id = %s",
)


@dataclass(frozen=True, slots=True)
class Verification:
    """A blob to read back; ``parts_done`` of its parts were right already."""

    blob: Blob
    scope: bytes
    hashes: bytes
    parts_done: int
    tries: int


def insert(db: Statements, blob_id: bytes, now: datetime) -> None:
    """The blob has to be read back."""
    db.execute(_INSERT, (blob_id, to_row(now)))


def due(db: Statements, now: datetime) -> list[bytes]:
    """Up to 100 blobs that nobody is reading."""
    return [row[0] for row in db.all(_DUE, (to_row(now),))]


def take(db: Statements, blob_id: bytes, owner: bytes, now: datetime, until: datetime) -> Verification | None:
    """Makes this process the one that reads a blob; None where another does, or it is done."""
    if db.execute(_TAKE, (owner, to_row(until), blob_id, to_row(now))) != 1:
        return None
    row = db.one(_TAKEN, (blob_id, owner))
    return Verification(Blob(*row[:7]), row[7], row[8], row[9], row[10]) if row else None


def advance(db: Statements, blob_id: bytes, owner: bytes, parts_done: int, until: datetime) -> bool:
    """So many parts are right; False where the lease was lost."""
    return db.execute(_ADVANCE, (parts_done, to_row(until), blob_id, owner)) == 1


def postpone(db: Statements, blob_id: bytes, owner: bytes, until: datetime) -> None:
    """The storage could not be read; not before then again."""
    db.execute(_POSTPONE, (to_row(until), blob_id, owner))


def set_verified(db: Statements, blob_id: bytes, sha256: bytes | None, owner: bytes, now: datetime) -> bool:
    """unverified → verified; False where the blob or the lease went away."""
    return db.execute(_SET_VERIFIED, (sha256, to_row(now), blob_id)) == 1 and db.execute(_END, (blob_id, owner)) == 1


def set_sha256(db: Statements, blob_id: bytes, sha256: bytes | None, owner: bytes) -> None:
    """What was verified before was read for its whole hash."""
    db.execute(_SET_SHA256, (sha256, blob_id))
    db.execute(_END, (blob_id, owner))


def set_corrupt(db: Statements, blob_id: bytes, owner: bytes) -> None:
    """unverified → corrupt, for good."""
    db.execute(_SET_CORRUPT, (blob_id,))
    db.execute(_END, (blob_id, owner))


def merge(db: Statements, blob_id: bytes, owner: bytes, first_id: bytes) -> bool:
    """Gives a blob's files to the one that was verified first, and drops its rows; False where either went away.

    Whoever calls dooms the objects that are not needed any more, in the same transaction.
    """
    if db.one(_LOCK_VERIFIED, (first_id,)) is None or db.one(_LOCK_UNVERIFIED, (blob_id,)) is None:
        return False
    if db.execute(_END, (blob_id, owner)) != 1:
        return False
    db.execute(_MOVE_FILES, (first_id, blob_id))
    for sql in _DROP:
        db.execute(sql, (blob_id,))
    return True
