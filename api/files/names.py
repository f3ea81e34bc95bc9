"""The names that users may give to files. A name is data: it never becomes a path, a header or a command."""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import quote

from api.core import errors
from api.core.errors import Problem

MAX_NAME_BYTES: Final = 255
_SHORT_EXTENSION: Final = 16
_CONTENT_TYPE: Final = re.compile(
    r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(; ?[a-z0-9-]+=[A-Za-z0-9._-]+)*"
)

# Unicode's bidirectional controls (UAX #9, table 1): they make "txt.exe" of "exe.txt" in a listing.
_BIDI: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def check_name(name: str) -> str:
    """A file's name as it is; 1 to 255 bytes of UTF-8 without slashes, control and bidi characters.

    Raises:
        Problem: NAME_INVALID, saying why.
    """
    reason = None
    if not name.strip():
        reason = "A name is not empty."
    elif len(name.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
        reason = f"A name has at most {MAX_NAME_BYTES} bytes of UTF-8."
    elif name in (".", "..") or "/" in name or "\\" in name:
        reason = "A name is not a path: '/', '\\', '.' and '..' cannot be used."
    elif any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in _BIDI for c in name):
        reason = "A name has no control or direction characters."
    if reason:
        raise Problem(errors.NAME_INVALID, reason)
    return name


def in_path(name: str, most: int) -> str:
    """A name as a segment of a URL that only people read: cut to ``most`` characters.

    It is cut between two characters, and keeps its extension if that is short.
    """
    quoted = quote(name, safe="")
    if len(quoted) <= most:
        return quoted
    stem, dot, extension = name.rpartition(".")
    tail = quote(dot + extension, safe="") if stem and len(extension) <= _SHORT_EXTENSION else ""
    if len(tail) >= most:
        tail = ""
    head = ""
    for char in stem if tail else name:
        piece = quote(char, safe="")
        if len(head) + len(piece) + len(tail) > most:
            break
        head += piece
    return head + tail


def content_type(value: str | None) -> str:
    """A media type that can stand in a header; anything else is plain bytes."""
    return value if value and len(value) <= 255 and _CONTENT_TYPE.fullmatch(value) else "application/octet-stream"
