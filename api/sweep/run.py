"""One sweep: when it is, whether it is for real, and what it says of each thing that it does."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar

from api.sweep.moments import Moment

STEP_SECONDS: Final = 20.0
"""Seconds that a step goes on for in a sweep on schedule; the next sweep goes on from there."""

T = TypeVar("T")
Tell = Callable[[str, str], None]
"""Is told of each thing: (kind, what)."""


def _say_nothing(kind: str, text: str) -> None:
    """On schedule the counts are enough."""


@dataclass
class Run:
    """See the module's docstring.

    Attributes:
        dry: only say what would be done; nothing is changed, anywhere.
        whole: go on until everything is done, however long that takes.
        accept: what no row knows may go, whatever speaks against it.
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
        """When a step that begins now is to stop (`time.monotonic`)."""
        return float("inf") if self.whole else time.monotonic() + STEP_SECONDS

    @staticmethod
    def over(deadline: float) -> bool:
        """Whether a step has to stop."""
        return time.monotonic() >= deadline

    def did(self, kind: str, text: str, count: int = 1) -> None:
        """So much of a kind was done, or would be."""
        self.counts[kind] += count
        self.tell(kind, text)

    def drain(
        self,
        kind: str,
        find: Callable[[], Sequence[T]],
        act: Callable[[T], object],
        show: Callable[[T], str],
    ) -> None:
        """Acts on what is found until nothing is, or the step's time is over.

        What was acted on is not found again. A dry run shows the first batch.
        """
        ends = self.deadline()
        while batch := find():
            for row in batch:
                if not self.dry:
                    act(row)
                self.did(kind, show(row))
            if self.dry or self.over(ends):
                return
