"""Garbage collection.

The sweep frees expired uploads, empties the trash, deletes blobs without references, and finds stored objects that have
no row in the database. Every step can be interrupted, repeated, or run twice at the same time, because the rows always
say what is left to do. On schedule only one process sweeps at a time, since the others would find nothing to do.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from api.accounts.usage import Usage
from api.blobs import scrub_rows as scrubs
from api.context import Context
from api.core import metrics
from api.sweep import rows as listings
from api.sweep.contents import Contents
from api.sweep.doubts import Doubts
from api.sweep.ended import Ended
from api.sweep.moments import Moments, of
from api.sweep.orphans import Orphans
from api.sweep.rows import Doubt
from api.sweep.run import Run, Tell

_LOCK = "sweep"

_log = logging.getLogger(__name__)


class Sweep:
    """See the module's docstring.

    Args:
        moments: reads the clocks. By default all of them are the context's clock.
    """

    def __init__(self, context: Context, usage: Usage, moments: Moments | None = None) -> None:
        self._db = context.db
        self._stores = context.stores
        self._moments = moments or of(context.clock)
        self._ended = Ended(context, usage)
        self._contents = Contents(context)
        self._doubts = Doubts(context)
        self._orphans = Orphans(context, self._doubts)

    def run(self) -> Counter[str]:
        """A scheduled sweep of bounded length. Returns counts by kind; empty if another sweep is running."""
        with self._db.named_lock(_LOCK, 0) as held:
            if not held:
                return Counter()
            run = Run(self._moments())
            self._sweep(run, [name for name, _ in self._stores])
        if done := +run.counts:
            _log.info("swept", extra=dict(done))
            for kind, count in done.items():
                metrics.SWEPT.labels(kind).inc(count)
        return done

    def by_hand(
        self, tell: Tell, *, dry: bool = False, accept: bool = False, storage: str | None = None
    ) -> Counter[str] | None:
        """A complete sweep, started by a person: lists every storage from start to end.

        Args:
            tell: called with each action that is done, or would be done in a dry run.
            dry: change nothing.
            accept: objects that have no row now may be deleted, in spite of all doubts.
            storage: list only this storage.

        Returns:
            Counts by kind; None if another sweep did not end within 60 seconds.

        Raises:
            StorageUnavailable: the storage is not configured.
        """
        if storage is not None:
            self._stores.named(storage)
        names = [name for name, _ in self._stores] if storage is None else [storage]
        run = Run(self._moments(), dry=dry, whole=True, accept=accept, tell=tell)
        if dry:
            self._sweep(run, names)
            return +run.counts
        with self._db.named_lock(_LOCK, 60) as held:
            if not held:
                return None
            self._sweep(run, names)
        return +run.counts

    def doubts(self) -> list[Doubt]:
        """Reasons why the sweep deletes no content; empty if it does."""
        return self._doubts.all()

    def missing(self) -> Sequence[tuple[str, str, bytes, datetime]]:
        """Up to 1,000 replicas whose objects are gone, as (storage, object key, blob id, missing since)."""
        return listings.missing(self._db, 1000)

    def compared(self) -> list[tuple[str, datetime]]:
        """(storage, oldest comparison of a replica there), for the storages that hold any; see `api.blobs.scrub`."""
        now = self._moments().now
        found = [(name, scrubs.oldest(self._db, name, now)) for name, _ in self._stores]
        return [(name, replicas[0][1]) for name, replicas in found if replicas]

    def _sweep(self, run: Run, names: list[str]) -> None:
        self._doubts.beat(run)
        if run.accept:
            self._doubts.accept()
        if not any(doubt.kind == "clock" for doubt in self.doubts()):
            self._ended.expire(run)
            self._ended.drop_rows(run)
        self._ended.free(run)
        self._ended.drop_bodies(run)
        self._orphans.look(run, names)
        if not self.doubts():
            self._ended.free_objects(run)
            self._orphans.remove(run, names)
            self._contents.purge(run)
            self._contents.delete_blobs(run)
        self._contents.delete_doomed(run)
        self._contents.bury(run)
