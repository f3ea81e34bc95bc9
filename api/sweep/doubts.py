"""What makes the sweep hold back: signs that the rows are not those of these storages, or that a clock is wrong.

Whoever restores an old dump beside a newer bucket, or lets a copy of the database loose on it, has objects that no
row knows and that are somebody's all the same. No single sign is sure, so there are several:

- ``rows``: an unknown object whose key was made so lately that an upload's row must name it still (those are kept for
  7 days), or while this database, by its own account, was not in use (a gap).
- ``missing``: rows whose objects are gone, at the same time as objects that no row knows.
- ``share``: more than a hundredth of the objects is unknown, and more than ten.
- ``gap``: nobody swept for an hour or longer. Most often the worker was off, and nothing else: it settles itself as
  soon as every storage was listed since and none of the signs above was found.
- ``clock``: a clock was set ahead.

While there is a doubt, nothing is purged from the trash, no blob is deleted and no unknown object: all of it is
reported, until a person says ``--accept``.
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

HANDFUL: Final = 10
"""Unknown objects that a storage may have, however small it is, before their share counts."""

_GAP: Final = 3600.0
"""Seconds without a sweep that make a gap, at least."""

_MARGIN: Final = timedelta(minutes=10)
"""How far the clocks of those who make keys may be off."""

_BEAT: Final = "swept"
_EPOCH: Final = datetime(2020, 1, 1, tzinfo=UTC)

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
        """Notes that a sweep runs, and whether the time since the last one is strange."""
        if run.dry:
            return
        before, now = deployment.value(self._db, _BEAT), run.moment
        if before is None:
            # the first sweep of its kind: what is younger than every row is not from this database
            newest = listings.newest(self._db)
            self._gap(run, made_at(newest.hex()) or _EPOCH if newest else _EPOCH)
        else:
            last = Moment.of(before)
            if leap := now.leap(last):
                self._note(run, "clock", "", f"a clock was set ahead by {round(leap)} s")
            if now.database - last.database > max(_GAP, 4.0 * self._config.sweep_interval):
                self._gap(run, datetime.fromtimestamp(last.database, UTC))
        deployment.put(self._db, _BEAT, now.text())

    def _gap(self, run: Run, since: datetime) -> None:
        span = since - _MARGIN, datetime.fromtimestamp(run.moment.database, UTC)
        text = f"nobody swept from {span[0]:%Y-%m-%d %H:%M} to {span[1]:%Y-%m-%d %H:%M} UTC"
        listings.doubt(self._db, "gap", "", text, run.now, span)

    def _note(self, run: Run, kind: str, storage: str, message: str) -> None:
        _log.error("the sweep holds back", extra={"doubt": kind, "storage": storage, "reason": message})
        listings.doubt(self._db, kind, storage, message, run.now)

    def spans(self, run: Run) -> list[tuple[datetime, datetime, str]]:
        """When an object must have been made for being unknown to be a sign of lost rows, and why."""
        retention = timedelta(seconds=self._config.upload_retention) - _MARGIN
        lately = run.now - retention, run.now + _MARGIN, "was made so lately that a row should name it"
        gaps = [
            (gap.from_at, gap.until_at, "was made while this database was not in use")
            for gap in self.all()
            if gap.kind == "gap" and gap.from_at and gap.until_at
        ]
        return [lately, *gaps]

    def judge(self, run: Run, listing: Listing, lost: str | None) -> None:
        """What a whole pass through a storage says.

        Args:
            lost: says of an unknown object that it is a sign of lost rows, and why.
        """
        storage, unknown = listing.storage, listings.count_unknown(self._db, listing.storage, "object")
        signs = {
            "rows": lost,
            "missing": f"{listing.missing} rows have no object, and {unknown} objects have no row"
            if listing.missing and unknown
            else None,
            "share": f"{unknown} of {listing.objects} objects have no row"
            if unknown > max(HANDFUL, listing.objects / 100)
            else None,
        }
        for kind, message in signs.items():
            if message is not None:
                self._note(run, kind, storage, message)
            elif not unknown and not listings.count_unknown(self._db, storage, "upload"):
                listings.settle(self._db, kind, storage)  # all that it was about has been explained

    def settle_gap(self, begun: Iterable[datetime | None]) -> None:
        """The gap is over, once every storage was listed since without a sign.

        Args:
            begun: when each storage's last whole pass began.
        """
        passes = list(begun)
        for doubt in self.all():
            if doubt.kind == "gap" and all(moment is not None and moment >= doubt.noted_at for moment in passes):
                listings.settle(self._db, "gap", "")

    def accept(self) -> None:
        """A person has looked."""
        for doubt in self.all():
            listings.settle(self._db, doubt.kind, doubt.storage)


def made_at(name: str) -> datetime | None:
    """When an object was made, by the last part of its key; None where that is no UUIDv7."""
    name = name.rpartition("/")[2]
    if len(name) != 32 or set(name) - set("0123456789abcdef") or name[12] != "7":
        return None
    seconds = int(name[:12], 16) / 1000
    return datetime.fromtimestamp(seconds, UTC) if seconds < 4e9 else None
