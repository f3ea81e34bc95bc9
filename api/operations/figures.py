"""Metrics that are read from the database when they are scraped."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final

from api.blobs import replica_rows as replicas
from api.core import metrics
from api.core.errors import DatabaseUnavailable
from api.core.models import utc_now
from api.db.pool import Database
from api.jobs import rows as jobs
from api.operations import figure_rows as figures

METRICS_CACHE_SECONDS: Final = 5.0
"""Seconds for which results are reused, so that several Prometheus servers cost the database the same as one."""

NAMES: Final = {
    "sluice_uploads",
    "sluice_jobs",
    "sluice_job_oldest_seconds",
    "sluice_missing_replicas",
    "sluice_lost_blobs",
    "sluice_database_up",
}

_log = logging.getLogger(__name__)


class Figures:
    """See the module's docstring."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._found: Sequence[metrics.Figure] = ()

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return metrics.text(self)

    def collect(self) -> Iterator[metrics.Figure]:
        with self._lock:
            if time.monotonic() - self._asked > METRICS_CACHE_SECONDS:
                self._found = self._look_up()
                self._asked = time.monotonic()
            yield from self._found

    def _look_up(self) -> Sequence[metrics.Figure]:
        found, up = [], 1
        try:
            uploads = [((state,), count) for state, count in figures.uploads(self._db)]
            found.append(metrics.looked_up("uploads", "Uploads by state; 100000 stands for more", ["state"], uploads))
            found += self._jobs()
            found += self._content()
        except DatabaseUnavailable as ex:
            _log.warning("figures cannot be looked up", extra={"error": str(ex)})
            up = 0
        return [*found, metrics.looked_up("database_up", "Whether the database answered", [], [((), up)])]

    def _content(self) -> Sequence[metrics.Figure]:
        missing, lost = replicas.count_missing(self._db, figures.MOST), replicas.count_lost(self._db, figures.MOST)
        return [
            metrics.looked_up(
                "missing_replicas", "Replicas that hold no bytes; 100000 stands for more", [], [((), missing)]
            ),
            metrics.looked_up("lost_blobs", "Blobs that no storage has; 100000 stands for more", [], [((), lost)]),
        ]

    def _jobs(self) -> Sequence[metrics.Figure]:
        now = utc_now()
        counts = jobs.counts(self._db, now)
        rows = [((count.kind, count.state), count.rows) for count in counts]
        ages = [((count.kind, count.state), (now - count.oldest).total_seconds()) for count in counts if count.oldest]
        labels = ["kind", "state"]
        return [
            metrics.looked_up("jobs", "Jobs that wait or are dead; 100000 stands for more", labels, rows),
            metrics.looked_up("job_oldest_seconds", "Age of the oldest of them", labels, ages),
        ]
