"""Metric files of several processes that are safe on a full disk.

The Prometheus library maps sparse files into memory. On a full disk, the first write to a page without a block kills
the process by SIGBUS. Here every block is allocated before the file is mapped. If that fails, the process counts in its
memory, and tries the file again later.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import Any, Final

from prometheus_client.mmap_dict import MmapedDict

NOWHERE: Final = "nowhere"
"""The name of a process without a file: it counts in memory only."""

FIRST_SIZE_BYTES: Final = 1 << 16
RETRY_SECONDS: Final = 10.0
"""Seconds between two attempts to allocate a file."""


class AllocatedDict(MmapedDict):
    """A dictionary of floats in a mapped file, for the library. Overrides how the file is allocated.

    Args:
        filename: ends with ``_NAME.db``.
    """

    _f: Any

    def __init__(self, filename: str) -> None:
        self._fname = filename
        self._f = None
        self._positions: dict[str, int] = {}
        self._m = mmap.mmap(-1, FIRST_SIZE_BYTES)
        self._capacity = FIRST_SIZE_BYTES
        self._used = 8
        self._m[:4] = self._used.to_bytes(4, "little")
        self._try_at = 0.0
        self._use_file()

    def _use_file(self) -> None:
        """Maps the file if its blocks can be allocated, and copies the values from memory to it."""
        self._try_at = time.monotonic() + RETRY_SECONDS
        if self._fname.endswith(f"_{NOWHERE}.db"):
            return
        try:
            descriptor = os.open(self._fname, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        file = os.fdopen(descriptor, "r+b")
        try:
            size = max(os.fstat(descriptor).st_size, self._capacity)
            os.posix_fallocate(descriptor, 0, size)
            mapped = mmap.mmap(descriptor, size)
        except OSError:
            file.close()
            return
        counted = [(key, value, timestamp) for key, value, timestamp, _ in self._read_all_values()]  # type: ignore[no-untyped-call]
        self._f, self._m, self._capacity, self._positions = file, mapped, size, {}
        self._used = int.from_bytes(mapped[:4], "little") or 8
        mapped[:4] = self._used.to_bytes(4, "little")
        for key, _, _, position in self._read_all_values():  # type: ignore[no-untyped-call]
            self._positions[key] = position
        for key, value, timestamp in counted:
            self.write_value(key, value, timestamp)

    def _init_value(self, key: str) -> None:
        room = 4 + len(key.encode()) + 8 + 16  # at most: length, key, padding, value and time
        while self._used + room > self._capacity:
            self._grow()
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _grow(self) -> None:
        size = self._capacity * 2
        try:
            if self._f is None:
                raise OSError
            os.posix_fallocate(self._f.fileno(), 0, size)
            grown = mmap.mmap(self._f.fileno(), size)
        except OSError:
            grown = mmap.mmap(-1, size)
            grown[: self._capacity] = self._m[:]
            if self._f is not None:
                self._f.close()
                self._f = None
        self._m, self._capacity = grown, size

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Sets a value. Not thread-safe, like the library's method."""
        if self._f is None and time.monotonic() > self._try_at:
            self._use_file()
        super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Closes the mapping and the file."""
        self._m.close()
        if self._f is not None:
            self._f.close()
            self._f = None
