"""Copies finished objects whose multipart upload is still open at the storage to a new key.

Ceph RGW leaves such uploads behind if it is killed during a complete (`api.storage.s3.complete`). An abort, or a
lifecycle rule that aborts, would delete the objects' bytes. New uploads are protected against this; the rescue is for
objects that were stored by older versions.

A row of `healing` holds the new key before anything is stored under it, so a repeated run continues with that key. The
sweep aborts the open upload as soon as no replica has its key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from api.blobs import scrub_rows as scrubs
from api.blobs.replicas import MEND
from api.blobs.scrub_rows import Healing, Stored
from api.context import Context
from api.core.errors import CompleteDoubtful, ObjectNotFound, StorageError
from api.core.models import new_id
from api.jobs import rows as jobs
from api.storage.base import Copies
from api.storage.keys import object_key
from api.storage.stores import LATE_COMPLETE
from api.storage.wholeness import is_whole

Tell = Callable[[str, str], None]
"""Called for each object with (what was done, a description of the object)."""

KEYS_PER_QUERY: Final = 100
SERVER_SIDE_COPY: Final = "rescue"
"""Stands in the row for a multipart id if the storage itself makes the copy."""


class Rescuer:
    """See the module's docstring."""

    def __init__(self, context: Context) -> None:
        self._db = context.db
        self._stores = context.stores
        self._clock = context.clock
        self._prefix = context.prefix

    def run(self, name: str, tell: Tell, *, dry: bool) -> Counter[str]:
        """Rescues every object of a storage that is in danger.

        Args:
            dry: only report the objects that are in danger.

        Returns:
            Number of objects by result.

        Raises:
            StorageError: the storage is not configured, or cannot be listed.
        """
        storage, done = self._stores.named(name), Counter[str]()
        if not isinstance(storage, Copies):
            return done
        names = [found for found in storage.list_uploads() if len(found) == 32]
        for first in range(0, len(names), KEYS_PER_QUERY):
            keys = [f"{self._prefix()}/{found[-2:]}/{found}" for found in names[first : first + KEYS_PER_QUERY]]
            for blob_id, size, stored in scrubs.at_keys(self._db, name, keys):
                what = "in danger" if dry else self._rescue(storage, blob_id, size, stored)
                done[what] += 1
                tell(what, f"object {stored.object_key} of blob {blob_id.hex()}, {size} bytes")
        return done

    def _rescue(self, storage: Copies, blob_id: bytes, size: int, stored: Stored) -> str:
        name = new_id()
        fresh = Healing(object_key(self._prefix(), name), name, "", binds_hash=False)
        begun = scrubs.healing(self._db, blob_id, stored.storage, fresh, self._clock())
        if begun.object_key == fresh.object_key:
            begun = Healing(fresh.object_key, name, SERVER_SIDE_COPY, binds_hash=False)
            scrubs.set_opened(self._db, blob_id, stored.storage, begun)
        elif begun.multipart_id != SERVER_SIDE_COPY:
            return "being healed"
        try:
            storage.copy(stored.object_key, begun.object_key, size, _go_on)
            whole = is_whole(self._stores.named(stored.storage), begun.object_key, size)
        except (ObjectNotFound, CompleteDoubtful) as ex:
            return self._give_up(blob_id, stored, begun, "lost" if isinstance(ex, ObjectNotFound) else "in doubt")
        except StorageError:
            return "failed"
        if not whole:
            return self._give_up(blob_id, stored, begun, "lost")
        now = self._clock()
        moved = self._db.transaction(lambda tx: scrubs.move(tx, blob_id, stored, begun, now, now + LATE_COMPLETE))
        return "rescued" if moved else "gone meanwhile"

    def _give_up(self, blob_id: bytes, stored: Stored, begun: Healing, what: str) -> str:
        now = self._clock()
        late = now + LATE_COMPLETE
        self._db.transaction(lambda tx: scrubs.give_up(tx, blob_id, stored.storage, begun, now, late))
        if what == "lost":
            jobs.insert_many(self._db, MEND, [blob_id], now)  # heals it from another replica, or reports it as lost
        return what


def _go_on() -> None:
    """There is no lease to keep: a command runs this, not a worker."""
