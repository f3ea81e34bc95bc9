"""Rows of blobs, digest claims, replicas, and objects that are marked for deletion."""

from __future__ import annotations

from datetime import datetime

from api.core.models import Blob
from api.db.pool import Row, Statements
from api.db.times import to_row

_BLOB = "b.id, b.size, b.digest, b.state, b.sha256, r.storage, r.object_key"
_REPLICA = "LEFT JOIN replica r ON r.blob_id = b.id"
_BY_ID = f"SELECT {_BLOB} FROM `blob` b {_REPLICA} WHERE b.id = %s LIMIT 1"
_BY_DIGEST = f"{_BLOB} FROM blob_digest d JOIN `blob` b ON b.id = d.blob_id {_REPLICA}"
_OF_DIGEST = "WHERE d.digest = %s AND d.scope = %s AND b.size = %s"
_VERIFIED = f"SELECT {_BY_DIGEST} AND r.missing_at IS NULL {_OF_DIGEST} AND b.state = 'verified'"
_STANDING = f"SELECT {_BY_DIGEST} {_OF_DIGEST} AND b.state IN ('verified', 'corrupt')"
_REVIVE = "UPDATE `blob` SET state = 'verified', verified_at = %s WHERE id = %s AND state = 'corrupt'"
_DROP_REPLICAS = "DELETE FROM replica WHERE blob_id = %s"
_REPLICAS = "SELECT storage, object_key FROM replica WHERE blob_id = %s"
_INSERT = (
    "INSERT INTO `blob` (id, size, digest, scope, state, sha256, created_at, verified_at) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
)
_INSERT_PARTS = "INSERT INTO blob_parts (blob_id, hashes) VALUES (%s, %s)"
_INSERT_REPLICA = "INSERT INTO replica (blob_id, storage, object_key, created_at) VALUES (%s, %s, %s, %s)"
_CLAIM = (
    "INSERT INTO blob_digest (digest, scope, blob_id) VALUES (%s, %s, %s) "
    "ON DUPLICATE KEY UPDATE blob_id = blob_digest.blob_id"
)
_ADD_REPLICA = _INSERT_REPLICA + " ON DUPLICATE KEY UPDATE object_key = replica.object_key"
_REPLACE_REPLICA = (
    "UPDATE replica SET object_key = %s, checked_at = %s, missing_at = NULL, suspect = NULL "
    "WHERE blob_id = %s AND storage = %s AND object_key = %s"
)
_DOOM = (
    "INSERT INTO doomed (storage, object_key, created_at, keep_until) VALUES (%s, %s, %s, %s) "
    "ON DUPLICATE KEY UPDATE created_at = doomed.created_at"
)
_DOOMED = (
    "SELECT id, storage, object_key FROM doomed WHERE id > %s AND (keep_until IS NULL OR keep_until <= %s) "
    "ORDER BY id LIMIT 1000"
)
_UNDOOM = "DELETE FROM doomed WHERE id = %s"


def _blob(row: Row) -> Blob:
    return Blob(*row)


def by_id(db: Statements, blob_id: bytes) -> Blob | None:
    """A blob and one of its replicas."""
    row = db.one(_BY_ID, (blob_id,))
    return _blob(row) if row else None


def replicas(db: Statements, blob_id: bytes) -> list[tuple[str, str]]:
    """(storage, object key) of every replica of a blob."""
    return [(row[0], row[1]) for row in db.all(_REPLICAS, (blob_id,))]


def verified(db: Statements, digest: bytes, size: int, scope: bytes) -> list[Blob]:
    """The verified blob that claims this content: one item per replica that is not missing.

    If all replicas are missing, the blob is returned once, without storage and object key.
    """
    return [_blob(row) for row in db.all(_VERIFIED, (digest, scope, size))]


def standing(db: Statements, digest: bytes, size: int, scope: bytes) -> list[Blob]:
    """The blob that claims this content, verified or corrupt: one item per replica."""
    return [_blob(row) for row in db.all(_STANDING, (digest, scope, size))]


def insert_unverified(db: Statements, blob: Blob, scope: bytes, hashes: bytes, now: datetime) -> None:
    """Inserts a blob whose bytes were not compared yet. It claims no digest and matches no instant upload."""
    moment = to_row(now)
    db.execute(_INSERT, (blob.id, blob.size, blob.digest, scope, "unverified", None, moment, None))
    db.execute(_INSERT_PARTS, (blob.id, hashes))
    db.execute(_INSERT_REPLICA, (blob.id, blob.storage, blob.object_key, moment))


def claim(db: Statements, digest: bytes, scope: bytes, blob_id: bytes) -> bool:
    """Claims a digest for a blob. Returns False if another blob has the claim."""
    return db.execute(_CLAIM, (digest, scope, blob_id)) == 1


def insert_verified(db: Statements, blob: Blob, scope: bytes, hashes: bytes, now: datetime) -> bool:
    """Inserts a verified blob and claims its digest.

    Returns:
        False if another blob has the claim. The caller then rolls back and merges with that blob.
    """
    moment = to_row(now)
    db.execute(_INSERT, (blob.id, blob.size, blob.digest, scope, "verified", blob.sha256, moment, moment))
    if not claim(db, blob.digest, scope, blob.id):
        return False
    if blob.storage is not None:
        db.execute(_INSERT_PARTS, (blob.id, hashes))
        db.execute(_INSERT_REPLICA, (blob.id, blob.storage, blob.object_key, moment))
    return True


def add_replica(db: Statements, blob_id: bytes, storage: str, object_key: str, now: datetime) -> bool:
    """Adds a verified object as a replica of a locked blob. Returns False if the storage has a replica."""
    return db.execute(_ADD_REPLICA, (blob_id, storage, object_key, to_row(now))) == 1


def heal(db: Statements, blob: Blob, storage: str, object_key: str, now: datetime) -> bool:
    """Replaces a blob's broken replica by a verified object, and marks the broken one for deletion.

    Returns:
        False if another process healed the blob first.
    """
    if blob.storage != storage:
        return db.execute(_ADD_REPLICA, (blob.id, storage, object_key, to_row(now))) == 1
    if db.execute(_REPLACE_REPLICA, (object_key, to_row(now), blob.id, storage, blob.object_key)) != 1:
        return False
    if blob.object_key is not None:
        doom(db, storage, blob.object_key, now)
    return True


def revive(db: Statements, blob: Blob, storage: str, object_key: str, now: datetime) -> bool:
    """corrupt → verified, with a verified object. Marks all old replicas for deletion. False in other states."""
    if db.execute(_REVIVE, (to_row(now), blob.id)) != 1:
        return False
    for name, key in replicas(db, blob.id):
        doom(db, name, key, now)
    db.execute(_DROP_REPLICAS, (blob.id,))
    db.execute(_INSERT_REPLICA, (blob.id, storage, object_key, to_row(now)))
    return True


def doom(db: Statements, storage: str, object_key: str, now: datetime, keep_until: datetime | None = None) -> None:
    """Marks an object for deletion, in the transaction that removes the last reference to it.

    Args:
        keep_until: earliest deletion; until then edges may be serving the object.
    """
    db.execute(_DOOM, (storage, object_key, to_row(now), None if keep_until is None else to_row(keep_until)))


def doomed(db: Statements, after: int, now: datetime) -> list[tuple[int, str, str]]:
    """Up to 1,000 objects to delete, as (row id, storage, object key)."""
    return [(row[0], row[1], row[2]) for row in db.all(_DOOMED, (after, to_row(now)))]


def undoom(db: Statements, row_id: int) -> None:
    """Deletes the row of an object that was deleted."""
    db.execute(_UNDOOM, (row_id,))
