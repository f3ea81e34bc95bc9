"""Expired and ended uploads, as the sweep looks for them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from api.core.models import SINGLE_PUT, Upload
from api.db.pool import Statements, placeholders
from api.db.times import to_row
from api.uploads.rows import AS_VALUE, of_value

_EXPIRED = f"SELECT {AS_VALUE} FROM upload u WHERE u.state IN ('proving', 'uploading') AND u.expires_at < %s LIMIT 100"
_WITH_PARTS = (
    "SELECT id FROM upload WHERE parts_kept = 1 AND state IN ('done', 'failed', 'aborted', 'expired') "
    "AND (state = 'done' OR multipart_id <> %s) LIMIT 100"
)
_SINGLES = (
    f"SELECT {AS_VALUE} FROM upload u WHERE u.parts_kept = 1 AND u.state = %s AND u.id > %s AND u.multipart_id = %s "
    "AND u.updated_at < %s ORDER BY u.id LIMIT 100"
)
_BEFORE = "SELECT id FROM upload WHERE state IN ('done', 'failed', 'aborted', 'expired') AND updated_at < %s LIMIT 100"
_AMONG = f"SELECT {AS_VALUE} FROM upload u WHERE u.state IN ('done', 'failed', 'aborted', 'expired') AND u.id IN "
_PRUNE_PARTS = "DELETE FROM upload_part WHERE upload_id = %s LIMIT 5000"
_FREE_AGAIN = (
    "UPDATE upload SET parts_kept = 1 WHERE parts_kept = 0 AND multipart_id = %s "
    "AND state IN ('failed', 'aborted', 'expired') AND storage = %s AND object_key IN "
)
_PARTS_PRUNED = "UPDATE upload SET parts_kept = 0 WHERE id = %s"
_DELETE = "DELETE FROM upload WHERE id = %s AND state IN ('done', 'failed', 'aborted', 'expired')"


def expired(db: Statements, now: datetime) -> list[Upload]:
    """Up to 100 unfinished uploads that have expired."""
    return [of_value(row[0]) for row in db.all(_EXPIRED, (to_row(now),))]


def before(db: Statements, moment: datetime) -> list[bytes]:
    """Up to 100 uploads that ended before then."""
    return db.column(_BEFORE, (to_row(moment),))


def among(db: Statements, ids: Sequence[bytes]) -> list[Upload]:
    """Those of these uploads that have ended."""
    return [of_value(row[0]) for row in db.all(f"{_AMONG}({placeholders(len(ids))})", ids)]


def with_parts(db: Statements) -> list[bytes]:
    """Up to 100 ended uploads whose part rows are still there, but for those of `singles`."""
    return db.column(_WITH_PARTS, (SINGLE_PUT,))


def singles(db: Statements, state: str, before: datetime, after: bytes) -> list[Upload]:
    """Up to 100 uploads of one PUT that ended so before then, in the order of ids: their objects may be there."""
    return [of_value(row[0]) for row in db.all(_SINGLES, (state, after, SINGLE_PUT, to_row(before)))]


def free_again(db: Statements, storage: str, keys: Sequence[str]) -> None:
    """Makes those of `singles` again whose objects are there although they were deleted: a PUT came late."""
    if keys:
        db.execute(f"{_FREE_AGAIN}({placeholders(len(keys))})", (SINGLE_PUT, storage, *keys))


def prune_parts(db: Statements, upload_id: bytes) -> None:
    """Deletes an ended upload's part rows, 5,000 a statement."""
    while db.execute(_PRUNE_PARTS, (upload_id,)) == 5000:
        pass
    db.execute(_PARTS_PRUNED, (upload_id,))


def delete(db: Statements, upload_id: bytes) -> None:
    """Deletes an ended upload's row."""
    db.execute(_DELETE, (upload_id,))
