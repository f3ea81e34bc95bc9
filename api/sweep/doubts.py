"""Doubts: signs that the database does not belong to these storages, or that a clock is wrong.

If an operator restores an old dump next to a newer bucket, or points a copy of the database at it, the bucket has
objects without a row that are still in use elsewhere. No single sign is certain, so there are several:

- ``rows``: an object without a row, although its key is so recent that an upload's row must still name it (rows are
  kept for 7 days), or although it was made during a gap, when this database was not in use.
- ``missing``: some rows have no object, and at the same time some objects have no row.
- ``share``: more than ten objects, and more than 1 % of all objects, have no row.
- ``gap``: no sweep ran for an hour or longer. Usually only the worker was off. This doubt is settled as soon as every
  storage was listed again without any of the signs above.
- ``clock``: a clock was set ahead.

While there is a doubt, the sweep deletes no file in the trash, no blob, and no object without a row. It only reports
them, until an operator runs it with ``--accept``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from api.context import Context
from api.db import deployment
from api.sweep import rows as listings
from api.sweep.moments import Moment
from api.sweep.rows import Doubt, Listing
from api.sweep.run import Run

MOST_UNKNOWN_OBJECTS: Final = 10
"""Up to this number of objects without a row, the ``share`` sign is ignored, however small the storage is."""

GAP_SECONDS: Final = 3600.0
"""Shortest time without a sweep that counts as a gap, in seconds."""

CLOCK_MARGIN: Final = timedelta(minutes=10)
"""Largest expected error of the clocks of the processes that create keys."""

LAST_SWEEP_KEY: Final = "swept"
EARLIEST_DATE: Final = datetime(2020, 1, 1, tzinfo=UTC)

_log = logging.getLogger(__name__)


class Doubts:
    """See the module's docstring."""

    def __init__(self, context: Context) -> None:
        self._db = context.db
        self._config = context.config

    def all(self) -> list[Doubt]:
        """Every doubt that is not settled."""
        return listings.doubts(self._db)

    def beat(self, run: Run) -> None:
        """Records that a sweep runs. Notes a doubt if the time since the last one is suspicious."""
        if run.dry:
            return
        before, now = deployment.value(self._db, LAST_SWEEP_KEY), run.moment
        if before is None:
            # the first sweep: objects that are newer than every row are not from this database
            newest = listings.newest(self._db)
            self._gap(run, made_at(newest.hex()) or EARLIEST_DATE if newest else EARLIEST_DATE)
        else:
            last = Moment.of(before)
            if leap := now.leap(last):
                self._note(run, "clock", "", f"a clock was set ahead by {round(leap)} s")
            if now.database - last.database > max(GAP_SECONDS, 4.0 * self._config.sweep_interval):
                self._gap(run, datetime.fromtimestamp(last.database, UTC))
        deployment.put(self._db, LAST_SWEEP_KEY, now.text())

    def _gap(self, run: Run, since: datetime) -> None:
        span = since - CLOCK_MARGIN, datetime.fromtimestamp(run.moment.database, UTC)
        text = f"no sweep ran from {span[0]:%Y-%m-%d %H:%M} to {span[1]:%Y-%m-%d %H:%M} UTC"
        listings.doubt(self._db, "gap", "", text, run.now, span)

    def _note(self, run: Run, kind: str, storage: str, message: str) -> None:
        _log.error("the sweep holds back", extra={"doubt": kind, "storage": storage, "reason": message})
        listings.doubt(self._db, kind, storage, message, run.now)

    def spans(self, run: Run) -> list[tuple[datetime, datetime, str]]:
        """Times for which an object without a row is a sign of lost rows, as (since, until, why)."""
        retention = timedelta(seconds=self._config.upload_retention) - CLOCK_MARGIN
        lately = run.now - retention, run.now + CLOCK_MARGIN, "was made so lately that a row should name it"
        gaps = [
            (gap.from_at, gap.until_at, "was made while this database was not in use")
            for gap in self.all()
            if gap.kind == "gap" and gap.from_at and gap.until_at
        ]
        return [lately, *gaps]

    def judge(self, run: Run, listing: Listing, lost: str | None) -> None:
        """Notes or settles doubts after a complete pass through a storage.

        Args:
            lost: describes an object that is a sign of lost rows, and why; None if there is none.
        """
        storage, unknown = listing.storage, listings.count_unknown(self._db, listing.storage, "object")
        signs = {
            "rows": lost,
            "missing": f"{listing.missing} rows have no object, and {unknown} objects have no row"
            if listing.missing and unknown
            else None,
            "share": f"{unknown} of {listing.objects} objects have no row"
            if unknown > max(MOST_UNKNOWN_OBJECTS, listing.objects / 100)
            else None,
        }
        for kind, message in signs.items():
            if message is not None:
                self._note(run, kind, storage, message)
            elif not unknown and not listings.count_unknown(self._db, storage, "upload"):
                listings.settle(self._db, kind, storage)  # every object has a row now

    def settle_gap(self, begun: Iterable[datetime | None]) -> None:
        """Settles the gap if every storage was listed since then.

        Args:
            begun: when each storage's last complete pass began.
        """
        passes = list(begun)
        for doubt in self.all():
            if doubt.kind == "gap" and all(moment is not None and moment >= doubt.noted_at for moment in passes):
                listings.settle(self._db, "gap", "")

    def accept(self) -> None:
        """Settles all doubts: an operator has checked them."""
        for doubt in self.all():
            listings.settle(self._db, doubt.kind, doubt.storage)


def made_at(name: str) -> datetime | None:
    """When an object was created, by its key; None if the key's last part is no UUIDv7."""
    name = name.rpartition("/")[2]
    if len(name) != 32 or set(name) - set("0123456789abcdef") or name[12] != "7":
        return None
    seconds = int(name[:12], 16) / 1000
    return datetime.fromtimestamp(seconds, UTC) if seconds < 4e9 else None
