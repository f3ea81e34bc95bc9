"""Limits the bytes per second of all threads of a process together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

LARGEST_PIECE_BYTES: Final = 512 * 1024
SMALLEST_PIECE_BYTES: Final = 4096


class Throttle:
    """See the module's docstring.

    Args:
        rate: bytes per second; 0 means unlimited.
    """

    def __init__(self, rate: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._free_at = float("-inf")

    @property
    def piece(self) -> int:
        """Bytes per read. Small if the rate is low, so that the flow is even."""
        return (
            min(LARGEST_PIECE_BYTES, max(self._rate // 8, SMALLEST_PIECE_BYTES)) if self._rate else LARGEST_PIECE_BYTES
        )

    def take(self, count: int, halt: threading.Event) -> None:
        """Waits until ``count`` more bytes may be moved, or ``halt`` is set.

        Each caller reserves its time slot after the others', so any number of threads together keeps the rate.
        """
        if not self._rate:
            return
        with self._lock:
            now = self._monotonic()
            self._free_at = max(self._free_at, now) + count / self._rate
            wait = self._free_at - now
        halt.wait(min(wait, threading.TIMEOUT_MAX))
