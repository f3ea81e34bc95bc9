"""Disk space that is reserved for a file before the file needs it."""

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

_FALLOC_FL_KEEP_SIZE = 1  # linux/falloc.h


def reserve(files: Iterable[tuple[Path, int]]) -> None:
    """Reserve disk blocks after the ends of files, so that they can grow on a full disk. Their sizes stay the same.

    Ignores errors: the disk is full already, a file is gone, or the file system has no fallocate(2).

    Args:
        files: (path, bytes that it should be able to grow by) of each.
    """
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    for path, room in files:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            size = ctypes.c_int64(os.fstat(descriptor).st_size)
            fallocate(descriptor, _FALLOC_FL_KEEP_SIZE, size, ctypes.c_int64(room))
        finally:
            os.close(descriptor)


def write_if_other(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a small file atomically, if its text has changed. An unchanged file needs no free space at a start.

    Raises:
        OSError: the file cannot be written; the old text stays.
    """
    try:
        if path.read_text() == text:
            return
    except OSError:
        pass
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(text)
    unfinished.chmod(mode)
    unfinished.replace(path)
