"""Many part files into one object: copied, hashed and written back at the same time, in constant memory.

Three things overlap: this thread copies parts inside the kernel, two threads hash them, one writes back to the disk
what was copied. hashlib, reads and fdatasync all let go of the GIL. The hash of the object as a whole is not made here:
it goes from front to back in one thread, and `done` does not wait for that.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from api.core import digests

_BUFFER: Final = 256 * 1024
_HASHING: Final = 2
_LOOKAHEAD: Final = 8
"""Parts that are copied before they are hashed, at most."""
_WRITEBACK: Final = 64 * 1024**2
"""Bytes copied between two requests to write them to the disk."""
_NO_KERNEL_COPY: Final = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class _Hashers(threading.local):
    """A buffer for each thread that hashes."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(_BUFFER))

    def feed(self, sink: Callable[[memoryview], None], descriptor: int, offset: int, length: int) -> None:
        while length > 0:
            count = os.preadv(descriptor, [self.buffer[: min(length, _BUFFER)]], offset)
            if count == 0:
                return
            sink(self.buffer[:count])
            offset += count
            length -= count

    def sha256(self, descriptor: int, offset: int, length: int) -> bytes:
        digest = hashlib.sha256()
        self.feed(digest.update, descriptor, offset, length)
        return digest.digest()


_hashers: Final = _Hashers()


def hash_file(path: Path, size: int, part_size: int, keep_alive: Callable[[], None]) -> tuple[list[bytes], bytes]:
    """The SHA-256 of each part of a file, and of the whole."""
    whole, parts = hashlib.sha256(), []
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for offset in range(0, size, part_size):
            part = hashlib.sha256()

            def both(data: memoryview, part: hashlib._Hash = part) -> None:
                part.update(data)
                whole.update(data)

            _hashers.feed(both, descriptor, offset, min(part_size, size - offset))
            parts.append(part.digest())
            keep_alive()
    finally:
        os.close(descriptor)
    return parts, whole.digest()


class _Pending:
    """Parts that are being hashed, in order; each holds its file open until it is settled.

    Attributes:
        wrong: numbers of the parts that were not what they should be.
    """

    def __init__(self, pool: ThreadPoolExecutor, hashes: list[bytes], keep_alive: Callable[[], None]) -> None:
        self._pool = pool
        self._hashes = hashes
        self._keep_alive = keep_alive
        self._parts: deque[tuple[int, int, Future[bytes]]] = deque()
        self.wrong: list[int] = []

    def add(self, number: int, source: int, length: int) -> None:
        """Begins to hash a part, whose open file it takes over."""
        self._parts.append((number, source, self._pool.submit(_hashers.sha256, source, 0, length)))

    def settle(self, most: int) -> None:
        """Waits until at most so many are left."""
        while len(self._parts) > most:
            number, source, sha256 = self._parts.popleft()
            try:
                if sha256.result() != self._hashes[number - 1]:
                    self.wrong.append(number)
            finally:
                os.close(source)
            self._keep_alive()

    def drop(self) -> None:
        """Gives up what is left, after a failure."""
        while self._parts:
            _, source, sha256 = self._parts.popleft()
            sha256.cancel() or sha256.exception()
            os.close(source)


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

    def run(self, hashes: list[bytes], keep_alive: Callable[[], None]) -> list[int]:
        """Copies, hashes and syncs; answers the numbers of the parts that are not what ``hashes`` says."""
        with ExitStack() as stack:
            self._target = os.open(self._target_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, self._target)
            disk = stack.enter_context(ThreadPoolExecutor(1))
            pending = _Pending(stack.enter_context(ThreadPoolExecutor(_HASHING)), hashes, keep_alive)
            stack.callback(pending.drop)
            self._copy_all(hashes, pending, disk)
            os.ftruncate(self._target, self._size)
            synced = disk.submit(os.fsync, self._target)
            pending.settle(0)
            synced.result()
        return pending.wrong

    def _copy_all(self, hashes: list[bytes], pending: _Pending, disk: ThreadPoolExecutor) -> None:
        found = os.fstat(self._target).st_size
        written: Future[None] | None = None
        unsynced = 0
        for number, expected in enumerate(hashes, 1):
            offset = (number - 1) * self._part_size
            length = digests.part_length(number, self._size, self._part_size)
            source = os.open(self._folder / str(number), os.O_RDONLY | os.O_CLOEXEC)
            pending.add(number, source, length)
            if not self._kept(found, offset, length, expected):
                self._copy(source, offset, length)
                unsynced += length
            if unsynced >= _WRITEBACK and (written is None or written.done()):
                written = disk.submit(os.fdatasync, self._target)
                unsynced = 0
            pending.settle(_LOOKAHEAD)

    def _kept(self, found: int, offset: int, length: int, expected: bytes) -> bool:
        """Whether an earlier try copied this part already, and rightly so."""
        return found >= offset + length and _hashers.sha256(self._target, offset, length) == expected

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
