"""What every resource needs: who may call it, bodies, parameters, answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, ClassVar, Final, TypeVar

import falcon
import msgspec

from api.core import errors
from api.core.errors import Kind, Problem
from api.core.models import Identity
from api.http import schemas

MAX_BODY: Final = 2 * 1024**2
MAX_LIMIT: Final = 1000
_HEX_32: Final = re.compile(schemas.HEX_32)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")

B = TypeVar("B", bound=schemas.Body)


class Access(Enum):
    """Who may call a method of a resource."""

    PUBLIC = "anybody; an Authorization header is not even looked at"
    BEARER = "who holds an access token"
    ADMIN = "who holds an administrator's access token"
    EDGE = "nginx alone, with the edge key"


class Resource:
    """A resource; a method that ``access`` does not name takes a bearer token."""

    access: ClassVar[Mapping[str, Access]] = {}


def identity(req: falcon.Request) -> Identity:
    """Who is asking; the middleware has verified it."""
    found = req.context.identity
    assert isinstance(found, Identity)
    return found


def read(req: falcon.Request, shape: type[B]) -> B:
    """The body.

    Raises:
        Problem: BODY_INVALID, BODY_TOO_LARGE.
    """
    if (req.content_length or 0) > MAX_BODY:
        raise Problem(errors.BODY_TOO_LARGE)
    data = req.bounded_stream.read(MAX_BODY + 1)
    if len(data) > MAX_BODY:
        raise Problem(errors.BODY_TOO_LARGE)
    try:
        return msgspec.json.decode(data or b"{}", type=shape)
    except UnicodeDecodeError as ex:
        raise Problem(errors.BODY_INVALID, "The body is not UTF-8.") from ex
    except msgspec.DecodeError as ex:
        raise Problem(errors.BODY_INVALID, f"The body is not what this call takes: {ex}") from ex
    except RecursionError:
        raise Problem(errors.BODY_INVALID, "The body is nested too deeply.") from None


def answer(resp: falcon.Response, value: Mapping[str, Any], status: int = 200) -> None:
    """JSON; answers hold tokens and signed URLs, which no cache may keep."""
    resp.status = status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = schemas.encode(value)
    resp.set_header("Cache-Control", "private, no-store")


def row_id(text: str, otherwise: Kind) -> bytes:
    """An id from a path; what cannot be one names nothing."""
    if not _HEX_32.fullmatch(text):
        raise Problem(otherwise)
    return bytes.fromhex(text)


def by_number(parts: Mapping[str, str]) -> dict[int, str]:
    """What is said of parts, by their numbers. Raises Problem PART_NUMBER_INVALID."""
    for text in parts:
        if not text.isdecimal() or not text.isascii() or len(text) > 5 or text.startswith("0"):
            raise Problem(errors.PART_NUMBER_INVALID, "A part number is a whole number from 1 to 10000.")
    return {int(text): said for text, said in parts.items()}


def limit(req: falcon.Request) -> int:
    """The page's length. Raises Problem PARAMETER_INVALID."""
    text = req.get_param("limit", default="50")
    if not text.isdecimal() or not text.isascii() or len(text) > 4 or not 1 <= int(text) <= MAX_LIMIT:
        raise Problem(errors.PARAMETER_INVALID, f"limit is from 1 to {MAX_LIMIT}.")
    return int(text)


def choice(req: falcon.Request, name: str, allowed: tuple[str, ...], default: str) -> str:
    """A parameter that takes one of a few words. Raises Problem PARAMETER_INVALID."""
    value = req.get_param(name, default=default)
    if value not in allowed:
        raise Problem(errors.PARAMETER_INVALID, f"{name} is one of {', '.join(allowed)}.")
    return value


def digest(text: str | None) -> bytes | None:
    """A digest, where one is given. Raises Problem DIGEST_INVALID."""
    if text is None:
        return None
    if not _SHA256.fullmatch(text):
        raise Problem(errors.DIGEST_INVALID)
    return bytes.fromhex(text)
