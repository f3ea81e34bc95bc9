"""Deletes expired files in the trash, blobs without references, and objects that are marked for deletion.

No download is interrupted. A file's links, and the targets that edges cache for them, became invalid when the file was
moved to the trash, days before it is purged. A blob is deleted only after its last file. An object that lost a merge
was only ever the target of its uploader, whose file now has the other object: the next request asks for the new
target. If an object was moved, its row in `doomed` says how long edges may still read it.

Links stay invalid: they name the file's id, which is never used again, and an edge that asks for it learns that there
is none.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from api.blobs import rows as blobs
from api.context import Context
from api.core.errors import StorageError
from api.files import trash_rows as trash
from api.sweep.run import Run

_log = logging.getLogger(__name__)


class Contents:
    """See the module's docstring."""

    def __init__(self, context: Context) -> None:
        self._db = context.db
        self._stores = context.stores
        self._config = context.config

    def purge(self, run: Run) -> None:
        """Deletes files whose time in the trash has passed."""
        before = run.now - timedelta(days=self._config.trash_days)
        ends = run.deadline()
        while batch := trash.due(self._db, before):
            for row in batch:
                run.tell("files_purged", f"file {row.hex()}")
            if run.dry:
                run.counts["files_purged"] += len(batch)
                return
            run.counts["files_purged"] += self._purge(batch, before, run.now)
            if run.over(ends):
                return

    def delete_blobs(self, run: Run) -> None:
        """Condemns blobs without references, and marks their objects for deletion in the same transaction."""
        after = b""
        while batch := trash.candidates(self._db, after):
            for blob_id in batch:
                if trash.is_unreached(self._db, blob_id) if run.dry else self._condemn(blob_id, run.now):
                    run.did("blobs_deleted", f"blob {blob_id.hex()}")
            after = batch[-1]

    def bury(self, run: Run) -> None:
        """Deletes the rows of condemned blobs whose objects are gone."""
        after = b""
        while not run.dry and (batch := trash.candidates(self._db, after)):
            for blob_id in batch:
                if self._bury(blob_id):
                    run.counts["blobs_buried"] += 1
            after = batch[-1]

    # one transaction each: a larger one would hold locks that users wait for

    def _purge(self, file_ids: list[bytes], before: datetime, now: datetime) -> int:
        return self._db.transaction(lambda tx: trash.purge(tx, file_ids, before, now))

    def _condemn(self, blob_id: bytes, now: datetime) -> bool:
        return self._db.transaction(lambda tx: trash.condemn(tx, blob_id, now))

    def _bury(self, blob_id: bytes) -> bool:
        return self._db.transaction(lambda tx: trash.bury(tx, blob_id))

    def delete_doomed(self, run: Run) -> None:
        """Deletes the objects that a transaction has marked for deletion."""
        after = 0
        while found := blobs.doomed(self._db, after, run.now):
            for after, storage, object_key in found:
                try:
                    if not run.dry:
                        self._stores.named(storage).delete(object_key)
                        blobs.undoom(self._db, after)
                except StorageError as ex:
                    _log.warning("an object is left to the next sweep", extra={"key": object_key, "error": str(ex)})
                else:
                    run.did("objects_deleted", f"object {object_key} at {storage}")
