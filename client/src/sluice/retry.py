"""How long and how often something is tried again."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

from sluice.errors import Cancelled, SluiceError

FIRST = 0.2
MOST = 15.0


@dataclass
class Patience:
    """The time that may pass without success, and the pauses within it: exponential, with jitter.

    Args:
        seconds: give up after so long.
        stop: ends every pause at once.
    """

    seconds: float
    stop: threading.Event
    _tries: int = 0
    _begun: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """Raises Cancelled where the caller wants to stop."""
        if self.stop.is_set():
            raise Cancelled("stopped")

    def pause(self, error: SluiceError, at_least: float | None = None, within: float | None = None) -> None:
        """Sleeps before the next try.

        Args:
            error: what went wrong; raised where the patience is at its end.
            at_least: seconds that the server asked for (Retry-After).
            within: a shorter patience that holds for this error.
        """
        self.check()
        wait = min(MOST, FIRST * 2**self._tries) * random.uniform(0.5, 1.0)  # noqa: S311  # no secret hangs on it
        wait = max(wait, (at_least or 0.0) * random.uniform(1.0, 1.2))  # noqa: S311
        self._tries += 1
        left = self.seconds if within is None else min(within, self.seconds)
        if time.monotonic() + wait > self._begun + left:
            raise error
        if self.stop.wait(wait):
            raise Cancelled("stopped") from error

    def success(self) -> None:
        """Something went well: the time begins anew."""
        self._tries, self._begun = 0, time.monotonic()
