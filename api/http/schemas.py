"""JSON shapes that all folders share; the others are in each folder's `schema.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from api.core import errors
from api.core.errors import Problem

HEX_32: Final = r"^[0-9a-f]{32}$"
# "$" also matches before a last newline, which bytes.fromhex skips: only the length says no to that.
Id = Annotated[str, Meta(pattern=HEX_32, max_length=32)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$", max_length=64)]
Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""RFC 3339 in UTC, to the millisecond."""
Size = Annotated[int, Meta(ge=0)]
"""Bytes, or how many."""


# Only documents this rule: the service checks such a member, and has a specific error for it.
Name = Annotated[
    str, Meta(extra_json_schema={"minLength": 1, "maxLength": 255, "pattern": r"^[^/\\\u0000-\u001f\u007f]+$"})
]
Digest = Annotated[str, Meta(extra_json_schema={"pattern": r"^[0-9a-f]{64}$"})]
FileSize = Annotated[int, Meta(extra_json_schema={"minimum": 0})]
NoFolder = Annotated[str | None, Meta(extra_json_schema={"enum": [None], "description": "No folder can be named yet."})]


def one_of(*values: str) -> Meta:
    """Says in the documents which strings a member may be; answers are not checked."""
    return Meta(extra_json_schema={"enum": list(values)})


Limit = Annotated[int, Meta(ge=1, le=1000, description="Entries of one page.")]
Cursor = Annotated[str, Meta(description="`next_cursor` of the page before.")]
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Body(Struct, forbid_unknown_fields=True):
    """A request's body: members that it does not know are an error, not ignored."""


class Query(Struct, forbid_unknown_fields=True, kw_only=True):
    """A request's query: parameters that it does not know are an error, not ignored."""


class Answer(Struct):
    """A successful answer's body, or a part of one."""


class Error(Answer):
    """Why a call was refused.

    Attributes:
        code: what programs compare.
        parts: part numbers, for errors about parts.
        missing: ranges of part numbers, for PARTS_MISSING.
        state: the state that does not allow the call.
        generation: of a file's links, for an edge that is told that they are over.
    """

    code: str
    message: str
    request_id: str
    parts: list[int] | UnsetType = UNSET
    missing: list[tuple[int, int]] | UnsetType = UNSET
    state: str | UnsetType = UNSET
    generation: int | UnsetType = UNSET


class ErrorAnswer(Answer):
    """The body of every answer that is an error."""

    error: Error


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return f"{moment.astimezone(UTC).isoformat(timespec='milliseconds')[:-6]}Z"


def error(problem: Problem, request_id: str) -> Error:
    """An error's body."""
    details: Mapping[str, Any] = problem.details
    return Error(problem.kind.code, problem.message, request_id, **details)


encode: Final = msgspec.json.Encoder().encode


def digest(text: str | None) -> bytes | None:
    """A digest, if one is given. Raises Problem DIGEST_INVALID."""
    if text is None:
        return None
    if not _SHA256.fullmatch(text):
        raise Problem(errors.DIGEST_INVALID)
    return bytes.fromhex(text)


def by_number(parts: Mapping[str, str]) -> dict[int, str]:
    """The values of parts by part number. Raises Problem PART_NUMBER_INVALID."""
    for text in parts:
        if not text.isdecimal() or not text.isascii() or len(text) > 5 or text.startswith("0"):
            raise Problem(errors.PART_NUMBER_INVALID, "A part number is a whole number from 1 to 10000.")
    return {int(text): said for text, said in parts.items()}
