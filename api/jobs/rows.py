"""Rows of background work: who may do what is to do, when, and how it went.

A lease that ends further away than any process gives one is not believed: a clock that was wrong wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from api.db.pool import Statements, placeholders
from api.db.records import record, records
from api.db.times import to_row

LEASE: Final = timedelta(seconds=30)
_SKEW: Final = timedelta(seconds=2)
"""How far the clocks of two machines may lie apart before a row that is due waits for the feeder."""
_MOST_ROWS: Final = 1000
"""Rows of one INSERT."""

_COLUMNS = "(kind, subject, state, due_at, enqueued_at, created_at, updated_at)"
_INSERT = f"INSERT INTO job {_COLUMNS} VALUES "
_AGAIN = (
    " ON DUPLICATE KEY UPDATE tries = IF(state = 'dead', 0, tries), state = 'waiting', "
    "due_at = LEAST(due_at, VALUES(due_at)), updated_at = VALUES(updated_at)"
)
_FREE = "(lease_until IS NULL OR lease_until < %s OR lease_until > %s)"
_TAKE = (
    # who held it before and did not give it back has died of it, perhaps: that counts as a failure
    "UPDATE job SET tries = tries + IF(lease_owner IS NULL, 0, 1), lease_owner = %s, lease_until = %s, "
    f"updated_at = %s WHERE subject = %s AND kind = %s AND state = 'waiting' AND due_at <= %s AND {_FREE}"
)
_TAKEN = "SELECT tries, place, memo FROM job WHERE subject = %s AND kind = %s AND lease_owner = %s"
_HOLDS = "SELECT 1 FROM job WHERE subject = %s AND kind = %s AND lease_owner = %s"
_KEEP = "UPDATE job SET lease_until = %s WHERE subject = %s AND kind = %s AND lease_owner = %s"
_SAVE = (
    "UPDATE job SET place = %s, memo = %s, tries = 0, lease_until = %s, updated_at = %s "
    "WHERE subject = %s AND kind = %s AND lease_owner = %s"
)
_END = "DELETE FROM job WHERE subject = %s AND kind = %s AND lease_owner = %s"
_RELEASE = (
    "UPDATE job SET tries = IF(%s, tries, 0), due_at = %s, enqueued_at = %s, lease_owner = NULL, lease_until = NULL, "
    "updated_at = %s WHERE subject = %s AND kind = %s AND lease_owner = %s"
)
_FAIL = (
    "UPDATE job SET state = %s, tries = tries + 1, due_at = %s, enqueued_at = NULL, lease_owner = NULL, "
    "lease_until = NULL, reason = %s, message = %s, updated_at = %s "
    "WHERE subject = %s AND kind = %s AND lease_owner = %s"
)
_DELETE = "DELETE FROM job WHERE subject = %s"
_DELETE_MANY = "DELETE FROM job WHERE subject IN "
# Without a condition the index is hopped through, kind by kind; with one on the state, every row that waits is read.
_KINDS = "SELECT DISTINCT state, kind FROM job"
_DUE = (
    "SELECT subject FROM job WHERE state = 'waiting' AND kind = %s AND due_at <= %s "
    f"AND (enqueued_at IS NULL OR enqueued_at < %s OR enqueued_at > %s) AND {_FREE} ORDER BY due_at LIMIT %s"
)
_ENQUEUED = "UPDATE job SET enqueued_at = %s WHERE kind = %s AND subject IN "
_COUNT = (
    "SELECT %s AS kind, %s AS state, COUNT(*) AS `rows`, COALESCE(SUM(lease_until >= %s), 0) AS running, "
    "COALESCE(SUM(due_at > %s), 0) AS `delayed`, MIN(created_at) AS oldest "
    "FROM (SELECT lease_until, due_at, created_at FROM job WHERE state = %s AND kind = %s "
    "ORDER BY due_at LIMIT 100000) counted"
)
_DEAD = (
    "SELECT kind, subject, tries, COALESCE(reason, '') AS reason, COALESCE(message, '') AS message, created_at, "
    "updated_at FROM job WHERE state = 'dead' ORDER BY state, kind, due_at LIMIT %s"
)
_RETRY = (
    "UPDATE job SET state = 'waiting', tries = 0, due_at = %s, enqueued_at = NULL, updated_at = %s WHERE state = 'dead'"
)


@dataclass(frozen=True, slots=True)
class Taken:
    """A row whose lease is ours."""

    tries: int
    place: int
    memo: bytes | None


@dataclass(frozen=True, slots=True)
class Count:
    """The rows of one kind and state, of which 100,000 are looked at.

    Attributes:
        running: of them, those under a lease.
        delayed: of them, those that are not due yet.
        oldest: when the oldest of them was made.
    """

    kind: str
    state: str
    rows: int
    running: int
    delayed: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Dead:
    """A job that is not tried again by itself, and why."""

    kind: str
    subject: bytes
    tries: int
    reason: str
    message: str
    created_at: datetime
    updated_at: datetime


def insert(db: Statements, kind: str, subject: bytes, now: datetime, due_at: datetime | None = None) -> None:
    """There is work, due now or then. Due now, it counts as enqueued: the caller does so after the commit."""
    moment = to_row(now)
    enqueued = moment if due_at is None else None
    due = moment if due_at is None else to_row(due_at)
    db.execute(_INSERT + "(%s, %s, 'waiting', %s, %s, %s, %s)" + _AGAIN, (kind, subject, due, enqueued, moment, moment))


def insert_many(
    db: Statements, kind: str, subjects: Sequence[bytes], now: datetime, due_at: datetime | None = None
) -> None:
    """The same for many, which the feeder enqueues bit by bit."""
    moment = to_row(now)
    for first in range(0, len(subjects), _MOST_ROWS):
        args: list[object] = []
        for subject in subjects[first : first + _MOST_ROWS]:
            args += (kind, subject, to_row(due_at) if due_at else moment, moment, moment)
        rows = placeholders(len(args) // 5, "(%s, %s, 'waiting', %s, NULL, %s, %s)")
        db.execute(_INSERT + rows + _AGAIN, args)


def delete(db: Statements, subject: bytes) -> None:
    """Nothing is to do for this subject any more; whoever deletes a blob calls this first."""
    db.execute(_DELETE, (subject,))


def delete_many(db: Statements, subjects: Sequence[bytes]) -> None:
    """The same for many."""
    for first in range(0, len(subjects), _MOST_ROWS):
        some = subjects[first : first + _MOST_ROWS]
        db.execute(f"{_DELETE_MANY}({placeholders(len(some))})", some)


# -- a lease


def _free(now: datetime) -> tuple[datetime, datetime]:
    return to_row(now), to_row(now + 2 * LEASE)


def take(db: Statements, kind: str, subject: bytes, owner: bytes, now: datetime) -> Taken | None:
    """Makes this run the one that does the work; None where it is done, dead, not due, or another's."""
    args = (owner, to_row(now + LEASE), to_row(now), subject, kind, to_row(now + _SKEW), *_free(now))
    if db.execute(_TAKE, args) != 1:
        return None
    row = db.one(_TAKEN, (subject, kind, owner))
    return record(Taken, row) if row else None


def keep(db: Statements, kind: str, subject: bytes, owner: bytes, now: datetime) -> bool:
    """Extends the lease; False where it was lost."""
    changed = db.execute(_KEEP, (to_row(now + LEASE), subject, kind, owner)) == 1
    return changed or _holds(db, kind, subject, owner)


def save(
    db: Statements, kind: str, subject: bytes, owner: bytes, place: int, memo: bytes | None, now: datetime
) -> bool:
    """Keeps how far the work is, and extends the lease; False where it was lost."""
    args = (place, memo, to_row(now + LEASE), to_row(now), subject, kind, owner)
    return db.execute(_SAVE, args) == 1 or _holds(db, kind, subject, owner)


def _holds(db: Statements, kind: str, subject: bytes, owner: bytes) -> bool:
    # the server counts rows that changed, and a row that already says so does not
    return db.one(_HOLDS, (subject, kind, owner)) is not None


def end(db: Statements, kind: str, subject: bytes, owner: bytes) -> bool:
    """The work is done; False where the lease was lost."""
    return db.execute(_END, (subject, kind, owner)) == 1


def release(
    db: Statements,
    kind: str,
    subject: bytes,
    owner: bytes,
    now: datetime,
    due_at: datetime | None = None,
    *,
    failed: bool = False,
) -> None:
    """Gives the lease back: again at once (the caller enqueues it), or then; a run that got on forgets failures."""
    args = (failed, to_row(due_at or now), None if due_at else to_row(now), to_row(now), subject, kind, owner)
    db.execute(_RELEASE, args)


def fail(
    db: Statements,
    kind: str,
    subject: bytes,
    owner: bytes,
    failure: tuple[str, str],
    now: datetime,
    due_at: datetime | None,
) -> None:
    """Gives the lease back after a failure (reason, message): again then, or dead where that is None."""
    reason, message = failure[0][:64], failure[1][:255]
    state, due = ("waiting", due_at) if due_at else ("dead", now)
    db.execute(_FAIL, (state, to_row(due), reason, message, to_row(now), subject, kind, owner))


# -- the feeder


def waiting_kinds(db: Statements) -> list[str]:
    """The kinds that have rows which wait."""
    return [kind for state, kind in db.all(_KINDS) if state == "waiting"]


def due(db: Statements, kind: str, now: datetime, silent: timedelta, limit: int) -> list[bytes]:
    """Subjects that are due, free, and were not enqueued for so long; those that wait longest first."""
    enqueued_before, not_after = to_row(now - silent), to_row(now + 2 * LEASE)
    args = (kind, to_row(now), enqueued_before, not_after, *_free(now), limit)
    return db.column(_DUE, args)


def set_enqueued(db: Statements, kind: str, subjects: Sequence[bytes], now: datetime) -> None:
    """The queue gets them now."""
    if subjects:
        db.execute(f"{_ENQUEUED}({placeholders(len(subjects))})", (to_row(now), kind, *subjects))


# -- for people


def counts(db: Statements, now: datetime) -> list[Count]:
    """How much there is to do, by kind and state."""
    found = []
    for state, kind in sorted(db.all(_KINDS)):
        row = db.one(_COUNT, (kind, state, to_row(now), to_row(now), state, kind))
        found.append(record(Count, row))
    return [count for count in found if count.rows]


def dead(db: Statements, limit: int = 100) -> list[Dead]:
    """Jobs that are not tried again by themselves."""
    return records(Dead, db.all(_DEAD, (limit,)))


def retry(db: Statements, now: datetime, kind: str | None = None, subject: bytes | None = None) -> int:
    """Dead jobs, or those of a kind, or one of them, are due again; answers how many."""
    sql, args = _RETRY, [to_row(now), to_row(now)]
    if kind is not None:
        sql, args = f"{sql} AND kind = %s", [*args, kind]  # type: ignore[list-item]
    if subject is not None:
        sql, args = f"{sql} AND subject = %s", [*args, subject]  # type: ignore[list-item]
    return db.execute(sql, args)
