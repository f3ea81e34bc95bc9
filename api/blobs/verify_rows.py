"""Rows for verification: blobs to read back, and the results."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from api.core.models import Blob
from api.db.pool import Statements
from api.db.times import to_row
from api.jobs import rows as jobs

_LOAD = (
    "SELECT b.id, b.size, b.digest, b.state, b.sha256, r.storage, r.object_key, b.scope, p.hashes FROM `blob` b "
    "JOIN blob_parts p ON p.blob_id = b.id LEFT JOIN replica r ON r.blob_id = b.id AND r.missing_at IS NULL "
    "WHERE b.id = %s LIMIT 1"
)
_STUCK = (
    "SELECT b.id FROM `blob` b LEFT JOIN job j ON j.subject = b.id AND j.kind = 'verify' "
    "WHERE b.state = 'unverified' AND j.subject IS NULL LIMIT 100"
)
_SET_VERIFIED = (
    "UPDATE `blob` SET state = 'verified', sha256 = %s, verified_at = %s WHERE id = %s AND state = 'unverified'"
)
_SET_SHA256 = "UPDATE `blob` SET sha256 = %s WHERE id = %s AND state = 'verified'"
_SET_CORRUPT = "UPDATE `blob` SET state = 'corrupt' WHERE id = %s AND state = 'unverified'"
_LOCK_FIRST = "SELECT id FROM `blob` WHERE id = %s AND state = %s FOR UPDATE"
_LOCK_UNVERIFIED = "SELECT id FROM `blob` WHERE id = %s AND state = 'unverified' FOR UPDATE"
_MOVE_FILES = "UPDATE file SET blob_id = %s WHERE blob_id = %s"
_DROP = (
    "DELETE FROM replica WHERE blob_id = %s",
    "DELETE FROM blob_parts WHERE blob_id = %s",
    "DELETE FROM `blob` WHERE id = %s",
)


@dataclass(frozen=True, slots=True)
class Verification:
    """A blob to read back."""

    blob: Blob
    scope: bytes
    hashes: bytes


def load(db: Statements, blob_id: bytes) -> Verification | None:
    """A blob, one of its replicas that is not missing, and its hashes; None if the blob is gone."""
    row = db.one(_LOAD, (blob_id,))
    return Verification(Blob(*row[:7]), row[7], row[8]) if row else None


def stuck(db: Statements) -> list[bytes]:
    """Ids of up to 100 unverified blobs that have no job."""
    return db.column(_STUCK)


def set_verified(db: Statements, blob_id: bytes, sha256: bytes | None, now: datetime) -> bool:
    """unverified → verified. Returns False if the blob is in another state."""
    return db.execute(_SET_VERIFIED, (sha256, to_row(now), blob_id)) == 1


def set_sha256(db: Statements, blob_id: bytes, sha256: bytes) -> None:
    """Saves the SHA-256 of a verified blob's whole content."""
    db.execute(_SET_SHA256, (sha256, blob_id))


def set_corrupt(db: Statements, blob_id: bytes) -> None:
    """unverified → corrupt."""
    db.execute(_SET_CORRUPT, (blob_id,))


def merge(db: Statements, blob_id: bytes, first_id: bytes, first_state: str) -> bool:
    """Moves a blob's files to the blob that was verified first, and deletes its rows.

    The caller marks the object that is not needed any more for deletion, in the same transaction.

    Returns:
        False if one of the two blobs changed.
    """
    if db.one(_LOCK_FIRST, (first_id, first_state)) is None or db.one(_LOCK_UNVERIFIED, (blob_id,)) is None:
        return False
    db.execute(_MOVE_FILES, (first_id, blob_id))
    jobs.delete(db, blob_id)
    for sql in _DROP:
        db.execute(sql, (blob_id,))
    return True
