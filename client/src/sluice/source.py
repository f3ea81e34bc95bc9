"""Where content comes from: a file on the disk, bytes, or a stream; read at any place, by many threads at once."""

from __future__ import annotations

import errno
import io
import os
import select
import shutil
import socket
import ssl
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from sluice.errors import FileChanged, LocalError, PermissionRefused

SEND = 256 * 1024
"""Bytes that are read and sent at a time where the system cannot do both in one."""


class Source(ABC):
    """Content of a known size.

    Attributes:
        name: what a person knows it by.
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
            on_sent: told of each piece; it may wait or raise.
            piece: bytes at a time, at most.
        """
        view = memoryview(bytearray(min(SEND, length, piece)))
        while length:
            count = self.read_into(offset, view[: min(len(view), length)])
            sock.sendall(view[:count])
            on_sent(count)
            offset, length = offset + count, length - count

    def check_unchanged(self) -> None:
        """Raises FileChanged where the content is not what it was at first."""
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
    """A file on the disk, held open: one that is renamed over meanwhile goes on as it was."""

    def __init__(self, file: BinaryIO, name: str, own: bool = True) -> None:
        self.name = name
        self._file = file
        self._own = own
        self._descriptor = file.fileno()
        self._lock = threading.Lock()
        self._first = self._state()
        self.size = self._first[0]

    @classmethod
    def open(cls, path: Path) -> FileSource:
        """Opens a file. Raises PermissionRefused, LocalError."""
        try:
            file = path.open("rb", buffering=0)
        except PermissionError as ex:
            raise PermissionRefused(f"{path} may not be read") from ex
        except OSError as ex:
            raise LocalError(f"{path} cannot be read: {ex.strerror}") from ex
        return cls(file, path.name)

    def _state(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns

    def read_into(self, offset: int, view: memoryview) -> int:
        try:
            if hasattr(os, "preadv"):
                count = os.preadv(self._descriptor, [view], offset)
            else:  # Windows has no reading at a place
                with self._lock:
                    self._file.seek(offset)
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
                count = os.sendfile(sock.fileno(), self._descriptor, offset, min(piece, length))
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


class SeekableSource(Source):
    """A file object that can seek, such as io.BytesIO; one thread reads at a time."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self._file = file
        self._lock = threading.Lock()
        self.size = file.seek(0, os.SEEK_END)

    def read_into(self, offset: int, view: memoryview) -> int:
        with self._lock:
            self._file.seek(offset)
            data = self._file.read(len(view))
        if not data:
            raise FileChanged(f"{self.name} is shorter than it was")
        view[: len(data)] = data
        return len(data)


def source_of(content: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO, name: str | None) -> Source:
    """What an upload reads from.

    A stream that cannot seek is copied to a temporary file first: the server is told the size before the bytes.

    Raises:
        ValueError: content without a name of its own was given none.
        LocalError: the file cannot be read.
    """
    if isinstance(content, (str, os.PathLike)):
        source: Source = FileSource.open(Path(content))
    elif isinstance(content, (bytes, bytearray, memoryview)):
        source = BytesSource(content, name or "")
    else:
        source = _of_stream(content)
    source.name = name or source.name
    if not source.name:
        raise ValueError("content that is no file on the disk needs a name")
    return source


def _of_stream(file: BinaryIO) -> Source:
    name = getattr(file, "name", "")
    name = Path(name).name if isinstance(name, str) and not name.startswith("<") else ""
    if not file.seekable():
        # closed with the source that it is given to
        spooled = tempfile.TemporaryFile()  # noqa: SIM115
        shutil.copyfileobj(file, spooled, 1024**2)
        spooled.flush()
        return FileSource(spooled, name)
    try:
        file.fileno()
    except (OSError, AttributeError, io.UnsupportedOperation):
        return SeekableSource(file, name)
    return FileSource(file, name, own=False)


def _await_writable(sock: socket.socket) -> None:
    """Waits as long as the socket's own timeout says."""
    timeout = sock.gettimeout()
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    if not poll.poll(None if timeout is None else timeout * 1000):
        raise TimeoutError("timed out")
