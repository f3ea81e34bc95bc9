"""Bytes moved per subject and day, and the reports in which edges tell of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from api.db.pool import Statements, placeholders
from api.db.times import to_row

ROWS = 500
"""Rows of one statement."""

_BOOK_REPORT = (
    "INSERT INTO usage_report (edge, sequence, booked_at) VALUES (%s, %s, %s) "
    "ON DUPLICATE KEY UPDATE sequence = VALUES(sequence)"
)
_ADD = "INSERT INTO usage_day (kind, subject, day, sent, received) VALUES "
_ADD_END = " ON DUPLICATE KEY UPDATE sent = sent + VALUES(sent), received = received + VALUES(received)"
_TOTALS = (
    "SELECT kind, subject, SUM(IF(day = %s, sent, 0)), SUM(IF(day = %s, received, 0)), SUM(sent), SUM(received) "
    "FROM usage_day WHERE day BETWEEN %s AND %s AND (kind, subject) IN "
)
_TOTALS_END = " GROUP BY kind, subject"
_TOTAL = (
    "SELECT SUM(IF(day = %s, sent, 0)), SUM(IF(day = %s, received, 0)), SUM(sent), SUM(received) "
    "FROM usage_day WHERE kind = %s AND subject = %s AND day BETWEEN %s AND %s"
)
_PRUNE_DAYS = "DELETE FROM usage_day WHERE day < %s LIMIT 1000"
_PRUNE_REPORTS = "DELETE FROM usage_report WHERE booked_at < %s LIMIT 1000"


@dataclass(frozen=True, slots=True)
class Moved:
    """The traffic of one subject on one day: a row of a report.

    Attributes:
        kind: user, share or anonymous (strangers, by a user's links).
    """

    kind: str
    subject: bytes
    day: date
    sent: int
    received: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Bytes of a day, and of its month up to that day."""

    day_sent: int = 0
    day_received: int = 0
    month_sent: int = 0
    month_received: int = 0


def book_report(db: Statements, edge: bytes, sequence: int, now: datetime) -> bool:
    """Records that a report came. Returns False if it was booked before."""
    return db.execute(_BOOK_REPORT, (edge, sequence, to_row(now))) == 1


def add(db: Statements, rows: Sequence[Moved]) -> None:
    """Adds the traffic of a report.

    Rows are written in the key's order, so that two concurrent reports cannot deadlock.
    """
    ordered = sorted(rows, key=lambda row: (row.kind, row.subject, row.day))
    for start in range(0, len(ordered), ROWS):
        batch = ordered[start : start + ROWS]
        args = [value for row in batch for value in (row.kind, row.subject, row.day, row.sent, row.received)]
        db.execute(_ADD + placeholders(len(batch), "(%s, %s, %s, %s, %s)") + _ADD_END, args)


def totals(db: Statements, subjects: Sequence[tuple[str, bytes]], day: date) -> dict[tuple[str, bytes], Totals]:
    """The totals of several subjects, without those that have no traffic."""
    found: dict[tuple[str, bytes], Totals] = {}
    for start in range(0, len(subjects), ROWS):
        batch = subjects[start : start + ROWS]
        sql = _TOTALS + f"({placeholders(len(batch), '(%s, %s)')})" + _TOTALS_END
        args = [day, day, day.replace(day=1), day, *(value for subject in batch for value in subject)]
        found |= {(row[0], row[1]): Totals(*map(int, row[2:])) for row in db.all(sql, args)}
    return found


def total(db: Statements, kind: str, subject: bytes, day: date) -> Totals:
    """The totals of one subject."""
    row = db.one(_TOTAL, (day, day, kind, subject, day.replace(day=1), day))
    return Totals() if row is None or row[0] is None else Totals(*map(int, row))


def prune(db: Statements, days_before: date, reports_before: datetime) -> int:
    """Deletes up to 1,000 rows of days, and of reports, that are long past."""
    return db.execute(_PRUNE_DAYS, (days_before,)) + db.execute(_PRUNE_REPORTS, (to_row(reports_before),))
