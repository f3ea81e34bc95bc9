"""The JSON that edges send."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from api.http.schemas import HEX_32, Body

_Kind = Annotated[str, Meta(pattern="^(user|share|anonymous)$", max_length=16)]
_Id = Annotated[str, Meta(pattern=HEX_32, max_length=32)]
_Bytes = Annotated[int, Meta(ge=0, le=2**62)]


class UsageReport(Body):
    """POST /internal/usage: kind, subject, day, bytes sent, bytes received; and whose totals are asked for."""

    edge: _Id
    sequence: Annotated[int, Meta(ge=0, le=2**62)]
    rows: list[tuple[_Kind, _Id, str, _Bytes, _Bytes]]
    totals: list[tuple[_Kind, _Id]] = msgspec.field(default_factory=list)
