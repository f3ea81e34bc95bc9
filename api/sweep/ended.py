"""Frees expired and ended uploads, their parts and rows, and old temporary files, sessions and revocations."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice

from api.accounts import network_rows
from api.accounts import revocation_rows as revocations
from api.accounts import rows as accounts
from api.accounts.usage import Usage
from api.context import Context
from api.core.errors import StorageError
from api.core.models import Upload
from api.storage.base import MultipartStorage
from api.storage.stores import multipart_ref
from api.sweep import known_rows as known
from api.sweep.run import Run
from api.uploads import ended_rows as ended_uploads
from api.uploads import rows as uploads

LONGEST_PUT_SECONDS = 300
"""Seconds that a PUT may still take after its URL has expired."""

NETWORK_RETENTION = timedelta(days=90)
"""A known network of an account is deleted after this time without a sign-in."""

IN_DANGER = "its upload is open; python -m api storage rescue"

_log = logging.getLogger(__name__)


class Ended:
    """See the module's docstring."""

    def __init__(self, context: Context, usage: Usage) -> None:
        self._db = context.db
        self._stores = context.stores
        self._config = context.config
        self._usage = usage

    def expire(self, run: Run) -> None:
        """Ends expired uploads: first the state, then the storage. Finalizing uploads may finish."""

        def expire(upload: Upload) -> None:
            ended = uploads.end(self._db, upload.id, "expired", "UPLOAD_EXPIRED", run.now)
            if ended and not upload.is_single:  # a single PUT's object is left to `free_objects`, which a doubt stops
                self._stores.free_parts(upload)

        run.drain(
            "uploads_expired",
            lambda: ended_uploads.expired(self._db, run.now),
            expire,
            lambda upload: f"upload {upload.id.hex()} of {upload.size} bytes, due {upload.expires_at.isoformat()}",
        )

    def free(self, run: Run) -> None:
        """Aborts uploads that ended while their storage or the database was unreachable.

        If an open upload has the key of a replica, it is not aborted: Ceph RGW would delete the object's bytes too.
        """
        for name, storage in self._stores:
            try:
                for batch in upload_names(storage):
                    ended = ended_uploads.among(self._db, [bytes.fromhex(found) for found in batch])
                    alive = known.replicas(self._db, name, [upload.object_key for upload in ended])
                    for upload in ended:
                        if upload.object_key in alive:
                            if run.dry or storage.abort_strays(multipart_ref(upload)):
                                run.did("objects_in_danger", f"object {upload.object_key} at {name}: {IN_DANGER}")
                            continue
                        if upload.is_single:
                            continue  # it has no parts, and `abort` would delete an object that a file may use
                        if not run.dry:
                            self._stores.free_parts(upload)
                        run.did("uploads_freed", f"parts of upload {upload.id.hex()} at {upload.storage}")
            except StorageError as ex:
                _log.warning("a storage cannot be swept", extra={"storage": name, "error": str(ex)})

    def free_objects(self, run: Run) -> None:
        """Deletes the objects of small uploads that failed, as soon as none of their URLs can store them again."""
        before, ends = run.now - timedelta(seconds=self._config.part_url_ttl + LONGEST_PUT_SECONDS), run.deadline()
        for state in ("failed", "aborted", "expired"):
            after = bytes(16)
            while not run.over(ends) and (batch := ended_uploads.singles(self._db, state, before, after)):
                for upload in batch:
                    if run.dry or self._stores.free_parts(upload):
                        run.did("objects_freed", f"what upload {upload.id.hex()} may have left at {upload.storage}")
                        if not run.dry:
                            ended_uploads.prune_parts(self._db, upload.id)
                after = batch[-1].id

    def drop_bodies(self, run: Run) -> None:
        """Deletes temporary files of request bodies that a killed edge left behind."""
        if run.dry:
            return
        for name, storage in self._stores:
            try:
                if count := storage.drop_dead_bodies():
                    run.did("bodies_dropped", f"{count} at {name}", count)
            except StorageError as ex:
                _log.warning("a storage cannot be swept", extra={"storage": name, "error": str(ex)})

    def drop_rows(self, run: Run) -> None:
        """Deletes rows whose retention time has passed."""
        run.drain(
            "part_lists_dropped",
            lambda: ended_uploads.with_parts(self._db),
            lambda row: ended_uploads.prune_parts(self._db, row),
            lambda row: f"the part rows of upload {row.hex()}",
        )
        before = run.now - timedelta(seconds=self._config.upload_retention)
        run.drain(
            "uploads_dropped",
            lambda: ended_uploads.before(self._db, before),
            self._drop,
            lambda row: f"the row of upload {row.hex()}",
        )
        if not run.dry:
            run.counts["sessions_dropped"] += accounts.prune_sessions(self._db, before)
            run.counts["networks_dropped"] += network_rows.prune(self._db, run.now - NETWORK_RETENTION)
            run.counts["usage_dropped"] += self._usage.prune()
            run.counts["revocations_dropped"] += revocations.prune(self._db, run.now)

    def _drop(self, upload_id: bytes) -> None:
        ended_uploads.prune_parts(self._db, upload_id)
        ended_uploads.delete(self._db, upload_id)


def upload_names(storage: MultipartStorage) -> Iterator[list[str]]:
    """Ids of the uploads whose parts a storage holds, 100 at a time.

    Other multipart uploads in the bucket, whose names are no Sluice ids, are skipped.
    """
    held = storage.list_uploads()
    names = (name for name in held if len(name) == 32 and not set(name) - set("0123456789abcdef"))
    while batch := list(islice(names, 100)):
        yield batch
