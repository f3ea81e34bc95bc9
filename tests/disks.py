"""A small separate disk for a test, and a way to fill it to the last byte."""

import errno
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[None]:
    """Mounts an ext4 file system on an empty folder; owner and mode stay. ext4 keeps holes, as real disks do."""
    owner = folder.stat()
    image = Path(tempfile.mkdtemp(prefix="sluice-disk-")) / "image"
    try:
        with image.open("wb") as file:
            file.truncate(mebibytes * 1024**2)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        if subprocess.run(["mount", "-o", "loop", image, folder], check=False).returncode:
            pytest.skip("MOUNTING IS NOT PERMITTED HERE: a really full disk is not tried")
        try:
            os.chown(folder, owner.st_uid, owner.st_gid)
            folder.chmod(owner.st_mode & 0o7777)
            yield
        finally:
            # a process that is just ending may still have a file open
            subprocess.run(["umount", "--lazy", folder], check=True)
    finally:
        image.unlink(missing_ok=True)
        image.parent.rmdir()


class Filler:
    """A file that takes every byte of a disk, also bytes that are freed later, until it is removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb", buffering=0)
        self._ended = threading.Event()
        self._fill()
        self._thread = threading.Thread(target=self._keep_full, daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        size = 1024**2
        while size and not self._ended.is_set():
            try:
                self._file.write(b"x" * size)
            except OSError as ex:
                if ex.errno != errno.ENOSPC:
                    raise
                size //= 2

    def _keep_full(self) -> None:
        while not self._ended.wait(0.02):
            self._fill()

    def remove(self) -> None:
        """Frees space."""
        self._ended.set()
        self._thread.join()
        self._file.close()
        self._path.unlink(missing_ok=True)
