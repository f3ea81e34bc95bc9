"""A short-lived cache: a client that lists its parts usually completes immediately afterwards."""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import suppress
from typing import Final, Generic, TypeVar

LIFETIME_SECONDS: Final = 2.0
"""Seconds for which an entry is valid; long enough for the same API call."""

Answer = TypeVar("Answer")


class Recent(Generic[Answer]):
    """Values by key, each for one use. If it is full, the oldest are dropped.

    Args:
        most: most entries.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[str, tuple[float, Answer]] = OrderedDict()

    def keep(self, key: str, answer: Answer) -> None:
        """Stores a value."""
        self._kept[key] = (time.monotonic(), answer)
        while len(self._kept) > self._most:
            with suppress(KeyError):  # another thread was first
                self._kept.popitem(last=False)

    def take(self, key: str) -> Answer | None:
        """Removes and returns a value; None if there is none or it is too old."""
        kept = self._kept.pop(key, None)
        return kept[1] if kept is not None and time.monotonic() - kept[0] < LIFETIME_SECONDS else None
