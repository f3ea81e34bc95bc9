"""What nobody else does: free what ended, purge the trash, delete what nothing reaches, find what no row knows.

Every step may run twice at once, and may stop anywhere: the rows say what is left to do. On schedule one process
sweeps at a time, for the others would find nothing to do.
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
        moments: the clocks; one for all of them where it is not given.
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
        """One sweep on schedule, of bounded length; answers what it did, by kind. Nothing while another one runs."""
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
        """A whole sweep, every list from its beginning to its end; None where another one does not end.

        Args:
            tell: is told of each thing that is done, or would be.
            dry: nothing is changed.
            accept: what no row knows now may go, whatever spoke against it.
            storage: the only one that is listed.

        Raises:
            StorageUnavailable: there is no such storage.
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
        """Why nothing that cannot be undone is done; empty where it is."""
        return self._doubts.all()

    def missing(self) -> Sequence[tuple[str, str, bytes, datetime]]:
        """(storage, object key, blob, since when) of up to 1,000 rows whose objects are gone."""
        return listings.missing(self._db, 1000)

    def compared(self) -> list[tuple[str, datetime]]:
        """(storage, since when every replica there was compared), for the storages that hold any; see `scrub`."""
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
