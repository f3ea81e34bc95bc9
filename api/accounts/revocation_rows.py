"""The rows that end tokens, and the feed of them that edges read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from api.db.pool import Row, Statements, placeholders
from api.db.times import from_row, to_row

OVERLAP = timedelta(seconds=10)
"""Ids commit out of order: the feed repeats what was made in this last while."""

PAGE = 10_000

_INSERT = "INSERT INTO revocation (kind, subject, generation, created_at, expires_at) VALUES "
_ROW = "(%s, %s, %s, %s, %s)"
_COLUMNS = "id, kind, subject, generation, expires_at"
_SINCE = f"SELECT {_COLUMNS} FROM revocation WHERE id > %s AND expires_at > %s ORDER BY id LIMIT {PAGE}"
_RECENT = f"SELECT {_COLUMNS} FROM revocation WHERE created_at > %s"
_PRUNE = "DELETE FROM revocation WHERE expires_at < %s LIMIT 1000"


@dataclass(frozen=True, slots=True)
class Revocation:
    """Ends the tokens of (kind, subject) whose generation is at most this one.

    Attributes:
        kind: session, user, file, link or share.
        expires_at: when the last token that it ends has expired by itself.
    """

    id: int
    kind: str
    subject: bytes
    generation: int
    expires_at: datetime


def insert(
    db: Statements, kind: str, subjects: Sequence[bytes], generation: int, now: datetime, expires_at: datetime
) -> None:
    """Writes one row a subject, in the transaction of whatever causes it."""
    if subjects:
        args = [value for subject in subjects for value in (kind, subject, generation, to_row(now), to_row(expires_at))]
        db.execute(_INSERT + placeholders(len(subjects), _ROW), args)


def _revocation(row: Row) -> Revocation:
    number, kind, subject, generation, expires_at = row
    return Revocation(number, kind, subject, generation, from_row(expires_at))


def since(db: Statements, last_id: int, now: datetime) -> tuple[list[Revocation], bool]:
    """The rows in force after ``last_id``, and whether there are more; first those of the last seconds."""
    newer = [_revocation(row) for row in db.all(_SINCE, (last_id, to_row(now)))]
    recent = [_revocation(row) for row in db.all(_RECENT, (to_row(now - OVERLAP),))]
    seen = {row.id for row in newer}
    return [row for row in recent if row.id not in seen] + newer, len(newer) == PAGE


def prune(db: Statements, before: datetime) -> int:
    """Deletes up to 1,000 rows that no longer end anything."""
    return db.execute(_PRUNE, (to_row(before),))
