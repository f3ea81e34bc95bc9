"""Runs one segment of a job: takes the lease, calls the job, and saves the result. It never raises.

If the database is down, the failure cannot be saved. The lease then expires, and the feeder finds the row again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from api.core import metrics
from api.core.errors import DatabaseUnavailable, StorageError
from api.core.models import Clock, new_id
from api.db.pool import Database, Statements
from api.jobs import rows as jobs
from api.jobs.base import SEGMENT_SECONDS, Busy, GiveUp, Job, LeaseLost, Outcome
from api.jobs.queue import Queue

KEEP_LEASE_SECONDS: Final = 10.0
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 900.0
BUSY_PAUSE_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


class HeldLease:
    """The lease that this process holds on a row; see `api.jobs.base.Lease`."""

    def __init__(
        self, db: Database, row: tuple[str, bytes, bytes], taken: jobs.Taken, clock: Clock, stop: threading.Event
    ) -> None:
        self._db = db
        self._row = row
        self._clock = clock
        self._stop = stop
        self._began = self._kept = time.monotonic()
        self.place = taken.place
        self.memo = taken.memo
        self.moved = 0
        self.saved = False
        self.ended = False

    @property
    def leaving(self) -> bool:
        return self._stop.is_set()

    @property
    def stopping(self) -> bool:
        return self.leaving or time.monotonic() - self._began > SEGMENT_SECONDS

    def save(self, place: int, memo: bytes | None = None) -> None:
        self._kept = time.monotonic()
        if not jobs.save(self._db, *self._row, place, memo, self._clock()):
            raise LeaseLost
        self.place, self.memo, self.saved = place, memo, True

    def keep(self) -> None:
        if time.monotonic() - self._kept < KEEP_LEASE_SECONDS:
            return
        self._kept = time.monotonic()
        if not jobs.keep(self._db, *self._row, self._clock()):
            raise LeaseLost

    def end(self, tx: Statements) -> None:
        if not jobs.end(tx, *self._row):
            raise LeaseLost
        self.ended = True


class Runner:
    """See the module's docstring.

    Args:
        kinds: every kind of job.
        tries: consecutive failures after which a job is dead.
    """

    def __init__(self, db: Database, kinds: Mapping[str, Job], queue: Queue, clock: Clock, tries: int) -> None:
        self._db = db
        self._kinds = kinds
        self._queue = queue
        self._clock = clock
        self._tries = tries
        self._stop = threading.Event()

    def stop(self) -> None:
        """Makes running segments save their position and end; starts no new ones."""
        self._stop.set()

    def run(self, kind: str, subject: bytes) -> bool:
        """Runs a segment of this job. Returns False if there was nothing to do, or another run has the lease."""
        job = self._kinds.get(kind)
        if job is None or self._stop.is_set():
            return False
        row = kind, subject, new_id()
        try:
            taken = jobs.take(self._db, *row, self._clock())
            if taken is None:
                return False
            if taken.tries >= self._tries:
                lost = "WORKER_LOST", "workers were killed while running it, several times"
                jobs.fail(self._db, *row, lost, self._clock(), None)
                _log.error("a job is dead", extra={"kind": kind, "subject": subject.hex(), "reason": lost[0]})
                return True
            self._segment(job, row, taken)
        except DatabaseUnavailable as ex:
            # the lease expires
            _log.warning("the database is down", extra={"kind": kind, "subject": subject.hex(), "error": str(ex)})
            return False
        except Exception:
            _log.exception("a job's row could not be written", extra={"kind": kind, "subject": subject.hex()})
        return True

    def _segment(self, job: Job, row: tuple[str, bytes, bytes], taken: jobs.Taken) -> None:
        lease = HeldLease(self._db, row, taken, self._clock, self._stop)
        began = time.monotonic()
        outcome, failure, pause = "failed", ("", ""), 0.0
        tries = taken.tries
        try:
            ended = job.run(row[1], lease)
            outcome = ended.name
            self._write(row, lease, ended)
        except LeaseLost:
            outcome = "lost"
        except Busy as ex:
            outcome, pause = "busy", BUSY_PAUSE_SECONDS
            failure = "BUSY", str(ex)
            jobs.release(self._db, *row, self._clock(), self._later(pause), failed=True)
        except GiveUp as ex:
            outcome, failure = "dead", (ex.reason, ex.message)
            jobs.fail(self._db, *row, failure, self._clock(), None)
        except Exception as ex:
            expected = isinstance(ex, StorageError | DatabaseUnavailable)
            if not expected:
                _log.exception("a job failed", extra={"kind": row[0], "subject": row[1].hex()})
            failure = (_reason(ex), str(ex)) if expected else ("INTERNAL_ERROR", type(ex).__name__)
            tries = 1 if lease.saved else tries + 1
            outcome = "dead" if tries >= self._tries else "failed"
            due_at = None if outcome == "dead" else self._later(_pause(tries))
            jobs.fail(self._db, *row, failure, self._clock(), due_at)
        finally:
            seconds = time.monotonic() - began
            metrics.JOB_RUNS.labels(row[0], outcome).inc()
            metrics.JOB_SECONDS.labels(row[0]).observe(seconds)
            metrics.JOB_BYTES.labels(row[0]).inc(lease.moved)
            extra = {
                "kind": row[0],
                "subject": row[1].hex(),
                "seconds": round(seconds, 3),
                "bytes": lease.moved,
                "outcome": outcome,
                "place": lease.place,
            }
            if failure[0]:
                extra |= {"reason": failure[0], "error": failure[1], "tries": tries}
            level = {"dead": logging.ERROR, "failed": logging.WARNING, "lost": logging.WARNING}
            _log.log(level.get(outcome, logging.INFO), "job", extra=extra)

    def _write(self, row: tuple[str, bytes, bytes], lease: HeldLease, ended: Outcome) -> None:
        if ended == Outcome.DONE:
            if not lease.ended:
                jobs.end(self._db, *row)
        elif ended == Outcome.MORE:
            jobs.release(self._db, *row, self._clock())
            self._queue.enqueue(row[0], [row[1]])
        else:
            jobs.release(self._db, *row, self._clock(), self._later(ended.seconds))

    def _later(self, seconds: float) -> datetime:
        return self._clock() + timedelta(seconds=seconds)


def _pause(tries: int) -> float:
    """Doubles with each failure, up to 15 minutes. Jitter spreads the retries of many jobs."""
    longest = min(FIRST_PAUSE_SECONDS * 2.0 ** min(tries - 1, 20), LONGEST_PAUSE_SECONDS)
    return random.uniform(longest / 2, longest)  # noqa: S311 - jitter, not a secret


def _reason(ex: Exception) -> str:
    """StorageUnavailable → STORAGE_UNAVAILABLE."""
    name = type(ex).__name__
    return "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(name)).upper()
