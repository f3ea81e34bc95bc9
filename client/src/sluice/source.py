"""Content of a known size that can be read at any place, by many threads: a file on the disk, or bytes in memory.

Content without a known size, such as a pipe, is read by `sluice.stream`; `sluice.content` chooses between the two.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from sluice.errors import FileChanged, LocalError, PermissionRefused

SEND = 256 * 1024
"""Bytes that are read and sent at a time if the system cannot do both in one call."""


class Source(ABC):
    """Content of a known size.

    Attributes:
        name: the name for messages.
        size: in bytes.
    """

    name: str
    size: int

    @abstractmethod
    def read_into(self, offset: int, view: memoryview) -> int:
        """Fills a buffer from a place; how many bytes, at least one.

        Raises:
            FileChanged: there are no bytes at that place any more.
        """

    def send(self, sock: socket.socket, offset: int, length: int, on_sent: Callable[[int], None], piece: int) -> None:
        """Sends a stretch.

        Args:
            on_sent: called for each piece; it may wait or raise.
            piece: bytes at a time, at most.
        """
        view = memoryview(bytearray(min(SEND, length, piece)))
        while length:
            count = self.read_into(offset, view[: min(len(view), length)])
            sock.sendall(view[:count])
            on_sent(count)
            offset, length = offset + count, length - count

    def check_unchanged(self) -> None:
        """Raises FileChanged if the content has changed since the start."""
        return

    def close(self) -> None:
        """Lets go of what is held."""
        return

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BytesSource(Source):
    """Bytes in memory."""

    def __init__(self, data: bytes | bytearray | memoryview, name: str) -> None:
        self.name = name
        self._data = memoryview(data).cast("B")
        self.size = len(self._data)

    def read_into(self, offset: int, view: memoryview) -> int:
        found = self._data[offset : offset + len(view)]
        view[: len(found)] = found
        return len(found)


class FileSource(Source):
    """A file on the disk, held open: if another file is renamed over it, the old one is still read.

    Args:
        file: the result of `open` with ``buffering=0``.
        own: whether it is closed with this source.
        start: offset at which the content begins.
    """

    def __init__(self, file: BinaryIO, name: str, own: bool = True, start: int = 0) -> None:
        self.name = name
        self._file = file
        self._own = own
        self._descriptor = file.fileno()
        self._start = start
        self._lock = threading.Lock()
        self._first = self._state()
        self.size = max(0, size_of(self._descriptor) - start)

    @classmethod
    def open(cls, path: Path) -> FileSource:
        """Opens a file. Raises PermissionRefused, LocalError."""
        return cls(open_file(path), path.name)

    def _state(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, 0 if stat.S_ISBLK(found.st_mode) else found.st_mtime_ns

    def read_into(self, offset: int, view: memoryview) -> int:
        try:
            if hasattr(os, "preadv"):
                count = os.preadv(self._descriptor, [view], self._start + offset)
            else:  # Windows has no reading at a place
                with self._lock:
                    self._file.seek(self._start + offset)
                    count = self._file.readinto(view)  # type: ignore[attr-defined]
        except OSError as ex:
            raise LocalError(f"{self.name} cannot be read: {ex.strerror}") from ex
        if not count:
            raise self._changed("is shorter than it was")
        return int(count)

    def send(self, sock: socket.socket, offset: int, length: int, on_sent: Callable[[int], None], piece: int) -> None:
        if isinstance(sock, ssl.SSLSocket) or not hasattr(os, "sendfile"):
            super().send(sock, offset, length, on_sent, piece)
            return
        while length:
            try:
                count = os.sendfile(sock.fileno(), self._descriptor, self._start + offset, min(piece, length))
            except BlockingIOError:
                _await_writable(sock)
                continue
            except OSError as ex:
                if ex.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):  # a file system that cannot do it
                    super().send(sock, offset, length, on_sent, piece)
                    return
                raise
            if count == 0:
                raise self._changed("is shorter than it was")
            on_sent(count)
            offset, length = offset + count, length - count

    def check_unchanged(self) -> None:
        if self._state() != self._first:
            raise self._changed("was written to")

    def _changed(self, how: str) -> FileChanged:
        return FileChanged(
            f"{self.name} {how} while it was uploaded; nothing was stored, run it again when it is quiet"
        )

    def close(self) -> None:
        if self._own:
            self._file.close()


def open_file(path: Path) -> BinaryIO:
    """Opens what can be read under a path: a file, a device, a pipe. Raises PermissionRefused, LocalError."""
    try:
        return path.open("rb", buffering=0)
    except PermissionError as ex:
        raise PermissionRefused(f"{path} may not be read") from ex
    except (OSError, ValueError) as ex:  # ValueError: a name with NUL
        reason = ex.strerror if isinstance(ex, OSError) else ex
        raise LocalError(f"{path} cannot be read: {'it is a socket' if _is_socket(path) else reason}") from ex


def size_of(descriptor: int) -> int:
    """Bytes that can be read of a regular file or a block device (whose reported size is 0)."""
    found = os.fstat(descriptor)
    if not stat.S_ISBLK(found.st_mode):
        return found.st_size
    here = os.lseek(descriptor, 0, os.SEEK_CUR)
    end = os.lseek(descriptor, 0, os.SEEK_END)
    os.lseek(descriptor, here, os.SEEK_SET)
    return end


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _await_writable(sock: socket.socket) -> None:
    """Waits as long as the socket's own timeout says."""
    timeout = sock.gettimeout()
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    if not poll.poll(None if timeout is None else timeout * 1000):
        raise TimeoutError("timed out")
