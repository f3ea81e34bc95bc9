"""A cap on bytes a second, shared by all threads of a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

_BUFFER: Final = 512 * 1024
_LEAST: Final = 4096


class Throttle:
    """See the module's docstring.

    Args:
        rate: bytes a second; 0 stands for no cap.
    """

    def __init__(self, rate: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._free_at = float("-inf")

    @property
    def piece(self) -> int:
        """Bytes to read at once: few where the rate is low, so that it is even."""
        return min(_BUFFER, max(self._rate // 8, _LEAST)) if self._rate else _BUFFER

    def take(self, count: int, halt: threading.Event) -> None:
        """Waits until ``count`` bytes more may be moved, or ``halt`` is set.

        Each taker reserves its time behind the others', so that any number of threads keeps to one rate.
        """
        if not self._rate:
            return
        with self._lock:
            now = self._monotonic()
            self._free_at = max(self._free_at, now) + count / self._rate
            wait = self._free_at - now
        halt.wait(min(wait, threading.TIMEOUT_MAX))
