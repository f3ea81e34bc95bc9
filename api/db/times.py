"""Converts times: aware UTC in Python, DATETIME(6) without a zone in the database."""

from __future__ import annotations

from datetime import UTC, datetime

from api.db.pool import Statements

_NOW = "SELECT UTC_TIMESTAMP(6)"


def to_row(moment: datetime) -> datetime:
    """To the value of a DATETIME(6) column."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def from_row(value: datetime) -> datetime:
    """From a DATETIME(6) column that is not NULL."""
    return value.replace(tzinfo=UTC)


def from_nullable(value: datetime | None) -> datetime | None:
    """From a DATETIME(6) column."""
    return None if value is None else value.replace(tzinfo=UTC)


def now(db: Statements) -> datetime:
    """The time on the database's clock, which all processes share."""
    return from_row(db.value(_NOW))
