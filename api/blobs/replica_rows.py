"""Rows of replicas: which are readable, suspect or missing, and which blobs are lost."""

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
# One row per lost blob: its latest missing replica. The index gives the order, so that the LIMIT ends the scan early.
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
    """Where a blob's bytes are stored, and whether they can be read; see migration 0012.

    Attributes:
        suspect: why an edge could not read it lately; None if no edge has reported it.
        is_missing: True if a check found that it does not hold the blob's bytes.
    """

    storage: str
    object_key: str
    suspect: str | None
    is_missing: bool


@dataclass(frozen=True, slots=True)
class LostBlob:
    """A blob whose bytes no storage has.

    Attributes:
        since: when its last replica was found missing.
        files: number of files that refer to it, including files in the trash.
        owners: number of accounts that have these files.
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
    """Marks a replica as suspect. Returns False if it was suspect, missing or deleted before."""
    return db.execute(_SUSPECT, (reason, blob_id, storage, reason)) == 1


def clear(db: Statements, blob_id: bytes, storage: str, object_key: str) -> None:
    """Marks a replica as readable: its object is whole."""
    db.execute(_CLEAR, (blob_id, storage, object_key))


def set_missing(db: Statements, blob_id: bytes, storage: str, object_key: str, now: datetime) -> None:
    """Marks a replica as missing: two checks found no object, or another length."""
    db.execute(_SET_MISSING, (to_row(now), blob_id, storage, object_key))


def lock_suspects(tx: Statements, blob_id: bytes) -> list[str]:
    """Names of storages whose replica of the blob is suspect. Locks these rows."""
    return [row[0] for row in tx.all(_LOCK_SUSPECTS, (blob_id,))]


def count_missing(db: Statements, most: int) -> int:
    """Number of missing replicas; at most ``most`` are counted."""
    row = db.one(_MISSING, (most,))
    assert row is not None
    return int(row[0])


def count_lost(db: Statements, most: int) -> int:
    """Number of lost blobs; at most ``most`` are counted."""
    row = db.one(_COUNT_LOST, (most,))
    assert row is not None
    return int(row[0])


def lost(db: Statements, most: int) -> list[LostBlob]:
    """Up to ``most`` lost blobs; those that were lost first come first."""
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
