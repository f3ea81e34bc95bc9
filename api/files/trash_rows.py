"""The end of files and blobs: what lay in the trash long enough, and content that nothing reaches any more."""

from __future__ import annotations

from datetime import datetime

from api.blobs import rows as blobs
from api.db.pool import Statements, placeholders
from api.db.times import to_row
from api.jobs import rows as jobs

_DUE = "SELECT id FROM file WHERE trashed_at < %s ORDER BY trashed_at LIMIT 100"
_LOCK_DUE = "SELECT id, blob_id FROM file WHERE trashed_at < %s AND id IN "
_NOTE = "INSERT IGNORE INTO blob_candidate (blob_id, noted_at) VALUES "
_DELETE_FILES = "DELETE FROM file WHERE id IN "

_CANDIDATES = "SELECT blob_id FROM blob_candidate WHERE blob_id > %s ORDER BY blob_id LIMIT 100"
_LOCK = "SELECT state FROM `blob` WHERE id = %s FOR UPDATE"
# Read on the primary and with a lock, so that what is seen is what is committed, after the blob's row was locked.
_REFERENCES = ("SELECT 1 FROM file WHERE blob_id = %s LIMIT 1 LOCK IN SHARE MODE",)
_SET_DELETING = "UPDATE `blob` SET state = 'deleting' WHERE id = %s"
_DROP_CLAIM = "DELETE FROM blob_digest WHERE blob_id = %s"
_FORGET = "DELETE FROM blob_candidate WHERE blob_id = %s"
_DOOMED = (
    "SELECT 1 FROM replica r JOIN doomed d ON d.storage = r.storage AND d.object_key = r.object_key "
    "WHERE r.blob_id = %s LIMIT 1"
)
_DROP = (
    "DELETE FROM replica WHERE blob_id = %s",
    "DELETE FROM blob_parts WHERE blob_id = %s",
    "DELETE FROM `blob` WHERE id = %s AND state = 'deleting'",
)


def due(db: Statements, before: datetime) -> list[bytes]:
    """Up to 100 files that were trashed before then."""
    return db.column(_DUE, (to_row(before),))


def purge(tx: Statements, file_ids: list[bytes], before: datetime, now: datetime) -> int:
    """Deletes files that are still in the trash, and notes their blobs. Returns the number of deleted files.

    The rows are locked first: a file that its owner restores at this moment is either found in the trash no more, or
    the owner is told that it is gone.
    """
    found = tx.all(f"{_LOCK_DUE}({placeholders(len(file_ids))}) FOR UPDATE", [to_row(before), *file_ids])
    if not found:
        return 0
    blob_ids = sorted({row.blob_id for row in found})
    args = [value for blob_id in blob_ids for value in (blob_id, to_row(now))]
    tx.execute(_NOTE + placeholders(len(blob_ids), "(%s, %s)"), args)
    return tx.execute(f"{_DELETE_FILES}({placeholders(len(found))})", [row.id for row in found])


def candidates(db: Statements, after: bytes) -> list[bytes]:
    """Up to 100 blobs after ``after`` that may have lost their last file."""
    return db.column(_CANDIDATES, (after,))


def is_unreached(db: Statements, blob_id: bytes) -> bool:
    """Whether nothing refers to a blob at this moment."""
    return all(db.one(sql, (blob_id,)) is None for sql in _REFERENCES)


def condemn(tx: Statements, blob_id: bytes, now: datetime) -> bool:
    """Any state → deleting, which is final, and marks every replica for deletion.

    Returns False if the blob is in use, is missing, or is in that state already.

    A transaction that adds a reference first locks the blob's row in share mode and reads its state. Either it came
    before this transaction, and its reference is counted here, or it comes after, and finds an unusable blob.
    """
    state = tx.value(_LOCK, (blob_id,))
    if state is None or not is_unreached(tx, blob_id):
        tx.execute(_FORGET, (blob_id,))
        return False
    if state == "deleting":
        return False
    tx.execute(_SET_DELETING, (blob_id,))
    for storage, object_key in blobs.replicas(tx, blob_id):
        blobs.doom(tx, storage, object_key, now)
    tx.execute(_DROP_CLAIM, (blob_id,))
    jobs.delete(tx, blob_id)
    return True


def bury(tx: Statements, blob_id: bytes) -> bool:
    """Deletes the rows of a blob whose objects are gone. Returns False if an object is left or the blob is in use."""
    if tx.value(_LOCK, (blob_id,)) != "deleting" or tx.one(_DOOMED, (blob_id,)) is not None:
        return False
    for sql in _DROP:
        tx.execute(sql, (blob_id,))
    tx.execute(_FORGET, (blob_id,))
    return True
