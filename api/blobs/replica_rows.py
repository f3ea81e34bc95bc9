"""Which replicas of a blob can be read, which are suspected, and which blobs have none left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from api.db.pool import Statements
from api.db.times import from_row, to_row

_OF = "SELECT storage, object_key, suspect, missing_at FROM replica WHERE blob_id = %s"
_SUSPECT = (
    "UPDATE replica SET suspect = %s WHERE blob_id = %s AND storage = %s AND missing_at IS NULL "
    "AND COALESCE(suspect, '') <> %s"
)
_CLEAR = "UPDATE replica SET suspect = NULL, missing_at = NULL WHERE blob_id = %s AND storage = %s AND object_key = %s"
_SET_MISSING = (
    "UPDATE replica SET suspect = NULL, missing_at = COALESCE(missing_at, %s) "
    "WHERE blob_id = %s AND storage = %s AND object_key = %s"
)
_LOCK_SUSPECTS = "SELECT storage FROM replica WHERE blob_id = %s AND suspect IS NOT NULL FOR UPDATE"
_MISSING = (
    "SELECT COUNT(*) FROM (SELECT 1 FROM replica r FORCE INDEX (replica_missing) WHERE r.missing_at IS NOT NULL "
    "ORDER BY r.missing_at LIMIT %s) counted"
)
# The last missing replica of a blob that has no other: read by the index, and ended early by a LIMIT.
_LOST_BLOBS = (
    "(SELECT r.blob_id, r.missing_at AS since FROM replica r FORCE INDEX (replica_missing) "
    "WHERE r.missing_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM replica a WHERE a.blob_id = r.blob_id "
    "AND (a.missing_at IS NULL OR a.missing_at > r.missing_at OR (a.missing_at = r.missing_at "
    "AND a.storage > r.storage))) ORDER BY r.missing_at LIMIT %s)"
)
_COUNT_LOST = f"SELECT COUNT(*) FROM {_LOST_BLOBS} counted"
_LOST = (
    f"SELECT l.blob_id, l.since, b.size, (SELECT COUNT(*) FROM file f WHERE f.blob_id = l.blob_id) AS files, "
    "(SELECT COUNT(DISTINCT f.user_id) FROM file f WHERE f.blob_id = l.blob_id) AS owners, "
    "(SELECT GROUP_CONCAT(r.storage, ' ', r.object_key ORDER BY r.storage SEPARATOR ',') FROM replica r "
    f"WHERE r.blob_id = l.blob_id) AS places FROM {_LOST_BLOBS} l JOIN `blob` b ON b.id = l.blob_id "
    "ORDER BY l.since, l.blob_id"
)


@dataclass(frozen=True, slots=True)
class Replica:
    """Where a blob's bytes lie, and what is known against it; see migration 0012.

    Attributes:
        suspect: why it could not be read lately; None if nothing is known against it.
        is_missing: it was judged: it holds no bytes of the blob.
    """

    storage: str
    object_key: str
    suspect: str | None
    is_missing: bool


@dataclass(frozen=True, slots=True)
class LostBlob:
    """A blob of which no storage has the bytes.

    Attributes:
        since: when the last replica was judged.
        files, owners: how many files, trashed ones included, of how many accounts name it.
        places: (storage, object key) of each replica.
    """

    blob_id: bytes
    since: datetime
    size: int
    files: int
    owners: int
    places: tuple[tuple[str, str], ...]


def of_blob(db: Statements, blob_id: bytes) -> list[Replica]:
    """Every replica of a blob."""
    return [Replica(row[0], row[1], row[2], row[3] is not None) for row in db.all(_OF, (blob_id,))]


def suspect(db: Statements, blob_id: bytes, storage: str, reason: str) -> bool:
    """Marks a replica as suspected; False if it is so already, judged already, or gone."""
    return db.execute(_SUSPECT, (reason, blob_id, storage, reason)) == 1


def clear(db: Statements, blob_id: bytes, storage: str, object_key: str) -> None:
    """The object is whole: it is read again."""
    db.execute(_CLEAR, (blob_id, storage, object_key))


def set_missing(db: Statements, blob_id: bytes, storage: str, object_key: str, now: datetime) -> None:
    """The object was looked at twice, and is not there or has another length."""
    db.execute(_SET_MISSING, (to_row(now), blob_id, storage, object_key))


def lock_suspects(tx: Statements, blob_id: bytes) -> list[str]:
    """Storages whose replica of the blob is suspected; their rows are locked."""
    return [row[0] for row in tx.all(_LOCK_SUSPECTS, (blob_id,))]


def count_missing(db: Statements, most: int) -> int:
    """Replicas that hold no bytes; at most ``most`` are counted."""
    row = db.one(_MISSING, (most,))
    assert row is not None
    return int(row[0])


def count_lost(db: Statements, most: int) -> int:
    """Blobs that no storage has; at most ``most`` are counted."""
    row = db.one(_COUNT_LOST, (most,))
    assert row is not None
    return int(row[0])


def lost(db: Statements, most: int) -> list[LostBlob]:
    """Blobs that no storage has, those that are lost the longest first."""
    return [
        LostBlob(
            blob_id=row[0],
            since=from_row(row[1]),
            size=int(row[2]),
            files=int(row[3]),
            owners=int(row[4]),
            places=tuple((place.split(" ")[0], place.split(" ")[1]) for place in row[5].split(",")),
        )
        for row in db.all(_LOST, (most,))
    ]
