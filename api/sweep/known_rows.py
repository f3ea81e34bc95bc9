"""Which objects and multipart uploads a row names: the one place that says so.

A row is committed before anything is stored under the key that it names, and keys are random and never used twice.
So what no row names although it was listed earlier is nobody's, and nobody's it stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from api.db.pool import Statements, placeholders

BATCH: Final = 1000
"""Keys that are looked up at once."""

# (table, column) with a unique index over storage and that column. Uploads count whatever their state: an ended one's
# row is kept for a while, and what it left is freed by it, not by the sweep for orphans.
_REPLICA: Final = ("replica", "object_key")
_WORK: Final = (
    ("upload", "object_key"),
    ("upload", "copy_key"),
    ("transfer_item", "object_key"),
    ("healing", "object_key"),
)
_OBJECTS: Final = (_REPLICA, ("doomed", "object_key"), *_WORK)
# Ceph RGW may leave the upload of a finished object open, and deletes the object's bytes with it.
_UPLOADS: Final = (_REPLICA, *_WORK)


def objects(db: Statements, storage: str, keys: Sequence[str]) -> set[str]:
    """Those of up to `BATCH` object keys that a row names."""
    return _named(db, _OBJECTS, storage, keys)


def uploads(db: Statements, storage: str, keys: Sequence[str]) -> set[str]:
    """Those of up to `BATCH` object keys whose multipart uploads a row names, or whose object is a replica."""
    return _named(db, _UPLOADS, storage, keys)


def replicas(db: Statements, storage: str, keys: Sequence[str]) -> set[str]:
    """Those of up to `BATCH` object keys that are a replica's: an open upload of one must not be aborted."""
    return _named(db, (_REPLICA,), storage, keys)


def _named(db: Statements, columns: Sequence[tuple[str, str]], storage: str, keys: Sequence[str]) -> set[str]:
    if not keys:
        return set()
    among = placeholders(len(keys))
    sql = " UNION ALL ".join(
        f"SELECT {column} FROM {table} WHERE storage = %s AND {column} IN ({among})" for table, column in columns
    )
    return set(db.column(sql, [storage, *keys] * len(columns)))
