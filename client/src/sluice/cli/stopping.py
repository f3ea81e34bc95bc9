"""Ctrl-C and SIGTERM."""

from __future__ import annotations

import contextlib
import signal
from types import FrameType


class Stopped(BaseException):
    """The user wants it to end. Not a KeyboardInterrupt: click would write an empty line for that.

    Attributes:
        exit_code: the exit code of the command.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def listen() -> None:
    """Makes both signals raise `Stopped` in the main thread. If the process ignores a signal, it stays ignored."""
    with contextlib.suppress(ValueError):  # not in the main thread: a test
        signal.signal(signal.SIGTERM, _stop)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(128 + number)
