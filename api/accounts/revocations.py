"""The feed by which edges learn what has ended."""

from __future__ import annotations

from api.accounts import revocation_rows as revocations
from api.accounts.revocation_rows import Revocation
from api.context import Context


class Revocations:
    """See the module's docstring."""

    def __init__(self, context: Context) -> None:
        self._db = context.db
        self._clock = context.clock

    def since(self, last_id: int) -> tuple[list[Revocation], int, bool]:
        """The rows in force after ``last_id``, the newest id among them, and whether more wait."""
        found, more = revocations.since(self._db, last_id, self._clock())
        return found, found[-1].id if found and found[-1].id > last_id else last_id, more
