"""What time it is, as several clocks say it: what is deleted by its age must not be deleted by a wrong clock.

The database's clock, this machine's, and the time since this machine was started, which no one sets. Of a span
between two moments, the shortest that any of them says is believed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from api.core.models import Clock
from api.db.pool import Database
from api.db.times import now

JUMP: Final = 600.0
"""Seconds that two clocks may drift apart between two sweeps before one of them counts as set."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment on several clocks, in seconds.

    Attributes:
        database: the database's, since the epoch.
        wall: this machine's, since the epoch.
        boot: since this machine was started; ``boot_id`` says which start that was.
    """

    database: float
    wall: float
    boot: float
    boot_id: str

    @property
    def now(self) -> datetime:
        """The earlier of the two wall clocks: nothing's time is over because one of them is ahead."""
        return datetime.fromtimestamp(min(self.database, self.wall), UTC)

    def since(self, before: Moment) -> float:
        """Seconds that have certainly gone by."""
        return max(0.0, min(self._spans(before)))

    def leap(self, before: Moment) -> float:
        """Seconds that a clock was set ahead by; 0 where that is not known."""
        if self.boot_id != before.boot_id:
            return 0.0
        leap = max(self._spans(before)) - (self.boot - before.boot)
        return leap if leap > JUMP else 0.0

    def _spans(self, before: Moment) -> list[float]:
        spans = [self.database - before.database, self.wall - before.wall]
        if self.boot_id == before.boot_id:
            spans.append(self.boot - before.boot)
        return spans

    def text(self) -> str:
        """For a row."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Moment:
        """From a row."""
        return cls(**json.loads(text))


Moments = Callable[[], Moment]


def of_this_machine(db: Database, clock: Clock) -> Moments:
    """The database's clock, ``clock``, and the kernel's."""
    try:
        boot_id = _BOOT_ID.read_text().strip()
    except OSError:
        boot_id = ""

    def read() -> Moment:
        boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        return Moment(now(db).timestamp(), clock().timestamp(), boot, boot_id)

    return read


def of(clock: Clock) -> Moments:
    """One clock for all of them: for tests that turn it."""

    def read() -> Moment:
        now = clock().timestamp()
        return Moment(now, now, now, "test")

    return read
