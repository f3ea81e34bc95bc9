"""A download in progress on the disk: the bytes in NAME.part, and beside them a journal of what is there.

The journal has a line for each whole part: its number and SHA-256, written after its bytes. A later run hashes what the
journal names before it believes it: after a loss of power a line may be there whose bytes are not. Both files go when
the download gets its name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from sluice.digest import Plan, composite, hash_parts
from sluice.errors import DiskFull, LocalError, PermissionRefused
from sluice.names import partial_name
from sluice.source import FileSource


class PartialFile:
    """See the module's docstring.

    Args:
        path: the final path of the file.
        digest: the whole content's.

    Attributes:
        hashes: SHA-256 of the parts that are there, by number.
    """

    def __init__(self, path: Path, plan: Plan, digest: str) -> None:
        self.path = path
        self.plan = plan
        self.digest = digest
        self.part_path = path.with_name(partial_name(path.name))
        self._journal_path = self.part_path.with_name(self.part_path.name + ".journal")
        self.hashes: dict[int, str] = {}
        self._lock = threading.Lock()
        self._head = f"sluice 1 {digest} {plan.size}\n"
        with local_errors(path):
            # not truncated: the download may resume with its content
            self._file = os.fdopen(os.open(self.part_path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666), "r+b", 0)
        try:
            self._take()
            self._journal = self._resume()
        except BaseException:
            self._file.close()
            raise

    def _take(self) -> None:
        """One process at a time writes to it."""
        if sys.platform == "win32":
            return
        import fcntl

        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as ex:
            if ex.errno in (errno.EAGAIN, errno.EACCES):
                raise LocalError(f"{self.part_path} is being downloaded by another process") from ex

    def _resume(self) -> int:
        """Reads the journal, believes what the bytes bear out, and opens it for more."""
        with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
            head, _, lines = self._journal_path.read_text("ascii").partition("\n")
            if head + "\n" == self._head:
                self.hashes = self._borne_out(dict(_entries(lines, self.plan.part_count)))
        with local_errors(self.path):
            if not self.hashes:
                self._empty()
            self._file.truncate(self.plan.size)
            if self.plan.part_count == 1:
                return -1
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | _BINARY
            journal = os.open(self._journal_path, flags, 0o666)
            lines = "".join(f"{number} {sha256}\n" for number, sha256 in self.hashes.items())
            os.write(journal, (self._head + lines).encode())
            return journal

    def _borne_out(self, claimed: dict[int, str]) -> dict[int, str]:
        size = os.fstat(self._file.fileno()).st_size
        whole = [number for number in claimed if sum(self.plan.part(number)) <= size]
        found = hash_parts(FileSource(self._file, self.path.name, own=False), self.plan, whole, os.cpu_count() or 1)
        return {number: sha256 for number, sha256 in found.items() if claimed[number] == sha256}

    def _empty(self) -> None:
        # if a file was truncated to 0 bytes, ext4 writes it to the disk on close: half a second for 1 GiB
        if os.fstat(self._file.fileno()).st_size:
            self._file.truncate(0)

    @property
    def kept(self) -> int:
        """Bytes that are there."""
        return sum(self.plan.part(number)[1] for number in self.hashes)

    def write(self, offset: int, view: memoryview) -> None:
        """Writes bytes to their place. Raises DiskFull, LocalError."""
        # a file system lets one thread at a time write to a file: the others would spin for it on cores that are needed
        with local_errors(self.path), self._lock:
            while view:
                if hasattr(os, "pwrite"):
                    count = os.pwrite(self._file.fileno(), view, offset)
                else:  # Windows has no writing at a place
                    self._file.seek(offset)
                    count = self._file.write(view)
                offset, view = offset + count, view[count:]

    def part_done(self, number: int, sha256: str) -> None:
        """All bytes of a part are written."""
        with self._lock:
            self.hashes[number] = sha256
            if self._journal >= 0:
                with local_errors(self.path):
                    os.write(self._journal, f"{number} {sha256}\n".encode())

    def is_right(self) -> bool:
        """Whether the parts add up to the digest."""
        return composite([self.hashes[number] for number in range(1, self.plan.part_count + 1)]) == self.digest

    def begin_anew(self) -> None:
        """Drops what is there."""
        self.hashes.clear()
        with local_errors(self.path):
            self._empty()
            self._file.truncate(self.plan.size)
            if self._journal >= 0:
                os.truncate(self._journal, 0)
                os.write(self._journal, self._head.encode())

    def finish(self, *, sync: bool) -> None:
        """Gives the file its name."""
        with local_errors(self.path):
            if sync:
                os.fsync(self._file.fileno())
            if sys.platform == "win32":
                self._close()  # an open file cannot be renamed there
            os.replace(self.part_path, self.path)
        self._close()
        self._journal_path.unlink(missing_ok=True)

    def _close(self) -> bool:
        """Whether it was open."""
        if self._file.closed:
            return False
        self._file.close()
        if self._journal >= 0:
            os.close(self._journal)
        return True

    def close(self) -> None:
        """Closes the files. If they hold no part that another run could use, they are deleted."""
        if self._close() and not self.hashes:
            for path in (self.part_path, self._journal_path):
                with contextlib.suppress(OSError):
                    path.unlink()

    def drop(self) -> None:
        """Deletes what is there."""
        self.hashes.clear()
        self.close()


_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def _entries(text: str, count: int) -> Iterator[tuple[int, str]]:
    """Whole lines only: the last may have been cut off."""
    for line in text.split("\n")[:-1]:
        number, _, sha256 = line.partition(" ")
        if number.isdecimal() and 1 <= int(number) <= count and len(sha256) == 64:
            yield int(number), sha256


@contextlib.contextmanager
def local_errors(path: Path) -> Iterator[None]:
    """Makes one clear line of what the file system says."""
    try:
        yield
    except OSError as ex:
        if ex.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(f"{path}: the disk is full; what came is kept, so make room and run it again") from ex
        if isinstance(ex, PermissionError) or ex.errno == errno.EROFS:
            raise PermissionRefused(f"{path} cannot be written: {ex.strerror}") from ex
        raise LocalError(f"{path} cannot be written: {ex.strerror}") from ex
