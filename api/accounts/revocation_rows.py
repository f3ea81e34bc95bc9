"""The feed of revocations: users whose data edges must forget, and ended tokens. Edges read it every second.

There is one row per (kind, subject). If the event happens again, the row is written again with a later ``noted_at``.

    session   an ended session: its access tokens and part URLs have ended
    user      an account with a change that edges must notice (a file was trashed, its links were ended, it was
              disabled): an edge asks again for everything that it remembers of it. Tokens of a generation below
              ``generation`` have ended too
    link      one link that has ended

So an account has one row of the kind ``user``, whatever it does, and a bounded number of ended sessions
(`api.accounts.revocations`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from api.db.pool import Row, Statements, placeholders
from api.db.times import from_row, to_row

PAGE = 10_000

# noted_at always grows when a row is written again: an edge tells by it whether it has seen the row.
_NOTE = (
    "INSERT INTO revocation (kind, subject, generation, noted_at, expires_at) VALUES (%s, %s, %s, %s, %s) "
    "ON DUPLICATE KEY UPDATE generation = GREATEST(generation, VALUES(generation)), "
    "noted_at = GREATEST(noted_at + INTERVAL 1 MICROSECOND, VALUES(noted_at)), "
    "expires_at = GREATEST(expires_at, VALUES(expires_at))"
)
_COLUMNS = "kind, subject, generation, noted_at, expires_at"
_SINCE = (
    f"SELECT {_COLUMNS} FROM revocation FORCE INDEX (revocation_noted) WHERE noted_at >= %s AND expires_at > %s "
    f"ORDER BY noted_at LIMIT {PAGE}"
)
_OVER = "SELECT kind, subject FROM revocation WHERE expires_at < %s LIMIT 1000"
_PRUNE = "DELETE FROM revocation WHERE expires_at < %s AND (kind, subject) IN "


@dataclass(frozen=True, slots=True)
class Revocation:
    """A row; see above.

    Attributes:
        generation: the lowest one whose tokens are still valid.
        expires_at: when the last token that the row ends, and the last cached answer that it outdates, has expired.
    """

    kind: str
    subject: bytes
    generation: int
    noted_at: datetime
    expires_at: datetime


def note(db: Statements, kind: str, subject: bytes, generation: int, now: datetime, expires_at: datetime) -> None:
    """Writes a row, or writes it again, as the last statement of the transaction that causes it.

    Concurrent changes of one account wait here, each for the commit of the one before. As the last statement it takes
    no lock afterwards, so it cannot cause a deadlock.
    """
    db.execute(_NOTE, (kind, subject, generation, to_row(now), to_row(expires_at)))


def _revocation(row: Row) -> Revocation:
    kind, subject, generation, noted_at, expires_at = row
    return Revocation(kind, subject, generation, from_row(noted_at), from_row(expires_at))


def since(db: Statements, moment: datetime, now: datetime) -> tuple[list[Revocation], bool]:
    """The rows in force that were noted at that moment or later, in that order, and whether there are more.

    Rows may commit in another order: an edge reads the last 10 s again each time (lua/sluice/identity/revocation.lua).
    """
    found = [_revocation(row) for row in db.all(_SINCE, (to_row(moment), to_row(now)))]
    return found, len(found) == PAGE


def prune(db: Statements, before: datetime) -> int:
    """Deletes up to 1,000 rows that were over before then.

    By their keys: a range of the index of times would be locked in another order than `note` locks.
    """
    over = db.all(_OVER, (to_row(before),))
    if not over:
        return 0
    keys = [value for row in over for value in row]
    return db.execute(f"{_PRUNE}({placeholders(len(over), '(%s, %s)')})", [to_row(before), *keys])
