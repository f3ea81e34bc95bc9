"""How long a call may keep the database busy."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar
from typing import Final

STATEMENT_SECONDS: Final = 10
"""One statement of the API's; the server ends what takes longer."""
CALL_SECONDS: Final = 30
"""All statements of one call, from the call's beginning; the next one is not begun."""

_ends: ContextVar[float] = ContextVar("ends", default=math.inf)


def begin() -> None:
    """A call begins in this thread; what runs outside of calls has no such limit."""
    _ends.set(time.monotonic() + CALL_SECONDS)


def end() -> None:
    """The call of this thread has been answered."""
    _ends.set(math.inf)


def is_spent() -> bool:
    """Whether the call that runs in this thread has had its time."""
    return time.monotonic() > _ends.get()
