"""The edges' calls about tiers and traffic."""

from __future__ import annotations

from datetime import date
from typing import Any

from api.accounts.usage import KINDS, Usage
from api.core import errors
from api.core.errors import Problem
from api.edge.schema import SentAnswer, TotalsAnswer, UsageReport
from api.http.call import Call


def tiers(call: Call, usage: Usage) -> dict[str, Any]:
    """The limits of each tier."""
    return usage.tiers


def report(call: Call, body: UsageReport, usage: Usage) -> TotalsAnswer:
    """Books an edge's report; one that was booked before is answered like a new one."""
    moved = [
        (kind, bytes.fromhex(subject), _day(day), sent, received) for kind, subject, day, sent, received in body.rows
    ]
    asked = [(kind, bytes.fromhex(subject)) for kind, subject in body.totals]
    totals = usage.book(bytes.fromhex(body.edge), body.sequence, moved, asked)
    return TotalsAnswer([(kind, subject.hex(), of.day_sent, of.month_sent) for (kind, subject), of in totals.items()])


def totals(call: Call, usage: Usage) -> SentAnswer:
    """For a subject with a quota that an edge sees for the first time."""
    if call.kind not in KINDS:
        raise Problem(errors.NOT_FOUND)
    found = usage.totals(call.kind, call.id)
    return SentAnswer(found.day_sent, found.month_sent)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Problem(errors.BODY_INVALID, "A day is YYYY-MM-DD.") from None
