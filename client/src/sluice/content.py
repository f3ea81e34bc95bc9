"""The content of an upload, and how it is read: as a file of a known size, as bytes, or as a stream to its end.

A file object's descriptor is used only if reading the object gives exactly what the descriptor holds: that is so of
what `open` gives in binary mode, and of temporary files. Everything else (gzip, bz2, lzma, members of archives,
responses, sockets, pipes, custom objects) is read by its `read`, from its current position on.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from sluice.digest import SMALLEST_PART, composite, digest_of
from sluice.errors import ConfigError, LocalError
from sluice.source import BytesSource, FileSource, Source, open_file, size_of
from sluice.stream import Stream

_PAGE = 65536
"""No file of sysfs is larger; all of them report a size of 4,096 bytes, whatever their real size."""


class Readable(Protocol):
    """A binary file object."""

    def read(self, size: int = ..., /) -> bytes:
        """So many bytes at most; none at the end."""


Content = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Readable


def opened(content: Content, name: str | None) -> Source | Stream:
    """Returns the source or stream that an upload reads. The caller closes it.

    Args:
        name: the file's name on the server; if it is None, the name of the path or plain file is used.

    Raises:
        ConfigError: it has no name, is opened for text, not for reading, or closed.
        LocalError: it cannot be read.
    """
    try:
        found = _opened(content, name)
    except (ValueError, io.UnsupportedOperation) as ex:
        raise ConfigError(f"the file object cannot be read: {ex}") from ex
    found.name = name or found.name
    if not found.name:
        found.close()
        raise ConfigError("content that is no file on the disk needs a name")
    return found


def _opened(content: Content, name: str | None) -> Source | Stream:
    if isinstance(content, (str, os.PathLike)):
        path = Path(content)
        return _of_file(open_file(path), path.name, own=True, start=0)
    if isinstance(content, mmap.mmap):
        return BytesSource(memoryview(content)[content.tell() :], "")
    if isinstance(content, io.BytesIO) and type(content).read is io.BytesIO.read:
        return BytesSource(content.getbuffer()[content.tell() :], "")
    if not hasattr(content, "read"):
        try:
            return BytesSource(memoryview(content), "")
        except TypeError:
            raise ConfigError(f"a {type(content).__name__} is no path, no bytes, and no binary file object") from None
    if isinstance(content, io.TextIOBase):
        raise ConfigError("the file object is opened for text: open it in binary mode ('rb')")
    return _of_object(cast(Readable, content))


def _of_object(content: Readable) -> Source | Stream:
    file = _inside(content)
    if file is not content and isinstance(file, (io.BytesIO, io.TextIOBase)):
        return _opened(file, None)  # type: ignore[arg-type]
    raw = file.raw if type(file) in (io.BufferedReader, io.BufferedRandom) else file  # type: ignore[attr-defined]
    if type(raw) is not io.FileIO:
        return Stream(content, "")
    if not raw.readable():
        raise ConfigError("the file object is not opened for reading")
    label = getattr(file, "name", "")
    label = label if isinstance(label, str) and not label.startswith("<") else ""
    if not raw.seekable():
        return Stream(content, "")
    if file is not raw:
        file.flush()  # type: ignore[attr-defined]  # what was written and is not in the file yet
    return _of_file(file, Path(label).name, own=False, start=file.tell())  # type: ignore[arg-type, attr-defined]


def _inside(content: Readable) -> object:
    """The file in a wrapper of `tempfile`."""
    if isinstance(content, tempfile._TemporaryFileWrapper):
        return content.file
    if isinstance(content, tempfile.SpooledTemporaryFile):
        return content._file
    return content


def _of_file(file: BinaryIO, name: str, *, own: bool, start: int) -> Source | Stream:
    """A file or device by its descriptor, if that says how much can be read."""
    try:
        found = os.fstat(file.fileno())
        if stat.S_ISBLK(found.st_mode) and not size_of(file.fileno()):
            raise LocalError(f"{name} is a device without content")
        says_its_size = stat.S_ISBLK(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_size > 0)
        if not says_its_size:
            return Stream(file, name, own=own)  # a pipe, a terminal, /proc, or an empty file
        if not found.st_blocks and found.st_size <= _PAGE:
            return _of_little(file, name, own=own, start=start)
        return FileSource(file, name, own=own, start=start)
    except BaseException:
        if own:
            file.close()
        raise


def _of_little(file: BinaryIO, name: str, *, own: bool, start: int) -> Source:
    """A file that occupies nothing on a disk: that may be small, or one of sysfs, which is shorter than it says."""
    data = b""
    while piece := os.pread(file.fileno(), _PAGE, start + len(data)):
        data += piece
    source = FileSource(file, name, own=own, start=start)
    if len(data) == source.size:
        return source
    source.close()
    return BytesSource(data, name)


def digest_of_path(path: Path, threads: int) -> str:
    """The digest of what can be read under a path, a pipe too. Raises LocalError, PermissionRefused."""
    with opened(path, None) as found:
        if isinstance(found, Source):
            return digest_of(found, threads)
        hashes = []
        while part := found.read(SMALLEST_PART):
            hashes.append(hashlib.sha256(part).hexdigest())
        return composite(hashes)
