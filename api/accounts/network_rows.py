"""Networks from which an account was signed in to."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from api.db.pool import Statements
from api.db.times import from_row, to_row

MOST: Final = 64
"""Networks that an account knows; the one that was seen longest ago is deleted first."""

_SEEN = "SELECT seen_at FROM known_network WHERE user_id = %s AND network = %s"
_REMEMBER = (
    "INSERT INTO known_network (user_id, network, seen_at) VALUES (%s, %s, %s) ON DUPLICATE KEY UPDATE seen_at = %s"
)
_OLDEST_KEPT = "SELECT seen_at FROM known_network WHERE user_id = %s ORDER BY seen_at DESC LIMIT 1 OFFSET %s"
_FORGET = "DELETE FROM known_network WHERE user_id = %s AND seen_at <= %s"
_PRUNE = "DELETE FROM known_network WHERE seen_at < %s LIMIT 1000"


def seen_at(db: Statements, user_id: bytes, network: bytes) -> datetime | None:
    """The time of the account's last sign-in from a network, to a day; None if there was none."""
    row = db.one(_SEEN, (user_id, network))
    return from_row(row[0]) if row else None


def remember(db: Statements, user_id: bytes, network: bytes, now: datetime) -> None:
    """Somebody signs in from a network."""
    db.execute(_REMEMBER, (user_id, network, to_row(now), to_row(now)))
    row = db.one(_OLDEST_KEPT, (user_id, MOST))
    if row is not None:
        db.execute(_FORGET, (user_id, row[0]))


def prune(db: Statements, before: datetime) -> int:
    """Deletes up to 1,000 networks that were last seen before then."""
    return db.execute(_PRUNE, (to_row(before),))
