"""Rows of transfers: source and destination, the position of the planning, and counters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from api.core.models import Transfer
from api.core.policies import Policy
from api.db.pool import Statements, placeholders
from api.db.records import record, records
from api.db.times import to_row

LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""A time before any replica: planning starts here."""
RATE_WINDOW: Final = timedelta(seconds=30)
"""Shortest time over which a rate is measured."""

_COLUMNS = (
    "id, source, destination, policy, delete_source, keep_for, delay, state, planned, planned_at, planned_blob, items, "
    "bytes, done_items, done_bytes, skipped_items, skipped_bytes, failed_items, failed_bytes, live_bytes, moved_bytes, "
    "window_at, window_bytes, rate, created_at, ended_at"
)
_INSERT = (
    "INSERT INTO transfer (id, source, destination, policy, delete_source, keep_for, delay, state, planned_at, "
    "planned_blob, window_at, created_at, updated_at) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s, 'running', %s, %s, %s, %s, %s)"
)
# a policy that is set again starts from the first replica; blobs with a copy are skipped
_ENSURE = _INSERT + (
    " ON DUPLICATE KEY UPDATE planned_at = IF(state = 'cancelled', VALUES(planned_at), planned_at), "
    "planned_blob = IF(state = 'cancelled', VALUES(planned_blob), planned_blob), "
    "ended_at = IF(state = 'cancelled', NULL, ended_at), keep_for = VALUES(keep_for), delay = VALUES(delay), "
    "state = IF(state = 'cancelled', 'running', state)"
)
_END_POLICIES = (
    "UPDATE transfer SET state = 'cancelled', updated_at = %s "
    "WHERE policy IS NOT NULL AND state IN ('running', 'paused')"
)
_BY_ID = f"SELECT {_COLUMNS} FROM transfer WHERE id = %s"
_BY_POLICY = f"SELECT {_COLUMNS} FROM transfer WHERE policy = %s"
_SAME = (
    f"SELECT {_COLUMNS} FROM transfer WHERE policy IS NULL AND source = %s AND destination = %s AND delete_source = %s "
    "AND keep_for = %s AND state IN ('running', 'paused') ORDER BY id LIMIT 1"
)
_PAGE = f"SELECT {_COLUMNS} FROM transfer WHERE id < %s ORDER BY id DESC LIMIT %s"
_WITH_WORK = "SELECT id FROM transfer WHERE ended_at IS NULL AND state IN ('running', 'cancelled')"
_STATE = "SELECT state FROM transfer WHERE id = %s"
_SET_STATE = "UPDATE transfer SET state = %s, updated_at = %s, ended_at = %s WHERE id = %s AND state IN "
_PLAN = (
    "UPDATE transfer SET planned_at = %s, planned_blob = %s, planned = %s, items = items + %s, bytes = bytes + %s, "
    "updated_at = %s WHERE id = %s AND planned_at = %s AND planned_blob = %s AND state = 'running'"
)
_END_CANCELLED = "UPDATE transfer SET ended_at = %s WHERE id = %s AND state = 'cancelled'"
_COUNT = (
    "UPDATE transfer SET done_items = done_items + %s, done_bytes = done_bytes + %s, "
    "skipped_items = skipped_items + %s, skipped_bytes = skipped_bytes + %s, "
    "failed_items = failed_items + %s, failed_bytes = failed_bytes + %s, "
    "live_bytes = live_bytes + %s, moved_bytes = moved_bytes + %s, "
    "rate = IF(window_at < %s, "
    "(moved_bytes - window_bytes) / GREATEST(TIMESTAMPDIFF(SECOND, window_at, %s), 1), rate), "
    "window_bytes = IF(window_at < %s, moved_bytes, window_bytes), window_at = IF(window_at < %s, %s, window_at) "
    "WHERE id = %s"
)
_CANDIDATES = (
    "SELECT r.blob_id, r.created_at, b.size, "
    "EXISTS(SELECT 1 FROM replica o WHERE o.blob_id = r.blob_id AND o.storage = %s) AS there, "
    "b.state IN ('verified', 'unverified') AS usable FROM replica r FORCE INDEX (replica_newest) "
    "JOIN `blob` b ON b.id = r.blob_id "
    "WHERE r.storage = %s AND r.created_at >= %s AND r.created_at <= %s AND (r.created_at > %s OR r.blob_id > %s) "
    "ORDER BY r.storage, r.created_at, r.blob_id LIMIT %s"
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica on the source.

    Attributes:
        there: the destination has a replica too.
        usable: its blob is verified, or may become so.
    """

    blob_id: bytes
    created_at: datetime
    size: int
    there: bool
    usable: bool


@dataclass(frozen=True, slots=True)
class Change:
    """Changes to a transfer's counters; see `api.core.models.Transfer`."""

    done_items: int = 0
    done_bytes: int = 0
    skipped_items: int = 0
    skipped_bytes: int = 0
    failed_items: int = 0
    failed_bytes: int = 0
    live_bytes: int = 0
    moved_bytes: int = 0


def insert(db: Statements, transfer_id: bytes, ends: tuple[str, str], keep_for: int | None, now: datetime) -> None:
    """Inserts a migration of everything that a storage holds now.

    Args:
        ends: source and destination.
        keep_for: seconds for which the source's replicas are kept; None keeps them permanently.
    """
    moment = to_row(now)
    how = (keep_for is not None, keep_for or 0, 0)
    db.execute(_INSERT, (transfer_id, *ends, None, *how, to_row(LONG_AGO), bytes(16), moment, moment, moment))


def ensure_policy(db: Statements, transfer_id: bytes, policy: Policy, now: datetime) -> None:
    """Inserts or updates the row of a policy. It also covers the blobs that the source holds already."""
    moment = to_row(now)
    ends = (transfer_id, policy.source, policy.destination, policy.name, policy.move, policy.keep, policy.after)
    db.execute(_ENSURE, (*ends, to_row(LONG_AGO), bytes(16), moment, moment, moment))


def end_policies(db: Statements, in_force: Sequence[str], now: datetime) -> int:
    """Cancels the policies that are no longer in the settings. Returns their number."""
    sql = _END_POLICIES + (f" AND policy NOT IN ({placeholders(len(in_force))})" if in_force else "")
    return db.execute(sql, (to_row(now), *in_force))


def by_id(db: Statements, transfer_id: bytes) -> Transfer | None:
    """A transfer."""
    row = db.one(_BY_ID, (transfer_id,))
    return record(Transfer, row) if row else None


def by_policy(db: Statements, name: str) -> Transfer | None:
    """A policy's transfer."""
    row = db.one(_BY_POLICY, (name,))
    return record(Transfer, row) if row else None


def same(db: Statements, ends: tuple[str, str], keep_for: int | None) -> Transfer | None:
    """An unfinished migration with the same parameters."""
    row = db.one(_SAME, (*ends, keep_for is not None, keep_for or 0))
    return record(Transfer, row) if row else None


def page(db: Statements, after: bytes | None, limit: int) -> list[Transfer]:
    """Transfers, newest first."""
    return records(Transfer, db.all(_PAGE, (after or b"\xff" * 16, limit)))


def with_work(db: Statements) -> list[bytes]:
    """Transfers that may have something to do."""
    return db.column(_WITH_WORK)


def state(db: Statements, transfer_id: bytes) -> str:
    """A transfer's state; "cancelled" if it was deleted."""
    return db.value(_STATE, (transfer_id,)) or "cancelled"


def set_state(db: Statements, transfer_id: bytes, new: str, old: Sequence[str], now: datetime) -> bool:
    """Changes the state if it is one of ``old``. Returns whether it did."""
    ended_at = to_row(now) if new == "done" else None
    sql = f"{_SET_STATE}({placeholders(len(old))})"
    return db.execute(sql, (new, to_row(now), ended_at, transfer_id, *old)) == 1


def end_cancelled(db: Statements, transfer_id: bytes, now: datetime) -> None:
    """Ends a cancelled transfer: the destination holds no unfinished copies of it."""
    db.execute(_END_CANCELLED, (to_row(now), transfer_id))


def plan(db: Statements, before: Transfer, after: Transfer, made: tuple[int, int], now: datetime) -> bool:
    """Saves the planning position and adds ``made`` (items, bytes). Returns False if the transfer changed."""
    to, since = (to_row(after.planned_at), after.planned_blob), (to_row(before.planned_at), before.planned_blob)
    if before == after and not any(made):
        return True
    return db.execute(_PLAN, (*to, after.planned, *made, to_row(now), before.id, *since)) == 1


def count(db: Statements, transfer_id: bytes, change: Change, now: datetime) -> None:
    """Changes the counters. Call it last in a transaction, since every item of the transfer locks this row."""
    before, moment = to_row(now - RATE_WINDOW), to_row(now)
    done, skipped = (change.done_items, change.done_bytes), (change.skipped_items, change.skipped_bytes)
    failed, moved = (change.failed_items, change.failed_bytes), (change.live_bytes, change.moved_bytes)
    db.execute(_COUNT, (*done, *skipped, *failed, *moved, before, moment, before, before, moment, transfer_id))


def candidates(
    db: Statements, ends: tuple[str, str], after: tuple[datetime, bytes], until: datetime, limit: int
) -> list[Candidate]:
    """Replicas on a source after ``after`` (creation time, blob id), oldest first."""
    moment = to_row(after[0])
    args = (ends[1], ends[0], moment, to_row(until), moment, after[1], limit)
    return records(Candidate, db.all(_CANDIDATES, args))
