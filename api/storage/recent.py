"""A storage's answers that are good for a moment: whoever asks what is there mostly completes right behind it."""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import suppress
from typing import Final, Generic, TypeVar

_LIFE: Final = 2.0
"""Seconds for which an answer is good: long enough for the call that asked."""

Answer = TypeVar("Answer")


class Recent(Generic[Answer]):
    """Answers by a key, each for one use; the oldest make room.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[str, tuple[float, Answer]] = OrderedDict()

    def keep(self, key: str, answer: Answer) -> None:
        """Keeps what was just answered."""
        self._kept[key] = (time.monotonic(), answer)
        while len(self._kept) > self._most:
            with suppress(KeyError):  # another thread was first
                self._kept.popitem(last=False)

    def take(self, key: str) -> Answer | None:
        """What is kept, once; None where there is nothing, or it is too old."""
        kept = self._kept.pop(key, None)
        return kept[1] if kept is not None and time.monotonic() - kept[0] < _LIFE else None
