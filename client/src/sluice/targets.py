"""Where a download goes, if that is no new file: devices and pipes are written into, links stay links."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from sluice.errors import LocalError
from sluice.partial import local_errors

_DESCRIPTORS = ("/dev/fd/", "/proc/self/fd/", "/dev/stdout", "/dev/stderr")


def is_written_into(target: Path) -> bool:
    """Whether a target takes bytes and is not replaced: a device, a pipe, an open descriptor.

    Raises:
        LocalError: it takes none, as a socket.
    """
    if os.fspath(target).startswith(_DESCRIPTORS):
        return True
    try:
        mode = target.stat().st_mode
    except OSError:
        return False
    if stat.S_ISSOCK(mode) or stat.S_ISDIR(mode):
        raise LocalError(f"{target} is a {'socket' if stat.S_ISSOCK(mode) else 'folder'}: no file can be written there")
    return not stat.S_ISREG(mode)


def write_into(target: Path, pieces: Iterable[memoryview]) -> None:
    """Writes pieces one after another. Raises LocalError, and what the pieces raise."""
    with local_errors(target):
        descriptor = os.open(target, os.O_WRONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        for piece in pieces:
            rest = piece
            while rest:
                with local_errors(target):
                    rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)


def behind_links(target: Path) -> Path:
    """The file that a link leads to, which is replaced instead of the link."""
    return target.resolve() if target.is_symlink() else target
