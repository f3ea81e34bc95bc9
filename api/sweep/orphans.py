"""Orphans: objects and multipart uploads without a row. Found by listing, watched for a day, then deleted.

An orphan is deleted if it was found in more than one pass, over at least a day in total, there are no
doubts, and a last look-up finds no row with its key. The age is the sum of the times between the passes. Each of these
times is the shortest that any clock shows, so a clock that jumps does not make an orphan older.
"""

from __future__ import annotations

import logging

from api.blobs import rows as blobs
from api.context import Context
from api.core.errors import ObjectNotFound, StorageError
from api.db.pool import Statements
from api.storage.base import MultipartRef
from api.sweep import known_rows as known
from api.sweep import rows as listings
from api.sweep.doubts import Doubts
from api.sweep.listing import Lists, key_of
from api.sweep.rows import Listing
from api.sweep.run import Run

_log = logging.getLogger(__name__)


class Orphans:
    """See the module's docstring."""

    def __init__(self, context: Context, doubts: Doubts) -> None:
        self._db = context.db
        self._stores = context.stores
        self._config = context.config
        self._doubts = doubts
        self._prefix = context.prefix
        self._lists = Lists(context)

    def look(self, run: Run, names: list[str]) -> None:
        """Continues the passes that are due, and judges those that reached the end."""
        gap = max((doubt.noted_at for doubt in self._doubts.all() if doubt.kind == "gap"), default=None)
        for name in names:
            if not self._lists.due(run, name, gap):
                continue
            try:
                self._look(run, name)
            except StorageError as ex:
                _log.warning("a storage cannot be listed", extra={"storage": name, "error": str(ex)})
                run.did("storages_not_listed", f"{name}: {ex}")
        if not run.dry:
            every = [listings.get(self._db, name) for name, _ in self._stores]
            self._doubts.settle_gap(row.begun_at if row and row.ended_at else None for row in every)

    def _look(self, run: Run, name: str) -> None:
        listing, prefix = self._pass(run, name), self._prefix()
        if not listing.cursor:
            self._lists.see_uploads(run, listing, prefix)
        if not self._lists.step(run, listing, prefix) or run.dry:
            return
        listings.forget_unseen(self._db, listing)
        found = listings.get(self._db, name)
        assert found is not None
        if run.accept:
            run.counts["accepted"] += listings.accept(self._db, name)
        self._doubts.judge(run, found, self._sign_of_lost_rows(run, name))
        listings.end(self._db, listing, run.now)

    def _pass(self, run: Run, name: str) -> Listing:
        if not run.dry:
            return self._lists.begin(run, name)
        return Listing(name, 0, "", run.moment.text(), run.now, None, 0, 0, 0)

    def _sign_of_lost_rows(self, run: Run, storage: str) -> str | None:
        """Describes an object that must have had a row but has none, and why; None if there is none."""
        for since, until, why in self._doubts.spans(run):
            while found := listings.made_within(self._db, storage, since, until):
                for kind, key in found:
                    if self._is_orphan(storage, kind, key):
                        return f"{kind} {key} {why}"
                    # it was deleted together with its row between the list and this look-up
                    listings.forget(self._db, storage, kind, key)
        return None

    def _is_orphan(self, storage: str, kind: str, key: str) -> bool:
        """Whether it exists and has no row. Rows are read last, since a row is inserted before its object."""
        if kind == "upload":
            return key not in known.uploads(self._db, storage, [key])
        try:
            self._stores.named(storage).stat(key)
        except ObjectNotFound:
            return False
        return key not in known.objects(self._db, storage, [key])

    # -- deletion

    def remove(self, run: Run, names: list[str]) -> None:
        """Marks old orphan objects for deletion and aborts old orphan uploads; see the module's docstring."""
        for name in names:
            for kind in ("object", "upload"):
                after = ""
                while old := listings.old(self._db, name, kind, after, self._config.orphan_age):
                    self._remove(run, name, kind, old)
                    after = old[-1]

    def _remove(self, run: Run, storage: str, kind: str, keys: list[str]) -> None:
        look_up = known.objects if kind == "object" else known.uploads
        named = look_up(self._db, storage, keys)
        for key in keys:
            if key in named:
                continue  # the next pass forgets it
            if not run.dry and not (self._doom if kind == "object" else self._abort)(run, storage, key):
                continue
            run.did(f"{kind}s_orphaned", f"{kind} {key} at {storage}")

    def _doom(self, run: Run, storage: str, key: str) -> bool:
        def body(tx: Statements) -> None:
            blobs.doom(tx, storage, key, run.now)
            listings.forget(tx, storage, "object", key)

        self._db.transaction(body)
        _log.warning("an object that no row knows is deleted", extra={"storage": storage, "key": key})
        return True

    def _abort(self, run: Run, storage: str, key: str) -> bool:
        prefix, name = self._prefix(), key.rpartition("/")[2]
        try:
            for place in (key_of(prefix, name), f"{prefix}/probe/{name}"):
                ref = MultipartRef(name, place, "", 0, 0, 0, "0" * 32, 0)
                self._stores.named(storage).abort(ref)
        except StorageError as ex:
            _log.warning("parts are left to the next sweep", extra={"upload": name, "error": str(ex)})
            return False
        listings.forget(self._db, storage, "upload", key)
        return True
