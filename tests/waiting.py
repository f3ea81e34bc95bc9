"""Waiting, with a deadline, for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable


def await_true(
    condition: Callable[[], object], seconds: float = 30, what: str | Callable[[], str] = "it did not happen"
) -> None:
    """Polls a condition that sends no event. If the condition raises, the waiting ends.

    Args:
        what: the text of the failure; if it is a function, it is called at the deadline.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds} s: {what if isinstance(what, str) else what()}"
        time.sleep(0.02)  # a poll
