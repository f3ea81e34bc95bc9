"""Ends an operator's command silently if the reader of its output has gone, or if it is interrupted."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable

EXIT_INTERRUPTED, EXIT_PIPE = 130, 141


def quietly(run: Callable[[], int]) -> int:
    """The exit code of ``run``; 141 if the reader of the output has gone (`… | head -1`), 130 after Ctrl-C.

    In both cases the command stops immediately. Every command may be repeated.
    """
    try:
        code = run()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        # Python would say so once more when it flushes the stream at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _reader_has_gone() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
