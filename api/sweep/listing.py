"""Lists a storage and compares it with the rows: finds objects without a row, and rows without an object.

A storage's keys are read in order, a thousand at a time, and compared with the replicas' rows in the same order. A key
without a replica is looked up in all other tables that hold object keys. If it is in none, it is saved as a sighting.
If a replica has no key in the list, the object is looked up again. The pass saves its position in a row, so it
continues after a restart and may take several sweeps.

There are no false results. A row is committed before its object exists, and the rows are read after the list. If an
object was stored after its page was listed, the look-up finds it. If a row was deleted meanwhile, it is read again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice

from api.blobs.replicas import MEND
from api.context import Context
from api.core.errors import ObjectNotFound, StorageError
from api.db.pool import Statements
from api.jobs import rows as jobs
from api.sweep import known_rows as known
from api.sweep import rows as listings
from api.sweep.doubts import made_at
from api.sweep.ended import upload_names
from api.sweep.moments import Moment
from api.sweep.rows import Listing, Replica
from api.sweep.run import Run
from api.uploads import ended_rows as ended_uploads

AFTER_ALL_KEYS = "~"
"""Sorts after every key: the pass is at its end."""
MOST_STATS_PER_PASS = 1000
"""Most missing objects that are looked up one by one. With more, this is probably the wrong storage."""

_log = logging.getLogger(__name__)


def key_of(prefix: str, name: str) -> str:
    """The object key of an upload with this id."""
    return f"{prefix}/{name[-2:]}/{name}"


class Lists:
    """See the module's docstring."""

    def __init__(self, context: Context) -> None:
        self._db = context.db
        self._stores = context.stores
        self._config = context.config

    def due(self, run: Run, name: str, since: datetime | None) -> bool:
        """Whether a pass is in progress or due. ``since``: a pass must have begun after this time."""
        listing = listings.get(self._db, name)
        if run.whole or listing is None or listing.cursor is not None:
            return True
        if since is not None and listing.begun_at < since:
            return True
        if listing.begun_at > run.now:
            return True  # a clock was set back; it must not delay the next list
        return run.now >= listing.begun_at + timedelta(seconds=self._config.sweep_list_interval)

    def begin(self, run: Run, name: str) -> Listing:
        """The pass in progress, or a new one."""
        listing = listings.get(self._db, name)
        if listing is not None and listing.cursor is not None:
            return listing
        trusted = int(run.moment.since(Moment.of(listing.begun))) if listing else 0
        return listings.begin(self._db, name, run.moment.text(), trusted, run.now)

    # -- multipart uploads

    def see_uploads(self, run: Run, listing: Listing, prefix: str) -> None:
        """Records multipart uploads without a row. Those of ended uploads are freed by every sweep."""
        for batch in upload_names(self._stores.named(listing.storage)):
            ended = {
                upload.id.hex() for upload in ended_uploads.among(self._db, [bytes.fromhex(name) for name in batch])
            }
            keys = [key_of(prefix, name) for name in batch if name not in ended]
            named = known.uploads(self._db, listing.storage, keys)
            self._see(run, listing, "upload", [key for key in keys if key not in named])

    # -- objects

    def step(self, run: Run, listing: Listing, prefix: str) -> bool:
        """Continues a pass. Returns True if it has reached the end.

        Raises:
            StorageError: the storage cannot be listed. The next sweep continues at this position.
        """
        storage, after, ends, missing = self._stores.named(listing.storage), listing.cursor or "", run.deadline(), 0
        if after == AFTER_ALL_KEYS:
            return True  # the process that reached the end was stopped before it judged the pass
        keys = storage.list_objects(after)
        while True:
            page = list(islice(keys, known.BATCH))
            last = page[-1] if len(page) == known.BATCH else AFTER_ALL_KEYS
            # if the storage ignores the prefix, keys of other programs must not be deleted
            ours = [key for key in page if key.startswith(f"{prefix}/")]
            gone = self._compare(run, listing, ours, (after, last), listing.missing + missing)
            missing += gone
            if not run.dry and not listings.advance(self._db, listing, after, last, len(ours), gone):
                return False  # another process continues this pass
            if last == AFTER_ALL_KEYS:
                return True
            after = last
            if run.over(ends):
                return False

    def _compare(self, run: Run, listing: Listing, page: list[str], span: tuple[str, str], missing: int) -> int:
        """Compares a page with the rows in its range. Returns the number of newly missing objects."""
        left, gone = set(page), 0
        for replica in self._replicas(listing.storage, *span):
            if replica.object_key in left:
                left.remove(replica.object_key)
                if replica.missing_at is not None and not run.dry:
                    # it may be back; the job checks its length
                    jobs.insert(self._db, MEND, replica.blob_id, run.now)
            elif self._is_missing(run, listing, replica, missing + gone):
                gone += 1
        rest = [key for key in page if key in left]
        named = known.objects(self._db, listing.storage, rest)
        if not run.dry:
            ended_uploads.free_again(self._db, listing.storage, sorted(named))
        self._see(run, listing, "object", [key for key in rest if key not in named])
        return gone

    def _replicas(self, storage: str, after: str, last: str) -> Iterator[Replica]:
        while rows := listings.replicas_between(self._db, storage, after, last):
            yield from rows
            after = rows[-1].object_key

    def _is_missing(self, run: Run, listing: Listing, replica: Replica, missing: int) -> bool:
        """Whether an object is newly missing. One that was missing before is reported again."""
        if missing >= MOST_STATS_PER_PASS:
            return True
        try:
            self._stores.named(listing.storage).stat(replica.object_key)
        except ObjectNotFound:
            pass
        except StorageError:
            return False  # unreachable is not missing
        else:
            return False
        if not run.dry and not self._set_missing(run, listing, replica):
            return False  # the row has another object now, or was deleted
        if replica.missing_at is None:
            extra = {"storage": listing.storage, "key": replica.object_key, "blob": replica.blob_id.hex()}
            _log.error("a row's object is gone", extra=extra)
        run.did("objects_missing", f"object {replica.object_key} at {listing.storage} of blob {replica.blob_id.hex()}")
        return replica.missing_at is None

    def _set_missing(self, run: Run, listing: Listing, replica: Replica) -> bool:
        """Marks the replica as missing and creates the job that heals it."""

        def body(tx: Statements) -> bool:
            if not listings.set_missing(tx, listing.storage, replica, replica.missing_at or run.now):
                return False
            if replica.missing_at is None:
                jobs.insert(tx, MEND, replica.blob_id, run.now)
            return True

        return self._db.transaction(body)

    def _see(self, run: Run, listing: Listing, kind: str, keys: list[str]) -> None:
        for key in keys:
            run.did(f"unknown_{kind}s", f"{kind} {key} at {listing.storage}")
        if not run.dry:
            listings.see(self._db, listing, kind, [(key, made_at(key)) for key in keys], run.now)
