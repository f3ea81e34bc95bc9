"""Whether this API was told to stop: one byte that gunicorn's master shares with its workers.

gunicorn's own orderly stop closes the listening socket first, and the kernel resets what was just waiting there. So the
master says so here for a while before it closes anything (`SLUICE_API_DRAIN`); `/healthz` tells the edge, which then
gives its requests to others.
"""

from __future__ import annotations

import mmap

# Anonymous and shared: made in the master, before any worker is forked, by gunicorn_conf.py's import.
_flag = mmap.mmap(-1, 1)


def begin() -> None:
    """From now on this API asks to be left alone."""
    _flag[0] = 1


def begun() -> bool:
    """Whether it does."""
    return _flag[0] == 1
