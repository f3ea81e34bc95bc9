"""Room on the disk that belongs to one file before the file needs it."""

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

_FALLOC_FL_KEEP_SIZE = 1  # linux/falloc.h


def reserve(files: Iterable[tuple[Path, int]]) -> None:
    """Allocate blocks behind the ends of files, so that these can grow on a full disk; the sizes stay.

    What cannot be had is left: a disk that is full already, a file that is gone, a file system without
    fallocate(2).

    Args:
        files: each with the bytes it should be able to grow by.
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
    """Write a small file whole, if its text is another: a start needs no room for what is there already.

    Raises:
        OSError: it cannot be written; the old text stays.
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
