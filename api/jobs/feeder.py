"""Keeps the queue filled from the rows, so that an emptied one loses nothing.

Rows are given to a queue that runs low only, each at most once in so many seconds: duplicates stay few, and a table of
a million rows does not become a million messages. While the queue is away, rows are handed to this process's own
threads: the queue makes work quick, it is not needed for work to be done.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Final

from api.core import metrics
from api.core.errors import DatabaseUnavailable, StorageError
from api.core.models import Clock
from api.db.pool import Database
from api.jobs import rows as jobs
from api.jobs.queue import Queue, name_of

LOOK_EVERY: Final = 1.0
_LOW: Final = 100
_MOST: Final = 1000
_SILENT: Final = timedelta(seconds=15)
"""A message that was sent so long ago, into a queue that is low by now, has been lost, or waits in a worker."""
_DIRECT: Final = 2
"""Jobs that this process runs at once while there is no queue."""

Rescue = Callable[[], int]
"""Makes rows of what should have one and has none; answers how many."""

_log = logging.getLogger(__name__)


class Feeder:
    """See the module's docstring.

    Args:
        run: runs a job in this thread.
        rescues: by kind, the seconds between two looks, and the look.
    """

    def __init__(
        self,
        db: Database,
        queue: Queue,
        clock: Clock,
        run: Callable[[str, bytes], object],
        rescues: Mapping[str, tuple[float, Rescue]],
    ) -> None:
        self._db = db
        self._queue = queue
        self._clock = clock
        self._run = run
        self._rescues = rescues
        self._rescued_at: dict[str, float] = {}
        self._free = threading.BoundedSemaphore(_DIRECT)
        self._threads: list[threading.Thread] = []

    def look(self) -> bool:
        """Once: what is due goes to the queues that are low, or, where there is no queue, to threads.

        Returns:
            Whether the rows could be seen.
        """
        try:
            self._rescue()
            kinds = jobs.waiting_kinds(self._db)
            if not kinds:
                return True
            depths = self._queue.depths()
            for name, depth in (depths or {}).items():
                metrics.QUEUE_DEPTH.labels(name).set(depth)
            if depths is None:
                self._run_directly(kinds)
            else:
                self._feed(kinds, depths)
        except (DatabaseUnavailable, StorageError) as ex:
            _log.warning("will look again", extra={"error": str(ex)})
            return False
        return True

    def _rescue(self) -> None:
        for kind, (every, rescue) in self._rescues.items():
            if time.monotonic() - self._rescued_at.get(kind, float("-inf")) < every:
                continue
            self._rescued_at[kind] = time.monotonic()
            if count := rescue():
                _log.warning("work without a row was found", extra={"kind": kind, "count": count})

    def _feed(self, kinds: Iterable[str], depths: Mapping[str, int]) -> None:
        for kind in kinds:
            if depths.get(name_of(kind), 0) >= _LOW:
                continue
            if found := jobs.due(self._db, kind, self._clock(), _SILENT, _MOST):
                jobs.set_enqueued(self._db, kind, found, self._clock())
                self._queue.enqueue(kind, found)

    def _run_directly(self, kinds: Iterable[str]) -> None:
        for kind in kinds:
            if not jobs.due(self._db, kind, self._clock(), timedelta(0), 1):
                continue
            if self._free.acquire(blocking=False):
                thread = threading.Thread(target=self._run_some, args=(kind,), name="direct", daemon=True)
                self._threads = [*(other for other in self._threads if other.is_alive()), thread]
                thread.start()

    def drain(self, seconds: float) -> None:
        """Waits for its own threads, so long for each at most."""
        for thread in self._threads:
            thread.join(seconds)

    def _run_some(self, kind: str) -> None:
        try:
            for subject in jobs.due(self._db, kind, self._clock(), timedelta(0), _LOW):
                self._run(kind, subject)
        except DatabaseUnavailable as ex:
            _log.warning("will look again", extra={"error": str(ex)})
        finally:
            self._free.release()
