"""Hashing and sending at the same time: how much may be sent while nobody knows whether it has to be.

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
"""Of the best speed so far: below that, sending is what slows hashing down."""
_FIRST_REST, _LONGEST_REST = 4, 64
"""Windows without another sender: at first if the cores are shared, and after one was too many again and again."""


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
        self._best = 0.0
        self._rest = _FIRST_REST if shares else 0
        self._next_rest = _FIRST_REST

    def hashed(self, count: int) -> None:
        """Bytes were hashed."""
        self._count += count
        seconds = self._clock() - self._begun
        if seconds < _WINDOW:
            return
        speed = self._count / seconds
        self._begun, self._count = self._begun + seconds, 0
        if speed < _SLOWER * self._best and self.senders:
            self.senders //= 2
            self._more = 1
            self._next_rest = min(_LONGEST_REST, 4 * self._next_rest)
            self._rest = self._next_rest
        elif self._rest:
            self._rest -= 1
        else:
            self.senders = min(self._most, self.senders + self._more)
        self._best = max(self._best, speed)


def shares_its_cores(url: str) -> bool:
    """Whether a server is this very machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
