"""Examines the folders of storage ``local``: what `storage check` shows for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from api.storage.base import Finding


def examine(root: Path, folders: Sequence[str], min_free: int) -> Iterator[Finding]:
    """Checks that the folders are writable and on one filesystem, and that there is free space.

    Args:
        min_free: bytes that must stay free.
    """
    paths = [root / name for name in folders]
    wrong = [path for path in paths if not os.access(path, os.R_OK | os.W_OK | os.X_OK)]
    for path in wrong:
        yield Finding(
            "folders", False, f"{path} cannot be written", "it must belong to the user that nginx and the API run as"
        )
    if wrong:
        return
    yield Finding("folders", True, f"{', '.join(folders)} below {root} can be written")
    if problem := _cannot_rename(paths):
        yield Finding("filesystem", False, f"files cannot be renamed: {problem}", "put all folders on one filesystem")
    else:
        yield Finding("filesystem", True, "is the same for all of them")
    status = os.statvfs(root)
    free, unused = status.f_bavail * status.f_frsize, status.f_favail
    text = f"{free // 1024**2} MiB are free, {min_free // 1024**2} MiB are kept free (SLUICE_MIN_FREE)"
    yield Finding("room", free > min_free, text, "" if free > min_free else "make room, or lower SLUICE_MIN_FREE")
    if status.f_files and not unused:
        yield Finding("room", False, "no inode is left: no file can be made", "make room")


def _cannot_rename(paths: Sequence[Path]) -> str:
    """Renames a file through all folders, like a part. Returns the error; empty if there is none."""
    place = paths[0] / f"check-{os.urandom(8).hex()}"
    try:
        place.write_bytes(b"x")
        for path in paths[1:]:
            place = place.rename(path / place.name)
    except OSError as ex:
        return str(ex.strerror)
    finally:
        with suppress(OSError):
            place.unlink()
    return ""
