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

# Tables with the columns storage and object_key, and a unique index over both. Uploads count whatever their state:
# an ended one's row is kept for a while, and what it left is freed by it, not by the sweep for orphans.
_OBJECTS: Final = ("replica", "upload", "doomed", "transfer_item", "healing")
_UPLOADS: Final = ("upload", "transfer_item", "healing")


def objects(db: Statements, storage: str, keys: Sequence[str]) -> set[str]:
    """Those of up to `BATCH` object keys that a row names."""
    return _named(db, _OBJECTS, storage, keys)


def uploads(db: Statements, storage: str, keys: Sequence[str]) -> set[str]:
    """Those of up to `BATCH` object keys whose multipart uploads a row names."""
    return _named(db, _UPLOADS, storage, keys)


def _named(db: Statements, tables: Sequence[str], storage: str, keys: Sequence[str]) -> set[str]:
    if not keys:
        return set()
    one = f"storage = %s AND object_key IN ({placeholders(len(keys))})"
    sql = " UNION ALL ".join(f"SELECT object_key FROM {table} WHERE {one}" for table in tables)
    return set(db.column(sql, [storage, *keys] * len(tables)))
