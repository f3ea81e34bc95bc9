"""Statements that begin a list of uploads: what is known of them, and their rows in one INSERT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from api.core.models import Upload
from api.db.pool import Statements, placeholders
from api.uploads.rows import COLUMNS, OPEN_TOTALS, row_of

_UPLOADS = "SELECT u.open_key AS name, u.id, 0 AS size FROM upload u WHERE u.open_key IN "
_BLOBS = (
    "SELECT d.digest AS name, b.id, b.size FROM blob_digest d JOIN `blob` b ON b.id = d.blob_id "
    "AND b.state = 'verified' "
    # content whose object is gone is taken again: its owner is who can heal it
    "AND EXISTS (SELECT 1 FROM replica r WHERE r.blob_id = b.id AND r.missing_at IS NULL) "
    "AND EXISTS (SELECT 1 FROM file f WHERE f.blob_id = b.id AND f.user_id = %s AND f.trashed_at IS NULL) "
    "WHERE d.scope = %s AND d.digest IN "
)
_INSERT = f"INSERT INTO upload ({COLUMNS}) "
_ROW = placeholders(len(COLUMNS.split(", ")))
_WITHIN = f" FROM DUAL WHERE EXISTS ({OPEN_TOTALS} HAVING uploads + %s <= %s AND parts + %s <= %s)"
_RECORD = "INSERT INTO upload_part (upload_id, part_number, sha256) VALUES "


@dataclass(frozen=True, slots=True)
class Known:
    """Existing rows that make new uploads unnecessary.

    Attributes:
        uploads: unfinished uploads by open key.
        blobs: verified blobs that the user has a live file on, by digest and size.
    """

    uploads: Mapping[bytes, bytes]
    blobs: Mapping[tuple[bytes, int], bytes]


def known(
    db: Statements, keys: Sequence[bytes | None], digests: Sequence[bytes | None], user_id: bytes, scope: bytes
) -> Known:
    """Looks for unfinished uploads with these open keys, and for the user's own content with these digests.

    Content of others is not looked for: a client that lacks it must not learn from an answer, nor from its time, that
    it is stored.
    """
    keys, digests = [key for key in keys if key], [digest for digest in digests if digest]
    parts, args = [], list[object]()
    if keys:
        parts.append(f"{_UPLOADS}({placeholders(len(keys))})")
        args += keys
    if digests:
        parts.append(f"{_BLOBS}({placeholders(len(digests))})")
        args += [user_id, scope, *digests]
    found = db.all(" UNION ALL ".join(parts), args) if parts else ()
    uploads = {row.name: row.id for row in found if row.name in keys}
    return Known(uploads, {(row.name, row.size): row.id for row in found if row.name not in uploads})


def insert(tx: Statements, new: Sequence[tuple[Upload, bytes | None]], most: int, most_parts: int) -> bool:
    """New unfinished uploads of one user with their open keys; the caller holds the user's lock.

    Returns:
        False, with nothing written, if the user's unfinished uploads would be more than ``most``, or have more than
        ``most_parts`` parts.

    Raises:
        DuplicateRow: the same unfinished upload is there already.
    """
    limits = (new[0][0].user_id, len(new), most, sum(upload.part_count for upload, _ in new), most_parts)
    values = [value for upload, key in new for value in row_of(upload, key)]
    if len(new) == 1:
        return tx.execute(f"{_INSERT}SELECT {_ROW}{_WITHIN}", [*values, *limits]) == 1
    first = ", ".join(f"%s AS {name}" for name in COLUMNS.split(", "))
    every = f"SELECT {first}" + f" UNION ALL SELECT {_ROW}" * (len(new) - 1)
    sql = f"{_INSERT}SELECT new.* FROM ({every}) new WHERE EXISTS {_WITHIN.partition('EXISTS ')[2]}"
    return tx.execute(sql, [*values, *limits]) == len(new)


def insert_done(tx: Statements, uploads: Sequence[Upload]) -> None:
    """Uploads that are done immediately: no limit counts them, and nothing finds them again."""
    if uploads:
        values = [value for upload in uploads for value in row_of(upload, None)]
        tx.execute(f"{_INSERT}VALUES {placeholders(len(uploads), f'({_ROW})')}", values)


def record_parts(tx: Statements, parts: Sequence[tuple[bytes, Mapping[int, str]]]) -> None:
    """Hashes of parts of uploads that are made in this transaction: (upload, hexadecimal hashes by number)."""
    args: list[object] = []
    for upload_id, hashes in parts:
        for number, sha256 in hashes.items():
            args += (upload_id, number, bytes.fromhex(sha256))
    if args:
        tx.execute(_RECORD + placeholders(len(args) // 3, "(%s, %s, %s)"), args)
