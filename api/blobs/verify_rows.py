"""Blobs that are read back, for their parts' hashes or the whole one, and how that ends."""

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
    """A blob with a replica that is not known to be lost, and with what it is compared with; None where it is gone."""
    row = db.one(_LOAD, (blob_id,))
    return Verification(Blob(*row[:7]), row[7], row[8]) if row else None


def stuck(db: Statements) -> list[bytes]:
    """Up to 100 unverified blobs that no job is about."""
    return db.column(_STUCK)


def set_verified(db: Statements, blob_id: bytes, sha256: bytes | None, now: datetime) -> bool:
    """unverified → verified; False where the blob is in another state by now."""
    return db.execute(_SET_VERIFIED, (sha256, to_row(now), blob_id)) == 1


def set_sha256(db: Statements, blob_id: bytes, sha256: bytes) -> None:
    """What was verified before was read for its whole hash."""
    db.execute(_SET_SHA256, (sha256, blob_id))


def set_corrupt(db: Statements, blob_id: bytes) -> None:
    """unverified → corrupt, for good."""
    db.execute(_SET_CORRUPT, (blob_id,))


def merge(db: Statements, blob_id: bytes, first_id: bytes, first_state: str) -> bool:
    """Gives a blob's files to the one that was verified first, and drops its rows; False where either changed.

    Whoever calls dooms the objects that are not needed any more, in the same transaction.
    """
    if db.one(_LOCK_FIRST, (first_id, first_state)) is None or db.one(_LOCK_UNVERIFIED, (blob_id,)) is None:
        return False
    db.execute(_MOVE_FILES, (first_id, blob_id))
    jobs.delete(db, blob_id)
    for sql in _DROP:
        db.execute(sql, (blob_id,))
    return True
