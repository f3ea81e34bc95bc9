"""What the JSON of every noun shares; the rest stands in each folder's `schema.py`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from api.core.errors import Problem

HEX_32: Final = r"^[0-9a-f]{32}$"
# "$" also matches before a last newline, which bytes.fromhex skips: only the length says no to that.
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$", max_length=64)]


class Body(Struct, forbid_unknown_fields=True):
    """A request's body: members that it does not know are an error, not ignored."""


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def error(problem: Problem, request_id: str) -> dict[str, Any]:
    """An error's body."""
    return {"code": problem.kind.code, "message": problem.message, "request_id": request_id, **problem.details}


_encoder: Final = msgspec.json.Encoder()


def encode(value: Mapping[str, Any]) -> bytes:
    """JSON."""
    return _encoder.encode(value)
