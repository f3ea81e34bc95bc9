"""The state that the transfers of one client share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from sluice.calls import Calls
from sluice.limiter import Limiter
from sluice.retry import Patience
from sluice.settings import Settings
from sluice.transport import Transport
from sluice.wire import Connections

_ENOUGH = 4 * 1024**2
"""Bytes that a measurement of the network needs to mean something."""


@dataclass
class Engine:
    """Shared by all transfers of a client.

    Attributes:
        slots: held while a part is on its way, so that ``parallel`` holds for all uploads together.
        network_speed: bytes per second of the latest uploads; None before the first.
        takes_groups: False once the server has shown that it knows no calls for several uploads.
    """

    calls: Calls
    transport: Transport
    connections: Connections
    settings: Settings
    limiter: Limiter
    slots: threading.BoundedSemaphore
    network_speed: float | None = None
    takes_groups: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def after_fork(self) -> None:
        """Gives a forked child new locks and connections, because its parent's threads hold the old ones."""
        self.transport.stop = threading.Event()
        self.limiter = Limiter(self.settings.limit_rate, self.transport.stop)
        self.slots = threading.BoundedSemaphore(self.settings.parallel)
        self._lock = threading.Lock()
        self.connections.after_fork()
        self.calls.session.after_fork()

    def check(self) -> None:
        """Raises Cancelled if all transfers should end."""
        self.transport.patience().check()

    def patience(self) -> Patience:
        return self.transport.patience()

    def note_speed(self, count: int, seconds: float) -> None:
        """Remembers how fast ``count`` bytes went."""
        if count < _ENOUGH or seconds <= 0 or self.settings.limit_rate is not None:
            return
        with self._lock:
            now = count / seconds
            self.network_speed = now if self.network_speed is None else (self.network_speed + now) / 2
