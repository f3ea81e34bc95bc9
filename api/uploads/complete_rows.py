"""Uploads of one PUT that are done, many in one statement, each with its blob and file.

The statements are those of `api.uploads.rows`, `blobs` and `files`, for rows that no other transaction can know of: an
upload that goes from uploading to done in the transaction that makes its blob.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from api.core.models import File, Upload
from api.db.pool import Statements, placeholders
from api.db.times import to_row

_DONE = (
    "UPDATE upload SET state = 'done', completes = LEAST(completes, 254) + 1, received = %s, open_key = NULL, "
    "failure = NULL, updated_at = %s, file_id = CASE id"
)
_BLOB = "INSERT INTO `blob` (id, size, digest, scope, state, created_at, verified_at) VALUES "
_CLAIM = "INSERT INTO blob_digest (digest, scope, blob_id) VALUES "
_PARTS = "INSERT INTO blob_parts (blob_id, hashes) VALUES "
_REPLICA = "INSERT INTO replica (blob_id, storage, object_key, created_at) VALUES "
_FILE = "INSERT INTO file (id, user_id, folder_id, name, blob_id, content_type, created_at, updated_at) VALUES "


@dataclass(frozen=True, slots=True)
class Done:
    """The result of one upload: its file, on a new blob. ``hash`` is the hash of its only part."""

    upload: Upload
    file: File
    hash: bytes


def finish(tx: Statements, every: Sequence[Done], scope: bytes, now: datetime) -> bool:
    """uploading → done, with a verified blob and a file each. Returns False if one of them has left that state.

    On False, and on an error, the caller rolls back.

    Raises:
        DuplicateRow: another blob has one of the digests.
    """
    moment, ids = to_row(now), [done.upload.id for done in every]
    sql = f"{_DONE}{' WHEN %s THEN %s' * len(ids)} END WHERE state = 'uploading' AND id IN ({placeholders(len(ids))})"
    files = [value for done in every for value in (done.upload.id, done.file.id)]
    if tx.execute(sql, [b"\x01", moment, *files, *ids]) != len(every):
        return False
    blobs = [(done.file.blob_id, done.file.size, done.file.digest, scope, "verified", moment, moment) for done in every]
    _many(tx, _BLOB, blobs)
    _many(tx, _CLAIM, [(done.file.digest, scope, done.file.blob_id) for done in every])
    _many(tx, _PARTS, [(done.file.blob_id, done.hash) for done in every])
    _many(tx, _REPLICA, [(d.file.blob_id, d.upload.storage, d.upload.object_key, moment) for d in every])
    _many(
        tx,
        _FILE,
        [
            (f.id, f.user_id, f.folder_id, f.name, f.blob_id, f.content_type, moment, moment)
            for f in (d.file for d in every)
        ],
    )
    return True


def _many(tx: Statements, sql: str, rows: Sequence[Sequence[object]]) -> None:
    """One INSERT of several rows."""
    tx.execute(
        sql + placeholders(len(rows), f"({placeholders(len(rows[0]))})"), [value for row in rows for value in row]
    )
