"""What edges ask and report about tiers and traffic."""

from __future__ import annotations

from datetime import date
from typing import ClassVar

import falcon

from api.accounts.usage import KINDS, Usage
from api.core import errors
from api.core.errors import Problem
from api.edge.schema import UsageReport
from api.http.base import Access, Resource, answer, read, row_id


class Tiers(Resource):
    """/internal/tiers."""

    access: ClassVar = {"GET": Access.EDGE}

    def __init__(self, usage: Usage) -> None:
        self._usage = usage

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        answer(resp, self._usage.tiers)


class UsageReports(Resource):
    """/internal/usage: a batch of an edge's; one that was booked before is answered like a new one."""

    access: ClassVar = {"POST": Access.EDGE}

    def __init__(self, usage: Usage) -> None:
        self._usage = usage

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = read(req, UsageReport)
        moved = [
            (kind, bytes.fromhex(subject), _day(day), sent, received)
            for kind, subject, day, sent, received in body.rows
        ]
        asked = [(kind, bytes.fromhex(subject)) for kind, subject in body.totals]
        totals = self._usage.book(bytes.fromhex(body.edge), body.sequence, moved, asked)
        found = [(kind, subject.hex(), of.day_sent, of.month_sent) for (kind, subject), of in totals.items()]
        answer(resp, {"totals": found})


class UsageTotals(Resource):
    """/internal/usage/{kind}/{subject}: for a subject with a quota that an edge sees for the first time."""

    access: ClassVar = {"GET": Access.EDGE}

    def __init__(self, usage: Usage) -> None:
        self._usage = usage

    def on_get(self, req: falcon.Request, resp: falcon.Response, kind: str, subject: str) -> None:
        if kind not in KINDS:
            raise Problem(errors.NOT_FOUND)
        totals = self._usage.totals(kind, row_id(subject, errors.NOT_FOUND))
        answer(resp, {"day": totals.day_sent, "month": totals.month_sent})


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Problem(errors.BODY_INVALID, "A day is YYYY-MM-DD.") from None
