"""How long and how often something is tried again."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sluice.errors import Cancelled, ServerAway, SluiceError

FIRST = 0.2
MOST = 15.0
_TOLD_FROM = 3
"""Tries after which a fault that may be over in a moment is worth telling a person."""


@dataclass
class Patience:
    """The time that may pass without success, and the pauses within it: exponential, with jitter.

    Args:
        seconds: time after which to give up.
        stop: ends every pause immediately.
        on_wait: called with the reason and the seconds left, before a pause that a person may notice.
    """

    seconds: float
    stop: threading.Event
    on_wait: Callable[[str, float], None] = lambda text, left: None
    _tries: int = 0
    _begun: float = field(default_factory=lambda: time.monotonic())

    def check(self) -> None:
        """Raises Cancelled if the caller wants to stop."""
        if self.stop.is_set():
            raise Cancelled("stopped")

    def pause(self, error: SluiceError, at_least: float | None = None) -> None:
        """Sleeps before the next try.

        Args:
            error: the error of the last try; raised if the patience has ended.
            at_least: seconds that the server asked for (Retry-After).
        """
        self.check()
        wait = min(MOST, FIRST * 2**self._tries) * random.uniform(0.5, 1.0)  # noqa: S311  # no secret hangs on it
        wait = max(wait, (at_least or 0.0) * random.uniform(1.0, 1.2))  # noqa: S311
        self._tries += 1
        left = self._begun + self.seconds - time.monotonic()
        if wait > left:
            raise error
        if isinstance(error, ServerAway) or self._tries >= _TOLD_FROM:
            self.on_wait(str(error), left)
        if self.stop.wait(wait):
            raise Cancelled("stopped") from error

    def success(self) -> None:
        """Resets the time after a success."""
        self._tries, self._begun = 0, time.monotonic()
