"""Ctrl-C and SIGTERM."""

from __future__ import annotations

import contextlib
import signal
from types import FrameType


class Stopped(BaseException):
    """The user wants it to end. Not a KeyboardInterrupt: click would write an empty line for that.

    Attributes:
        exit_code: what the command ends with.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def listen() -> None:
    """Has both signals raise `Stopped` in the main thread; one that the process was told to ignore stays ignored."""
    with contextlib.suppress(ValueError):  # not in the main thread: a test
        signal.signal(signal.SIGTERM, _stop)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(128 + number)
