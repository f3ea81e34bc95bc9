"""--limit-rate: one pace for all connections of a client together."""

from __future__ import annotations

import threading
import time

LEAST = 4096
MOST = 1024**2


class Limiter:
    """Limits the rate in bytes per second. If there is no limit, nothing waits.

    Each taker books the next stretch of time and sleeps until it begins, so that many threads share one pace.

    Attributes:
        piece: bytes to move at a time, at most: a slow pace should be an even one.
    """

    def __init__(self, rate: float | None, stop: threading.Event) -> None:
        self.piece = MOST if rate is None else max(LEAST, min(MOST, int(rate / 8)))
        self._rate = rate
        self._stop = stop
        self._lock = threading.Lock()
        self._next = 0.0

    def take(self, count: int) -> None:
        """Waits for the turn of ``count`` bytes."""
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._next)
            self._next = begin + count / self._rate
        if begin > now:
            self._stop.wait(begin - now)
