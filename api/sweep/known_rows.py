"""Finds out which objects and multipart uploads have a row in the database.

A row with a key is committed before anything is stored under that key. Keys are random and never used again. So if an
object was listed before the rows were read, and no row has its key, it is garbage and stays garbage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from api.db.pool import Statements, placeholders

BATCH: Final = 1000
"""Most keys per look-up."""

# (table, column) with a unique index over storage and that column. Uploads count in every state: the row of an ended
# upload is kept for a while, and its remains are freed by means of that row, not as orphans.
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
    """The keys, of at most `BATCH`, that have a row."""
    return _named(db, _OBJECTS, storage, keys)


def uploads(db: Statements, storage: str, keys: Sequence[str]) -> set[str]:
    """The keys, of at most `BATCH`, whose multipart upload has a row or whose object is a replica."""
    return _named(db, _UPLOADS, storage, keys)


def replicas(db: Statements, storage: str, keys: Sequence[str]) -> set[str]:
    """The keys, of at most `BATCH`, that are replicas. An open upload of such a key must not be aborted."""
    return _named(db, (_REPLICA,), storage, keys)


def _named(db: Statements, columns: Sequence[tuple[str, str]], storage: str, keys: Sequence[str]) -> set[str]:
    if not keys:
        return set()
    among = placeholders(len(keys))
    sql = " UNION ALL ".join(
        f"SELECT {column} FROM {table} WHERE storage = %s AND {column} IN ({among})" for table, column in columns
    )
    return set(db.column(sql, [storage, *keys] * len(columns)))
