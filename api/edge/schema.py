"""The JSON that edges and health checks read, and what edges report."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from api.http.schemas import Answer, Body, Id, Query

_Kind = Annotated[str, Meta(pattern="^(user|share|anonymous)$", max_length=16)]
_Bytes = Annotated[int, Meta(ge=0, le=2**62)]


class UsageReport(Body):
    """POST /internal/usage: kind, subject, day, bytes sent, bytes received; and whose totals are asked for."""

    edge: Id
    sequence: Annotated[int, Meta(ge=0, le=2**62)]
    rows: list[tuple[_Kind, Id, str, _Bytes, _Bytes]]
    totals: list[tuple[_Kind, Id]] = msgspec.field(default_factory=list)


class RevocationQuery(Query):
    """The position from which on an edge wants to know: a moment in microseconds."""

    after: Annotated[int, Meta(ge=0)] = 0


class SessionQuery(Query):
    """Whose session it is, and the token's generation."""

    user: Id
    generation: Annotated[int, Meta(ge=0, le=2**32)]


class TargetQuery(Query):
    """Storages that the edge tried in vain, with commas between, and why the last one failed."""

    failed: str = ""
    reason: str | None = None


class AliveAnswer(Answer):
    """Whether the process serves."""

    status: Literal["ok", "stopping"]


class ReadyAnswer(Answer):
    """Whether the gateway can do its work; each dependency by name, and what was found out about storages."""

    status: Literal["ok", "degraded", "full", "unready"]
    checks: dict[str, str]
    notes: dict[str, str]


class RevocationsAnswer(Answer):
    """Revocations: kind, subject, generation, moment (µs), expiry (s); with `more`, ask again from `position`.

    Attributes:
        room: bytes that local storage can still take; null if it is not known.
        tiers: a name that changes with the tiers.
    """

    position: int
    more: bool
    room: int | None
    tiers: str
    revocations: list[tuple[str, str, int, int, int]]


class SessionAnswer(Answer):
    """Whether a token is still good."""

    live: bool


class TotalsAnswer(Answer):
    """Kind, subject, bytes sent today and this month."""

    totals: list[tuple[str, str, int, int]]


class SentAnswer(Answer):
    """Bytes sent today and this month."""

    day: int
    month: int
