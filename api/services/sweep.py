"""What nobody else does: expire uploads, free what they left, delete doomed objects, drop rows that are done with.

Every step may run twice at once, and may stop anywhere: the rows say what is left to do.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import TypeVar

from api.config import Config
from api.db import accounts, blobs, revocations, uploads
from api.db.pool import Database
from api.errors import StorageError
from api.models import Clock, Upload
from api.services.stores import Stores, multipart_ref
from api.services.usage import Usage

_BATCH = 100
_STEP_SECONDS = 20.0

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Sweep:
    """See the module's docstring."""

    def __init__(self, db: Database, stores: Stores, config: Config, clock: Clock, usage: Usage) -> None:
        self._db = db
        self._usage = usage
        self._stores = stores
        self._config = config
        self._clock = clock

    def run(self) -> Counter[str]:
        """One sweep; answers what it did, by kind."""
        done: Counter[str] = Counter()
        done["uploads_expired"] = self._expire()
        done["uploads_freed"] = sum(self._free(name) for name, _ in self._stores)
        done["bodies_dropped"] = sum(self._drop_bodies(name) for name, _ in self._stores)
        done["objects_deleted"] = self._delete_doomed()
        done["part_lists_dropped"] = _drain(
            lambda: uploads.ended_with_parts(self._db), lambda row: uploads.prune_parts(self._db, row)
        )
        before = self._clock() - timedelta(seconds=self._config.upload_retention)
        done["uploads_dropped"] = _drain(lambda: uploads.ended_before(self._db, before), self._drop)
        done["sessions_dropped"] = accounts.prune_sessions(self._db, before)
        done["revocations_dropped"] = revocations.prune(self._db, self._clock() - timedelta(days=1))
        done["usage_dropped"] = self._usage.prune()
        if done := +done:
            _log.info("swept", extra=dict(done))
        return done

    def _expire(self) -> int:
        """State first, storage second; finalizing uploads are left to finish."""

        def expire(upload: Upload) -> None:
            if uploads.end(self._db, upload.id, "expired", "UPLOAD_EXPIRED", self._clock()):
                self._abort(upload)

        return _drain(lambda: uploads.expired(self._db, self._clock()), expire)

    def _drop(self, upload_id: bytes) -> None:
        uploads.prune_parts(self._db, upload_id)
        uploads.delete(self._db, upload_id)

    def _free(self, storage_name: str) -> int:
        """Aborts, at one storage, uploads that ended while it could not be asked."""
        count = 0
        try:
            held = self._stores.named(storage_name).list_uploads()
            for batch in _batches(held):
                for upload in uploads.ended_among(self._db, batch):
                    self._abort(upload)
                    count += 1
        except StorageError as ex:
            _log.warning("a storage cannot be swept", extra={"storage": storage_name, "error": str(ex)})
        return count

    def _drop_bodies(self, storage_name: str) -> int:
        try:
            return self._stores.named(storage_name).drop_dead_bodies()
        except StorageError as ex:
            _log.warning("a storage cannot be swept", extra={"storage": storage_name, "error": str(ex)})
            return 0

    def _abort(self, upload: Upload) -> None:
        try:
            self._stores.named(upload.storage).abort(multipart_ref(upload))
        except StorageError as ex:
            _log.warning("parts are left to the next sweep", extra={"upload": upload.id.hex(), "error": str(ex)})

    def _delete_doomed(self) -> int:
        count, after = 0, 0
        while found := blobs.doomed(self._db, after, self._clock()):
            for after, storage, object_key in found:
                try:
                    self._stores.named(storage).delete(object_key)
                except StorageError as ex:
                    _log.warning("an object is left to the next sweep", extra={"key": object_key, "error": str(ex)})
                else:
                    blobs.undoom(self._db, after)
                    count += 1
        return count


def _drain(find: Callable[[], Sequence[T]], act: Callable[[T], None]) -> int:
    """Acts on what is found until nothing is, or the step's time is over; what was acted on is not found again."""
    count, ends = 0, time.monotonic() + _STEP_SECONDS
    while time.monotonic() < ends and (batch := find()):
        for row in batch:
            act(row)
            count += 1
    return count


def _batches(names: Iterator[str]) -> Iterator[list[bytes]]:
    """Upload ids, 100 at a time; what is not an id of ours is nobody's business here."""
    ids = (bytes.fromhex(name) for name in names if len(name) == 32 and not set(name) - set("0123456789abcdef"))
    while batch := list(islice(ids, _BATCH)):
        yield batch
