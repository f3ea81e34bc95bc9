"""Rows of background jobs: their leases, due times, and results.

A lease that ends later than any process can set counts as expired: a wrong clock wrote it.
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
CLOCK_SKEW: Final = timedelta(seconds=2)
"""Largest tolerated difference between two machines' clocks. With more, a due row waits for the feeder."""
ROWS_PER_STATEMENT: Final = 1000
"""Most rows per INSERT or DELETE statement."""

_COLUMNS = "(kind, subject, state, due_at, enqueued_at, created_at, updated_at)"
_INSERT = f"INSERT INTO job {_COLUMNS} VALUES "
_AGAIN = (
    " ON DUPLICATE KEY UPDATE tries = IF(state = 'dead', 0, tries), state = 'waiting', "
    "due_at = LEAST(due_at, VALUES(due_at)), updated_at = VALUES(updated_at)"
)
_FREE = "(lease_until IS NULL OR lease_until < %s OR lease_until > %s)"
_TAKE = (
    # the last owner did not release it: the job may have killed the worker, so this counts as a failure
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
# Without a condition on the state, the database skips through the index, kind by kind; with one, it reads all rows.
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
    """A row whose lease this process holds."""

    tries: int
    place: int
    memo: bytes | None


@dataclass(frozen=True, slots=True)
class Count:
    """Number of rows of one kind and state; at most 100,000 are counted.

    Attributes:
        running: rows under a lease.
        delayed: rows that are not due yet.
        oldest: when the oldest row was inserted.
    """

    kind: str
    state: str
    rows: int
    running: int
    delayed: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Dead:
    """A job that is not tried again automatically, and the reason."""

    kind: str
    subject: bytes
    tries: int
    reason: str
    message: str
    created_at: datetime
    updated_at: datetime


def insert(db: Statements, kind: str, subject: bytes, now: datetime, due_at: datetime | None = None) -> None:
    """Inserts a job. If it is due now, it counts as enqueued: the caller enqueues it after the commit."""
    moment = to_row(now)
    enqueued = moment if due_at is None else None
    due = moment if due_at is None else to_row(due_at)
    db.execute(_INSERT + "(%s, %s, 'waiting', %s, %s, %s, %s)" + _AGAIN, (kind, subject, due, enqueued, moment, moment))


def insert_many(
    db: Statements, kind: str, subjects: Sequence[bytes], now: datetime, due_at: datetime | None = None
) -> None:
    """Inserts many jobs; the feeder enqueues them in batches."""
    moment = to_row(now)
    for first in range(0, len(subjects), ROWS_PER_STATEMENT):
        args: list[object] = []
        for subject in subjects[first : first + ROWS_PER_STATEMENT]:
            args += (kind, subject, to_row(due_at) if due_at else moment, moment, moment)
        rows = placeholders(len(args) // 5, "(%s, %s, 'waiting', %s, NULL, %s, %s)")
        db.execute(_INSERT + rows + _AGAIN, args)


def delete(db: Statements, subject: bytes) -> None:
    """Deletes the subject's jobs. Call it before a blob is deleted."""
    db.execute(_DELETE, (subject,))


def delete_many(db: Statements, subjects: Sequence[bytes]) -> None:
    """Deletes the jobs of many subjects."""
    for first in range(0, len(subjects), ROWS_PER_STATEMENT):
        some = subjects[first : first + ROWS_PER_STATEMENT]
        db.execute(f"{_DELETE_MANY}({placeholders(len(some))})", some)


# -- leases


def _free(now: datetime) -> tuple[datetime, datetime]:
    return to_row(now), to_row(now + 2 * LEASE)


def take(db: Statements, kind: str, subject: bytes, owner: bytes, now: datetime) -> Taken | None:
    """Takes the lease. Returns None if the job is done, dead, not due, or leased to another run."""
    args = (owner, to_row(now + LEASE), to_row(now), subject, kind, to_row(now + CLOCK_SKEW), *_free(now))
    if db.execute(_TAKE, args) != 1:
        return None
    row = db.one(_TAKEN, (subject, kind, owner))
    return record(Taken, row) if row else None


def keep(db: Statements, kind: str, subject: bytes, owner: bytes, now: datetime) -> bool:
    """Extends the lease. Returns False if it was lost."""
    changed = db.execute(_KEEP, (to_row(now + LEASE), subject, kind, owner)) == 1
    return changed or _holds(db, kind, subject, owner)


def save(
    db: Statements, kind: str, subject: bytes, owner: bytes, place: int, memo: bytes | None, now: datetime
) -> bool:
    """Saves the position and extends the lease. Returns False if the lease was lost."""
    args = (place, memo, to_row(now + LEASE), to_row(now), subject, kind, owner)
    return db.execute(_SAVE, args) == 1 or _holds(db, kind, subject, owner)


def _holds(db: Statements, kind: str, subject: bytes, owner: bytes) -> bool:
    # an UPDATE to the same values counts as no changed row
    return db.one(_HOLDS, (subject, kind, owner)) is not None


def end(db: Statements, kind: str, subject: bytes, owner: bytes) -> bool:
    """Deletes the row of a finished job. Returns False if the lease was lost."""
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
    """Releases the lease: due now (the caller enqueues it), or at ``due_at``. Resets failures unless ``failed``."""
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
    """Releases the lease after a failure (reason, message). Without ``due_at``, the job is dead."""
    reason, message = failure[0][:64], failure[1][:255]
    state, due = ("waiting", due_at) if due_at else ("dead", now)
    db.execute(_FAIL, (state, to_row(due), reason, message, to_row(now), subject, kind, owner))


# -- the feeder


def waiting_kinds(db: Statements) -> list[str]:
    """Kinds that have waiting rows."""
    return [kind for state, kind in db.all(_KINDS) if state == "waiting"]


def due(db: Statements, kind: str, now: datetime, silent: timedelta, limit: int) -> list[bytes]:
    """Subjects that are due, not leased, and not enqueued within ``silent``; those due longest come first."""
    enqueued_before, not_after = to_row(now - silent), to_row(now + 2 * LEASE)
    args = (kind, to_row(now), enqueued_before, not_after, *_free(now), limit)
    return db.column(_DUE, args)


def set_enqueued(db: Statements, kind: str, subjects: Sequence[bytes], now: datetime) -> None:
    """Records that these rows are being enqueued."""
    if subjects:
        db.execute(f"{_ENQUEUED}({placeholders(len(subjects))})", (to_row(now), kind, *subjects))


# -- for people


def counts(db: Statements, now: datetime) -> list[Count]:
    """Number of jobs, by kind and state."""
    found = []
    for state, kind in sorted(db.all(_KINDS)):
        row = db.one(_COUNT, (kind, state, to_row(now), to_row(now), state, kind))
        found.append(record(Count, row))
    return [count for count in found if count.rows]


def dead(db: Statements, limit: int = 100) -> list[Dead]:
    """Jobs that are not tried again automatically."""
    return records(Dead, db.all(_DEAD, (limit,)))


def retry(db: Statements, now: datetime, kind: str | None = None, subject: bytes | None = None) -> int:
    """Makes dead jobs due again: all, those of a kind, or of a subject. Returns their number."""
    sql, args = _RETRY, [to_row(now), to_row(now)]
    if kind is not None:
        sql, args = f"{sql} AND kind = %s", [*args, kind]  # type: ignore[list-item]
    if subject is not None:
        sql, args = f"{sql} AND subject = %s", [*args, subject]  # type: ignore[list-item]
    return db.execute(sql, args)
