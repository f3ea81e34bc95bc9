"""Assembles part files into one object: copies, hashes and writes back concurrently, in constant memory.

Three steps overlap: this thread copies parts inside the kernel, two threads hash them, and one writes the copied data
back to the disk. hashlib, reads and fdatasync all release the GIL. The hash of the whole object is computed later by a
worker, since it needs a sequential pass and a complete request should not wait for it.
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

READ_BUFFER_BYTES: Final = 256 * 1024
HASH_THREADS: Final = 2
MOST_UNHASHED_PARTS: Final = 8
"""Most parts that are copied but not hashed yet."""
WRITEBACK_BYTES: Final = 64 * 1024**2
"""Bytes that are copied between two calls of fdatasync."""
_NO_KERNEL_COPY: Final = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class _Hashers(threading.local):
    """A buffer per hashing thread."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(READ_BUFFER_BYTES))

    def feed(self, sink: Callable[[memoryview], None], descriptor: int, offset: int, length: int) -> None:
        while length > 0:
            count = os.preadv(descriptor, [self.buffer[: min(length, READ_BUFFER_BYTES)]], offset)
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
    """Parts that are being hashed, in order. Each keeps its file open until it is done.

    Attributes:
        wrong: numbers of the parts with a wrong hash.
    """

    def __init__(self, pool: ThreadPoolExecutor, hashes: list[bytes], keep_alive: Callable[[], None]) -> None:
        self._pool = pool
        self._hashes = hashes
        self._keep_alive = keep_alive
        self._parts: deque[tuple[int, int, Future[bytes]]] = deque()
        self.wrong: list[int] = []

    def add(self, number: int, source: int, length: int) -> None:
        """Starts to hash a part. Takes ownership of its open file."""
        self._parts.append((number, source, self._pool.submit(_hashers.sha256, source, 0, length)))

    def settle(self, most: int) -> None:
        """Waits until at most ``most`` parts are left."""
        while len(self._parts) > most:
            number, source, sha256 = self._parts.popleft()
            try:
                if sha256.result() != self._hashes[number - 1]:
                    self.wrong.append(number)
            finally:
                os.close(source)
            self._keep_alive()

    def drop(self) -> None:
        """Drops the remaining parts, after a failure."""
        while self._parts:
            _, source, sha256 = self._parts.popleft()
            sha256.cancel() or sha256.exception()
            os.close(source)


class Assembly:
    """The assembly of one object.

    Args:
        folder: holds the parts, named by their numbers.
        target: the object's file. If an earlier try has copied parts to it, they are kept if their hash is right.
    """

    def __init__(self, folder: Path, target: Path, size: int, part_size: int) -> None:
        self._folder = folder
        self._target_path = target
        self._size = size
        self._part_size = part_size

    def run(self, hashes: list[bytes], keep_alive: Callable[[], None]) -> list[int]:
        """Copies, hashes and syncs. Returns the numbers of the parts with a wrong hash."""
        with ExitStack() as stack:
            self._target = os.open(self._target_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, self._target)
            disk = stack.enter_context(ThreadPoolExecutor(1))
            pending = _Pending(stack.enter_context(ThreadPoolExecutor(HASH_THREADS)), hashes, keep_alive)
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
            if unsynced >= WRITEBACK_BYTES and (written is None or written.done()):
                written = disk.submit(os.fdatasync, self._target)
                unsynced = 0
            pending.settle(MOST_UNHASHED_PARTS)

    def _kept(self, found: int, offset: int, length: int, expected: bytes) -> bool:
        """Whether an earlier try has copied this part correctly."""
        return found >= offset + length and _hashers.sha256(self._target, offset, length) == expected

    def _copy(self, source: int, offset: int, length: int) -> None:
        done = 0
        while done < length:
            try:
                count = os.copy_file_range(source, self._target, length - done, done, offset + done)
            except OSError as ex:
                if ex.errno not in _NO_KERNEL_COPY:
                    raise
                count = os.pwrite(self._target, os.pread(source, READ_BUFFER_BYTES, done), offset + done)
            if count == 0:
                raise OSError(errno.EIO, "a part became shorter while it was copied")
            done += count
