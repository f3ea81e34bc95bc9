"""Reads the time from several clocks, so that no wrong clock makes the sweep delete something too early.

The clocks are the database's, this machine's, and the time since this machine's start, which cannot be set. The time
between two moments is the shortest that any of the clocks shows.
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

CLOCK_JUMP_SECONDS: Final = 600.0
"""If two clocks drift apart by more than this between two sweeps, one of them was set."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time on several clocks, in seconds.

    Attributes:
        database: the database's clock, since the epoch.
        wall: this machine's clock, since the epoch.
        boot: time since this machine's start, which ``boot_id`` identifies.
    """

    database: float
    wall: float
    boot: float
    boot_id: str

    @property
    def now(self) -> datetime:
        """The earlier of the two wall clocks, so that a clock that is ahead expires nothing."""
        return datetime.fromtimestamp(min(self.database, self.wall), UTC)

    def since(self, before: Moment) -> float:
        """Seconds that have passed, by the slowest clock."""
        return max(0.0, min(self._spans(before)))

    def leap(self, before: Moment) -> float:
        """Seconds by which a clock was set ahead; 0 if it was not, or if that is unknown."""
        if self.boot_id != before.boot_id:
            return 0.0
        leap = max(self._spans(before)) - (self.boot - before.boot)
        return leap if leap > CLOCK_JUMP_SECONDS else 0.0

    def _spans(self, before: Moment) -> list[float]:
        spans = [self.database - before.database, self.wall - before.wall]
        if self.boot_id == before.boot_id:
            spans.append(self.boot - before.boot)
        return spans

    def text(self) -> str:
        """JSON, for a row."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Moment:
        """Parses the JSON of `text`."""
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
    """All clocks are this one; for tests that set it."""

    def read() -> Moment:
        now = clock().timestamp()
        return Moment(now, now, now, "test")

    return read
