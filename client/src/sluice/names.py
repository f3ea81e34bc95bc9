"""Names that the local file system can take."""

from __future__ import annotations

import hashlib
import os
import sys

from sluice.errors import NameRefused

_MOST_BYTES = 255
_WINDOWS_CHARACTERS = frozenset('<>:"|?*\\')
# Microsoft: Naming Files, Paths, and Namespaces; also with an extension, and with the superscript digits
_WINDOWS_RESERVED = frozenset(
    ["CON", "PRN", "AUX", "NUL", *(f"{device}{digit}" for device in ("COM", "LPT") for digit in "0123456789¹²³")]
)


def check_local_name(name: str, platform: str = sys.platform) -> str:
    """Returns the name if a file can have it on this system.

    Raises:
        NameRefused: it cannot; says why.
    """
    reason = _refusal(name, platform)
    if reason:
        raise NameRefused(f"{name!r} cannot be the name of a file here: {reason}; choose one with -o")
    return name


def _refusal(name: str, platform: str) -> str | None:
    if not name or name in (".", ".."):
        return "it names a folder"
    if "/" in name or "\0" in name:
        return "'/' and NUL mean something else"
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "it has control characters"
    if platform == "win32":
        found = _WINDOWS_CHARACTERS & set(name)
        if found:
            return f"Windows keeps {' '.join(sorted(found))} for itself"
        if name[-1] in " .":
            return "Windows drops a last space or dot"
        if name.partition(".")[0].rstrip(" ").upper() in _WINDOWS_RESERVED:
            return "Windows keeps it for a device"
        if len(name.encode("utf-16-le")) // 2 > _MOST_BYTES:
            return f"it has more than {_MOST_BYTES} characters"
    elif len(name.encode(errors="surrogateescape")) > _MOST_BYTES:
        return f"it has more than {_MOST_BYTES} bytes"
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return "this locale has no such characters in names (LC_ALL=C.UTF-8 has)"
    return None


def partial_name(name: str, suffix: str = ".part") -> str:
    """Returns the name of an incomplete file. A long name is cut, and made unique by its hash."""
    if len(name.encode(errors="surrogateescape")) + len(suffix) + len(".journal") <= _MOST_BYTES:
        return name + suffix
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:32] + suffix
