"""Draining: whether this API instance was told to stop, as a byte shared by gunicorn's master and workers.

gunicorn's graceful stop closes the listening socket first, and the kernel resets the connections that wait there. So
the master sets this byte some time before it closes the socket (`SLUICE_API_DRAIN`). `/healthz` reports it to the edge,
which then sends its requests to other instances.
"""

from __future__ import annotations

import mmap

# Anonymous and shared: gunicorn_conf.py imports this in the master, before it forks the workers.
_flag = mmap.mmap(-1, 1)


def begin() -> None:
    """Starts draining: from now on the edge sends no new requests."""
    _flag[0] = 1


def begun() -> bool:
    """Whether this instance is draining."""
    return _flag[0] == 1
