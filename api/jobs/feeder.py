"""Refills the queue from the rows, so that no job is lost with the queue's messages.

The feeder sends rows only to a queue that runs low, and each row at most once per 15 seconds. So there are few
duplicates, and a million rows do not become a million messages. While the queue is down, threads of this process run
the jobs: the queue only makes them start sooner.
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

LOOK_INTERVAL_SECONDS: Final = 1.0
QUEUE_LOW_WATER: Final = 100
ROWS_PER_REFILL: Final = 1000
RESEND_AFTER: Final = timedelta(seconds=15)
"""A message sent earlier than this, to a queue that is low now, was lost or waits in a worker: send it again."""
DIRECT_THREADS: Final = 2
"""Jobs that this process runs concurrently while the queue is down."""

Rescue = Callable[[], int]
"""Inserts missing job rows; returns their number."""

_log = logging.getLogger(__name__)


class Feeder:
    """See the module's docstring.

    Args:
        run: runs a job in this thread.
        rescues: by kind, the seconds between two calls, and the function to call.
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
        self._free = threading.BoundedSemaphore(DIRECT_THREADS)
        self._threads: list[threading.Thread] = []

    def look(self) -> bool:
        """One round: sends due rows to the queues that are low. If the queue is down, threads run them.

        Returns:
            False if the rows could not be read.
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
            if depths.get(name_of(kind), 0) >= QUEUE_LOW_WATER:
                continue
            if found := jobs.due(self._db, kind, self._clock(), RESEND_AFTER, ROWS_PER_REFILL):
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
        """Waits for the feeder's threads, ``seconds`` for each at most."""
        for thread in self._threads:
            thread.join(seconds)

    def _run_some(self, kind: str) -> None:
        try:
            for subject in jobs.due(self._db, kind, self._clock(), timedelta(0), QUEUE_LOW_WATER):
                self._run(kind, subject)
        except DatabaseUnavailable as ex:
            _log.warning("will look again", extra={"error": str(ex)})
        finally:
            self._free.release()
