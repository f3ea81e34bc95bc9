"""Hashing and sending at the same time: how much may be sent before it is known whether it has to be.

The server can tell that it has a content once all of it is hashed. Until then parts are sent as far as this does not
slow the hashing down: all of the network is used if it is slow, and hardly any of it if client and server share cores.
So content that the server has costs little more than its hash, and content that it has not costs no more than sending.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from urllib.parse import urlsplit

_WINDOW = 0.05
"""Seconds over which the speed of hashing is measured, at least."""
_SLOWER = 0.85
"""Of the speed without senders: below that, sending is what slows hashing down."""
_REMEMBERED = 0.8
"""Share of an average that is kept when a window is added: other programs slow hashing down, too, for a moment."""
_EVIDENCE = 2
_MUCH_SLOWER = 0.5
"""Senders are judged after two windows, or after one that is that much slower."""
_FIRST_REST, _NEXT_REST, _LONGEST_REST = 1, 4, 64
"""Windows without another sender: at first if the cores are shared, and after one was too many again and again."""


class _Average:
    """Bytes per second, over the last windows."""

    def __init__(self) -> None:
        self._count = self._seconds = 0.0

    def add(self, count: int, seconds: float) -> None:
        self._count = self._count * _REMEMBERED + count
        self._seconds = self._seconds * _REMEMBERED + seconds

    @property
    def speed(self) -> float:
        return self._count / self._seconds if self._seconds else 0.0


class Pace:
    """How many parts may be on their way while the rest is hashed.

    Args:
        most: as many as without hashing.
        shares: the server is on this machine: senders are tried one by one. Else all are there after the first window,
            which tells how fast hashing is without them.

    Attributes:
        senders: the number at this moment; the caller's lock guards it.
    """

    def __init__(self, most: int, shares: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.senders = 0
        self._most = most
        self._more = 1 if shares else most
        self._clock = clock
        self._begun = clock()
        self._count = 0
        self._without, self._with, self._judged = _Average(), _Average(), 0
        self._rest = _FIRST_REST if shares else 0
        self._next_rest = _NEXT_REST

    def hashed(self, count: int) -> None:
        """Bytes were hashed."""
        self._count += count
        seconds = self._clock() - self._begun
        if seconds < _WINDOW:
            return
        (self._with if self.senders else self._without).add(self._count, seconds)
        self._begun, self._count = self._begun + seconds, 0
        if self.senders:
            self._judged += 1
            if self._judged < _EVIDENCE and self._with.speed > _MUCH_SLOWER * self._without.speed:
                return
        if self.senders and self._with.speed < _SLOWER * self._without.speed:
            self.senders //= 2
            self._more, self._judged, self._with = 1, 0, _Average()
            self._rest = self._next_rest
            self._next_rest = min(_LONGEST_REST, 4 * self._next_rest)
        elif self._rest:
            self._rest -= 1
        else:
            self.senders = min(self._most, self.senders + self._more)


def shares_its_cores(url: str) -> bool:
    """Whether a server is this very machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
