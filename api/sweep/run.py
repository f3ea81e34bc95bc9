"""The context of one sweep: its time, its mode, and its counts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar

from api.sweep.moments import Moment

STEP_SECONDS: Final = 20.0
"""Longest time of a step in a scheduled sweep, in seconds. The next sweep continues from there."""

T = TypeVar("T")
Tell = Callable[[str, str], None]
"""Called with each action as (kind, description)."""


def _say_nothing(kind: str, text: str) -> None:
    """For scheduled sweeps, which only need the counts."""


@dataclass
class Run:
    """See the module's docstring.

    Attributes:
        dry: only report what would be done; change nothing.
        whole: continue until everything is done, without a time limit.
        accept: orphans may be deleted, in spite of all doubts.
    """

    moment: Moment
    dry: bool = False
    whole: bool = False
    accept: bool = False
    tell: Tell = _say_nothing
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def now(self) -> datetime:
        return self.moment.now

    def deadline(self) -> float:
        """When a step that begins now must stop, on the clock `time.monotonic`."""
        return float("inf") if self.whole else time.monotonic() + STEP_SECONDS

    @staticmethod
    def over(deadline: float) -> bool:
        """Whether a step has to stop."""
        return time.monotonic() >= deadline

    def did(self, kind: str, text: str, count: int = 1) -> None:
        """Counts and reports an action that was done, or would be done in a dry run."""
        self.counts[kind] += count
        self.tell(kind, text)

    def drain(
        self,
        kind: str,
        find: Callable[[], Sequence[T]],
        act: Callable[[T], object],
        show: Callable[[T], str],
    ) -> None:
        """Acts on each item that ``find`` returns, until it returns none or the step's time has passed.

        ``find`` must not return an item again after ``act``. A dry run shows the first batch only.
        """
        ends = self.deadline()
        while batch := find():
            for row in batch:
                if not self.dry:
                    act(row)
                self.did(kind, show(row))
            if self.dry or self.over(ends):
                return
