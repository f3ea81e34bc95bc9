"""Limits the time that an API call may use the database."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar
from typing import Final

STATEMENT_SECONDS: Final = 10
"""Longest time of one statement. The database server aborts it after that."""
CALL_SECONDS: Final = 30
"""Time from the start of a call after which it starts no further statement."""

_ends: ContextVar[float] = ContextVar("ends", default=math.inf)


def begin() -> None:
    """Starts the time limit for the call in this thread. Code outside of calls has no limit."""
    _ends.set(time.monotonic() + CALL_SECONDS)


def end() -> None:
    """Ends the time limit: the call in this thread has ended."""
    _ends.set(math.inf)


def is_spent() -> bool:
    """Whether the call in this thread has used up its time."""
    return time.monotonic() > _ends.get()
