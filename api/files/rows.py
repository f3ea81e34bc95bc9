"""Rows of users' files: named entries that refer to blobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from api.core.models import File
from api.db.pool import Row, Statements
from api.db.times import from_nullable, to_row

_FILE = (
    "f.id, f.user_id, f.folder_id, f.name, f.blob_id, f.content_type, f.link_generation, f.created_at, "
    "f.updated_at, f.trashed_at, b.size, b.digest, b.state, b.sha256"
)
_FROM = "FROM file f JOIN `blob` b ON b.id = f.blob_id"
# Left alone, the optimizer intersects the indexes of user and trash and sorts all of a user's files, or reads
# all users' files in order of ids. Seen with 100,000 files: a page of 50 read 200,000 rows.
_NEWEST = "FROM file f FORCE INDEX (file_newest)"
_BY_NAME = "FROM file f FORCE INDEX (file_by_name)"
# Left alone, the optimizer begins with the blobs if these are few, or joins them in blocks, and sorts all of a user's
# files.
_BLOB = "STRAIGHT_JOIN `blob` b FORCE INDEX (PRIMARY) ON b.id = f.blob_id"
SEARCHED = 10_000
"""Most entries that a list reads if no index has its order: a search, a digest, the trash by name."""
# Those that are looked at, before they are sorted: an account may have a million files on one content, or in its trash.
_OF_DIGEST = (
    "FROM (SELECT of.id FROM `blob` ob FORCE INDEX (blob_by_digest) STRAIGHT_JOIN file of FORCE INDEX (file_blob) "
    f"ON of.blob_id = ob.id AND of.user_id = %s WHERE ob.digest = %s LIMIT {SEARCHED}) few "
    "STRAIGHT_JOIN file f ON f.id = few.id"
)
_OF_TRASH = (
    "FROM (SELECT id FROM file FORCE INDEX (file_newest) WHERE user_id = %s AND trashed_at IS NOT NULL "
    f"ORDER BY trashed_at DESC, id DESC LIMIT {SEARCHED}) few STRAIGHT_JOIN file f ON f.id = few.id"
)
# The lock on the blob's row is what a deletion of the blob waits for; a blob that is no longer usable gives no row.
_LINK = (
    "INSERT INTO file (id, user_id, folder_id, name, blob_id, content_type, created_at, updated_at) "
    "SELECT %s, %s, %s, %s, b.id, %s, %s, %s FROM `blob` b WHERE b.id = %s AND b.state = %s "
    "LOCK IN SHARE MODE"
)
_BY_ID = f"SELECT {_FILE} {_FROM} WHERE f.id = %s AND f.user_id = %s"
_ANY_ON = (
    f"SELECT STRAIGHT_JOIN {_FILE} FROM replica r JOIN `blob` b ON b.id = r.blob_id JOIN file f ON f.blob_id = b.id "
    "JOIN user u ON u.id = f.user_id WHERE r.storage = %s AND b.state = 'verified' AND f.trashed_at IS NULL "
    "AND u.disabled_at IS NULL AND NOT EXISTS (SELECT 1 FROM replica o WHERE o.blob_id = b.id AND o.storage <> %s) "
    "ORDER BY r.object_key LIMIT 1"
)
_RENAME = "UPDATE file SET name = %s, updated_at = %s WHERE id = %s AND user_id = %s AND trashed_at IS NULL"
_TRASH = (
    "UPDATE file SET trashed_at = %s, updated_at = %s, link_generation = link_generation + 1 "
    "WHERE id = %s AND user_id = %s AND link_generation = %s AND trashed_at IS NULL"
)
_END_LINKS = (
    "UPDATE file SET link_generation = link_generation + 1 WHERE id = %s AND user_id = %s AND link_generation = %s"
)
_RESTORE = (
    "UPDATE file SET trashed_at = NULL, updated_at = %s WHERE id = %s AND user_id = %s AND trashed_at IS NOT NULL"
)


def link_blob(db: Statements, file: File, state: str = "verified") -> bool:
    """Writes a new file on a blob that is verified at this moment. Returns False if it is not verified.

    Args:
        state: "unverified" only for the uploader's file on the blob that was just uploaded.
    """
    created, updated = to_row(file.created_at), to_row(file.updated_at)
    args = (file.id, file.user_id, file.folder_id, file.name, file.content_type, created, updated, file.blob_id, state)
    return db.execute(_LINK, args) == 1


def _file(row: Row) -> File:
    values = list(row)
    for moment in (7, 8, 9):
        values[moment] = from_nullable(values[moment])
    return File(*values)


def by_id(db: Statements, file_id: bytes, user_id: bytes) -> File | None:
    """A file of this user, in the trash or not."""
    row = db.one(_BY_ID, (file_id, user_id))
    return _file(row) if row else None


def any_on(db: Statements, storage: str) -> File | None:
    """Any downloadable file that is on this storage only."""
    row = db.one(_ANY_ON, (storage, storage))
    return _file(row) if row else None


def rename(db: Statements, file_id: bytes, user_id: bytes, name: str, now: datetime) -> bool:
    """Renames a live file. Returns False if there is none."""
    return db.execute(_RENAME, (name, to_row(now), file_id, user_id)) == 1


def trash(db: Statements, file: File, now: datetime) -> bool:
    """Moves a live file to the trash and ends its links' generation. Returns False if it changed meanwhile."""
    moment = to_row(now)
    return db.execute(_TRASH, (moment, moment, file.id, file.user_id, file.link_generation)) == 1


def end_links(db: Statements, file: File) -> bool:
    """Invalidates the links of the file's current generation. Returns False if another call just did."""
    return db.execute(_END_LINKS, (file.id, file.user_id, file.link_generation)) == 1


def restore(db: Statements, file_id: bytes, user_id: bytes, now: datetime) -> bool:
    """Restores a file from the trash. Returns False if it is not in the trash."""
    return db.execute(_RESTORE, (to_row(now), file_id, user_id)) == 1


Key = tuple[str | bytes, ...]
"""An entry's position in a listing: its values of `_key_columns`, with times as text."""


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters of a listing.

    Attributes:
        order: ``newest`` or ``name``.
        after: the last entry of the page before.
    """

    user_id: bytes
    order: str
    limit: int
    trashed: bool = False
    after: Key = ()
    folder_id: bytes | None = None
    text: str | None = None
    digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing.

    Attributes:
        after: the position after which the next page begins; None if there is no next page.
    """

    files: Sequence[File]
    after: Key | None


def page(db: Statements, query: Query) -> Page:
    """Up to ``limit`` files in order.

    If no index has this order, the entries are sorted, and at most 10,000 of them are read. For a search these are the
    next 10,000 names after ``after``, so a page may be short and yet not the last. For a digest, and for the trash in
    order of names, they are 10,000 in total.
    """
    end = _end_of_search(db, query)
    where, args = _conditions(query)
    columns, ascending = _key_columns(query)
    if end is not None:
        behind, more = _beyond(columns, end, ">" if ascending else "<")
        where.append(f"NOT {behind}")
        args += more
    for condition, value in _filters(query):
        where.append(condition)
        args.append(value)
    source, before = _source(query)
    order = _order(columns, ascending)
    sql = f"SELECT {_FILE} {source} {_BLOB} WHERE {' AND '.join(where)} ORDER BY {order} LIMIT %s"
    found = [_file(row) for row in db.all(sql, [*before, *args, query.limit + 1])]
    if len(found) <= query.limit:
        return Page(found, end)
    return Page(found[: query.limit], _key_of(found[query.limit - 1], columns))


def _key_columns(query: Query) -> tuple[tuple[str, ...], bool]:
    """The columns that a listing is sorted by, and whether it ascends."""
    if query.order == "name":
        return ("name", "id"), True
    if query.trashed and query.digest is None:
        return ("trashed_at", "id"), False
    return ("id",), False


def _order(columns: Sequence[str], ascending: bool) -> str:
    return ", ".join(f"f.{column}{'' if ascending else ' DESC'}" for column in columns)


def _key_of(file: File, columns: Sequence[str]) -> Key:
    values: list[str | bytes] = []
    for column in columns:
        value = getattr(file, column)
        values.append(value if isinstance(value, (str, bytes)) else str(to_row(value)))
    return tuple(values)


def _beyond(columns: Sequence[str], key: Key, comparison: str) -> tuple[str, list[object]]:
    """A condition for entries before (<) or after (>) a key."""
    if len(columns) == 1:
        return f"f.{columns[0]} {comparison} %s", [*key]
    first, second = columns
    # the first part alone is a range of the index
    sql = f"(f.{first} {comparison}= %s AND (f.{first} {comparison} %s OR f.{second} {comparison} %s))"
    return sql, [key[0], *key]


def _end_of_search(db: Statements, query: Query) -> Key | None:
    """The last entry that a search reads; None if it reaches the end of the list. Uses only the index."""
    if query.text is None or _is_few(query):
        return None
    where, args = _conditions(query)
    columns, ascending = _key_columns(query)
    source, before = _source(query)
    row = db.one(
        f"SELECT {', '.join(f'f.{column}' for column in columns)} {source} WHERE {' AND '.join(where)} "
        f"ORDER BY {_order(columns, ascending)} LIMIT 1 OFFSET %s",
        [*before, *args, SEARCHED - 1],
    )
    return tuple(value if isinstance(value, (str, bytes)) else str(value) for value in row) if row else None


def _is_few(query: Query) -> bool:
    """Whether the entries are limited before they are sorted."""
    return query.digest is not None or (query.trashed and query.order == "name")


def _source(query: Query) -> tuple[str, list[object]]:
    if query.digest is not None:
        return _OF_DIGEST, [query.user_id, query.digest]
    if query.trashed:
        return (_OF_TRASH, [query.user_id]) if query.order == "name" else (_NEWEST, [])
    return (_BY_NAME if query.order == "name" else _NEWEST), []


def _conditions(query: Query) -> tuple[list[str], list[object]]:
    """Conditions for the user, live or trashed files, and the start position."""
    where = ["f.user_id = %s", f"f.trashed_at IS {'NOT NULL' if query.trashed else 'NULL'}"]
    args: list[object] = [query.user_id]
    if query.after:
        columns, ascending = _key_columns(query)
        condition, more = _beyond(columns, query.after, ">" if ascending else "<")
        where.append(condition)
        args += more
    return where, args


def _filters(query: Query) -> Sequence[tuple[str, object]]:
    filters: list[tuple[str, object]] = []
    if query.folder_id is not None:
        filters.append(("f.folder_id = %s", query.folder_id))
    if query.text is not None:
        escaped = query.text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        filters.append(("f.name COLLATE utf8mb4_general_ci LIKE %s", f"%{escaped}%"))
    return filters
