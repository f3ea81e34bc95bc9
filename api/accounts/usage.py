"""Traffic: each report of an edge is booked once, and every user can see the totals of their account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from api.accounts import usage_rows as rows
from api.accounts.usage_rows import Moved, Totals
from api.context import Context
from api.core import tiers
from api.core.models import Identity
from api.core.tiers import DEFAULT, Tier
from api.db.pool import Statements

KINDS: Final = ("user", "share", "anonymous")
_DAYS_KEPT: Final = timedelta(days=400)
_REPORTS_KEPT: Final = timedelta(days=7)
"""An edge that was away for longer than this is not believed to be the same."""

Subject = tuple[str, bytes]
Reported = tuple[str, bytes, date, int, int]
"""Kind, subject, day, bytes sent and bytes received."""


@dataclass(frozen=True, slots=True)
class View:
    """A user's traffic beside what the tier allows; a limit of 0 is none."""

    totals: Totals
    tier: Tier


class Usage:
    """See the module's docstring."""

    def __init__(self, context: Context) -> None:
        self._db = context.db
        self._config = context.config
        self._clock = context.clock
        self.tiers_version, self.tiers = tiers.document(
            context.config.tiers,
            signup=(context.config.signup_rate / 3600, context.config.signup_rate),
            signin=(context.config.signin_rate / 60, context.config.signin_rate),
            flush=context.config.usage_flush,
        )
        """A name that changes with what edges have to know of tiers and limits, and that."""

    def book(
        self,
        edge: bytes,
        sequence: int,
        moved: Sequence[tuple[str, bytes, date, int, int]],
        subjects: Sequence[Subject],
    ) -> Mapping[Subject, Totals]:
        """Books a report once, however often it comes. Returns the totals of ``subjects``."""

        def body(tx: Statements) -> None:
            if rows.book_report(tx, edge, sequence, self._clock()):
                rows.add(tx, [Moved(*each) for each in moved])

        self._db.transaction(body)
        found = rows.totals(self._db, subjects, self._clock().date())
        return {subject: found.get(subject, Totals()) for subject in subjects}

    def totals(self, kind: str, subject: bytes) -> Totals:
        """The traffic of a subject today and this month, in UTC."""
        return rows.total(self._db, kind, subject, self._clock().date())

    def of(self, identity: Identity, tier: str) -> View:
        """The caller's own traffic."""
        allowed = self._config.tiers.get(tier, self._config.tiers[DEFAULT])
        return View(self.totals("user", identity.user_id), allowed)

    def prune(self) -> int:
        """Deletes rows that are too old to be needed. Returns their number."""
        now = self._clock()
        return rows.prune(self._db, (now - _DAYS_KEPT).date(), now - _REPORTS_KEPT)
