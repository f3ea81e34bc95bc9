"""Tells edges which tokens have ended before their expiry, and which users' data they must forget."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from api.accounts import revocation_rows, rows
from api.accounts.revocation_rows import Revocation
from api.context import Context
from api.db.pool import Statements

_SLACK: Final = timedelta(seconds=30)
"""The owner's row outlives an edge's memory of a file by this much."""

_MARGIN: Final = timedelta(minutes=5)
"""A row outlives the tokens that it ends by this much, because clocks differ."""

_MOST_SESSIONS: Final = 100
"""Rows of ended sessions that an account has; one more ends all of its tokens, which its other sessions then renew."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Revocations:
    """See the module's docstring.

    Call the methods that write a row last in their transaction (`api.accounts.revocation_rows.note`). They read the
    clock, which must happen after every lock is held: an edge asks again for rows younger than 10 s, and waiting for a
    lock may take longer.
    """

    def __init__(self, context: Context) -> None:
        config = context.config
        self._db = context.db
        self._clock = context.clock
        self._memory = timedelta(seconds=config.target_ttl + config.link_grace + config.revocation_lag) + _SLACK
        self._tokens = timedelta(seconds=max(config.access_ttl, config.part_url_ttl)) + _MARGIN

    def forget(self, tx: Statements, user_id: bytes) -> None:
        """Makes every edge ask again for the targets of an account's files."""
        now = self._clock()
        revocation_rows.note(tx, "user", user_id, 0, now, now + self._memory)

    def end_tokens(self, tx: Statements, user_id: bytes, generation: int) -> None:
        """Ends the account's access tokens and part URLs of a generation below this one."""
        now = self._clock()
        revocation_rows.note(tx, "user", user_id, generation, now, now + self._tokens)

    def end_session(self, tx: Statements, user_id: bytes, session_id: bytes) -> bool:
        """Ends an open session and its tokens. Returns False if it had ended before.

        If an account has ended too many sessions, it gets a new generation instead of ever more rows.
        """
        now = self._clock()
        if rows.count_ended(tx, user_id, now - self._tokens, _MOST_SESSIONS) < _MOST_SESSIONS:
            if not rows.end_session(tx, session_id, now):
                return False
            now = self._clock()
            revocation_rows.note(tx, "session", session_id, 1, now, now + self._tokens)
            return True
        rows.lock_user(tx, user_id)
        if not rows.end_session(tx, session_id, now):
            return False
        self.end_tokens(tx, user_id, rows.next_generation(tx, user_id))
        return True

    def since(self, position: int) -> tuple[list[Revocation], int, bool]:
        """The rows in force from a position on, the position of the last of them, and whether more wait.

        A position is a moment in microseconds; rows of that very moment come again.
        """
        try:
            moment = _EPOCH + position * _MICROSECOND
        except OverflowError:
            return [], position, False
        found, more = revocation_rows.since(self._db, moment, self._clock())
        return found, microseconds(found[-1].noted_at) if found else position, more

    def is_over(self, user_id: bytes, session_id: bytes, generation: int) -> bool:
        """Whether a token has ended before its expiry, by what caused it: for an edge that cannot tell."""
        return not rows.is_live(self._db, user_id, session_id, generation)


def microseconds(moment: datetime) -> int:
    """Since 1970."""
    return (moment - _EPOCH) // _MICROSECOND
