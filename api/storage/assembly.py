"""Many part files into one object: copied, hashed and written back at the same time, in constant memory.

Three things overlap: this thread copies parts inside the kernel, two threads hash (each part by itself, and the
object as a whole), one writes back to the disk what was copied. hashlib, reads and fdatasync all let go of the GIL.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from api import digests

_BUFFER: Final = 1024**2
_LOOKAHEAD: Final = 4
"""Parts that are copied before they are hashed, at most."""
_WRITEBACK: Final = 64 * 1024**2
"""Bytes copied between two requests to write them to the disk."""
_NO_KERNEL_COPY: Final = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class _Hasher:
    """Feeds ranges of files to a hash, through one buffer."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(_BUFFER))

    def feed(self, sink: Callable[[memoryview], None], descriptor: int, offset: int, length: int) -> None:
        while length > 0:
            count = os.preadv(descriptor, [self._buffer[: min(length, _BUFFER)]], offset)
            if count == 0:
                return
            sink(self._buffer[:count])
            offset += count
            length -= count

    def sha256(self, descriptor: int, offset: int, length: int) -> bytes:
        digest = hashlib.sha256()
        self.feed(digest.update, descriptor, offset, length)
        return digest.digest()


def hash_file(path: Path, size: int, part_size: int, keep_alive: Callable[[], None]) -> tuple[list[bytes], bytes]:
    """The SHA-256 of each part of a file, and of the whole."""
    hasher, whole, parts = _Hasher(), hashlib.sha256(), []
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for offset in range(0, size, part_size):
            part = hashlib.sha256()

            def both(data: memoryview, part: hashlib._Hash = part) -> None:
                part.update(data)
                whole.update(data)

            hasher.feed(both, descriptor, offset, min(part_size, size - offset))
            parts.append(part.digest())
            keep_alive()
    finally:
        os.close(descriptor)
    return parts, whole.digest()


class Assembly:
    """One object in the making.

    Args:
        folder: holds the parts, named by their numbers.
        target: the object's file; what an earlier try left in it is hashed and, where it is right, kept.
    """

    def __init__(self, folder: Path, target: Path, size: int, part_size: int) -> None:
        self._folder = folder
        self._target_path = target
        self._size = size
        self._part_size = part_size
        self._whole = hashlib.sha256()
        self._part_hasher = _Hasher()
        self._whole_hasher = _Hasher()

    def run(self, hashes: list[bytes], keep_alive: Callable[[], None]) -> tuple[list[int], bytes]:
        """Copies and hashes; the numbers of the parts that are not what ``hashes`` says, and the whole's SHA-256.

        On return the bytes are on the disk.
        """
        with ExitStack() as stack:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._target = os.open(self._target_path, flags, 0o600)
            stack.callback(os.close, self._target)
            found = os.fstat(self._target).st_size
            pools = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(3)]
            part_pool, whole_pool, disk_pool = pools
            pending: deque[tuple[int, int, Future[bytes], Future[None]]] = deque()
            wrong: list[int] = []

            def settle() -> None:
                number, source, part_hash, whole = pending.popleft()
                try:
                    whole.result()
                    if part_hash.result() != hashes[number - 1]:
                        wrong.append(number)
                finally:
                    os.close(source)
                keep_alive()

            written: Future[None] | None = None
            unsynced = 0
            try:
                for number in range(1, len(hashes) + 1):
                    offset = (number - 1) * self._part_size
                    length = digests.part_length(number, self._size, self._part_size)
                    source = os.open(self._folder / str(number), os.O_RDONLY | os.O_CLOEXEC)
                    pending.append(
                        (
                            number,
                            source,
                            part_pool.submit(self._part_hasher.sha256, source, 0, length),
                            whole_pool.submit(self._whole_hasher.feed, self._whole.update, source, 0, length),
                        )
                    )
                    if not self._kept(found, offset, length, hashes[number - 1]):
                        self._copy(source, offset, length)
                        unsynced += length
                    if unsynced >= _WRITEBACK and (written is None or written.done()):
                        written = disk_pool.submit(os.fdatasync, self._target)
                        unsynced = 0
                    while len(pending) >= _LOOKAHEAD:
                        settle()
                os.ftruncate(self._target, self._size)
                last = disk_pool.submit(os.fsync, self._target)
                while pending:
                    settle()
                last.result()
            finally:
                for _, source, part_hash, whole in pending:
                    for future in (part_hash, whole):
                        future.cancel()
                        if not future.cancelled():
                            future.exception()
                    os.close(source)
        return wrong, self._whole.digest()

    def _kept(self, found: int, offset: int, length: int, expected: bytes) -> bool:
        """Whether an earlier try copied this part already, and rightly so."""
        return found >= offset + length and _Hasher().sha256(self._target, offset, length) == expected

    def _copy(self, source: int, offset: int, length: int) -> None:
        done = 0
        while done < length:
            try:
                count = os.copy_file_range(source, self._target, length - done, done, offset + done)
            except OSError as ex:
                if ex.errno not in _NO_KERNEL_COPY:
                    raise
                count = os.pwrite(self._target, os.pread(source, _BUFFER, done), offset + done)
            if count == 0:
                raise OSError(errno.EIO, "a part became shorter while it was copied")
            done += count
