"""How uploads end: completed into files, or aborted.

A call completes a list of uploads; a single call passes a list of one. Those whose object is one PUT, and is stored,
are done in one transaction: nothing is joined at the storage, so no crash can come in between, and no state is needed
between uploading and done. Each of the others is finalized by itself: here if that is quick, else by a job.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from api.context import Context
from api.core import digests, errors
from api.core.errors import (
    DatabaseUnavailable,
    DuplicateRow,
    PartMismatch,
    Problem,
    StorageError,
    StorageFull,
    UploadGone,
)
from api.core.models import Blob, File, Identity, Upload, new_id
from api.db.pool import Statements
from api.jobs import rows as jobs
from api.storage.stores import multipart_ref
from api.uploads import complete_rows, ranges, rows
from api.uploads.complete_rows import Done
from api.uploads.finalize import LEASE, MOST_COMPLETES, Finalizer
from api.uploads.proof import Instant
from api.uploads.status import Progress, UploadView, not_open

PARTS_JOINED_QUICKLY: Final = 1_000
"""Parts that a storage names in one answer and joins in well under a second (measured on Ceph)."""
_LOOKS: Final = 5
"""How often a call looks again at a row that other calls change meanwhile."""

NO_ETAGS: Final[Mapping[int, str]] = MappingProxyType({})

_log = logging.getLogger(__name__)


class _Apart(Exception):
    """These uploads cannot be done in one transaction."""


class Completion:
    """See the module's docstring."""

    def __init__(self, context: Context, instant: Instant, finalizer: Finalizer, progress: Progress) -> None:
        self._db = context.db
        self._stores = context.stores
        self._instant = instant
        self._finalizer = finalizer
        self._progress = progress
        self._context = context

    def complete(
        self, identity: Identity, ids: Sequence[bytes], etags: Mapping[int, str] = NO_ETAGS
    ) -> list[UploadView | Problem]:
        """Turns uploads of one user into files; safe to repeat. An id that is named twice costs nothing more.

        Args:
            etags: the storage's ETag of each part, as the client reports it; of a single upload only.

        Returns:
            For each id an upload that is done, or ``finalizing`` in the background if it is large, or a Problem:
            UPLOAD_NOT_FOUND, UPLOAD_NOT_OPEN, PARTS_MISSING, DIGEST_MISMATCH, PART_MISMATCH, UPLOAD_GONE, STORAGE_FULL.
        """
        found = {pair[0].id: pair for pair in rows.many_with_few_hashes(self._db, sorted(set(ids)), identity.user_id)}
        answers: dict[bytes, UploadView | Problem] = dict(self._finish_plain(list(found.values())))
        for upload_id in dict.fromkeys(ids):
            if upload_id not in answers:
                answers[upload_id] = self._answer(found.get(upload_id), etags)
        return [answers[upload_id] for upload_id in ids]

    # -- uploads whose object is one PUT

    def _finish_plain(self, found: Sequence[tuple[Upload, bytes | None]]) -> dict[bytes, UploadView]:
        """Those that could be done in one transaction."""
        ready: dict[bytes, Done] = {}
        now, claimed = self._context.clock(), set[bytes]()
        for upload, hashes in found:
            if hashes is None or not _is_plain(upload, hashes) or upload.digest in claimed:
                continue
            if not self._is_stored(upload, hashes):
                continue
            assert upload.digest is not None
            claimed.add(upload.digest)
            blob = Blob(new_id(), upload.size, upload.digest, "verified", None, upload.storage, upload.object_key)
            ready[upload.id] = Done(upload, File.of(upload, blob, new_id(), now), hashes)
        if not ready:
            return {}
        scope = self._instant.scope(found[0][0].user_id)

        def body(tx: Statements) -> None:
            if not complete_rows.finish(tx, list(ready.values()), scope, now):
                raise _Apart

        try:
            self._db.transaction(body)
        except (_Apart, DuplicateRow):
            return {}
        return {upload_id: self._done_view(done.upload, done.file) for upload_id, done in ready.items()}

    def _is_stored(self, upload: Upload, hashes: bytes) -> bool:
        """Whether the object is there as it was signed."""
        try:
            storage = self._stores.named(upload.storage)
            return storage.complete(multipart_ref(upload), hashes, lambda: None).verified
        except StorageError as ex:
            _log.info("an upload of one PUT is not plain", extra={"upload": upload.id.hex(), "error": str(ex)})
            return False

    # -- one upload

    def _answer(self, found: tuple[Upload, bytes | None] | None, etags: Mapping[int, str]) -> UploadView | Problem:
        try:
            for _ in range(_LOOKS):
                if found is None:
                    raise Problem(errors.UPLOAD_NOT_FOUND)
                if view := self._complete(*found, etags):
                    return view
                found = rows.with_few_hashes(self._db, found[0].id, found[0].user_id)
                etags = NO_ETAGS  # what the client says has been tried
        except Problem as ex:
            return ex
        except StorageError as ex:
            _log.error("a storage failed", extra={"error": str(ex), "kind": type(ex).__name__})
            return errors.problem_of(ex)
        raise DatabaseUnavailable("the upload changes all the time")

    def _complete(self, upload: Upload, few: bytes | None, etags: Mapping[int, str]) -> UploadView | None:
        """One look at an upload; None if its row has to be looked at again.

        Args:
            few: the packed hashes of its parts, if these are few.
        """
        if upload.state in ("done", "finalizing"):
            return self._progress.view(upload)
        for ended in (errors.DIGEST_MISMATCH, errors.UPLOAD_GONE):
            if upload.failure == ended.code:
                raise Problem(ended)
        if upload.state not in ("proving", "uploading"):
            raise not_open(upload)
        believed = self._believes(upload, etags)
        try:
            missing = [] if believed else self._not_stored(upload)
        except UploadGone:
            self._progress.lost(upload)
            return None
        hashes = b""
        if not missing:
            hashes = few if few is not None else rows.hashes(self._db, upload.id)
            if len(hashes) // digests.HASH_LENGTH < upload.part_count:
                believed, missing = False, self._without_hash(upload)
        if missing:
            now = rows.by_id(self._db, upload.id, upload.user_id)
            if now is None or now.state != upload.state:
                return None  # the parts went because another call was first
            raise Problem(errors.PARTS_MISSING, missing=missing)
        digest = digests.composite(hashes)
        if upload.digest not in (None, digest):
            self.end(upload, "failed", errors.DIGEST_MISMATCH.code)
            raise Problem(errors.DIGEST_MISMATCH)
        if self._is_quick(upload):
            return self._finalize_here(replace(upload, digest=digest), hashes, believed=believed)
        return self._finalize_by_job(replace(upload, digest=digest))

    def _believes(self, upload: Upload, etags: Mapping[int, str]) -> bool:
        """Whether the API need not ask which parts are stored: the storage's complete detects wrong ETags."""
        if not etags or not upload.binds_hash or not self._is_quick(upload):
            return False
        return self._stores.named(upload.storage).believe(multipart_ref(upload), etags)

    def _not_stored(self, upload: Upload) -> list[tuple[int, int]]:
        """The parts, as ranges, that the storage does not have."""
        stored = self._progress.stored(upload) if upload.multipart_id else []
        return ranges.to_ranges(ranges.missing(stored, upload.part_count))

    def _without_hash(self, upload: Upload) -> list[tuple[int, int]]:
        """The parts, as ranges, whose hash is not written down."""
        every = range(1, upload.part_count + 1)
        return ranges.to_ranges(ranges.missing(rows.recorded_of(self._db, upload.id, every).hashes, every[-1]))

    def _is_quick(self, upload: Upload) -> bool:
        """Whether a client can wait for it: it is small, or its storage joins parts without reading them."""
        if upload.size <= self._context.config.finalize_inline:
            return True
        return upload.part_count <= PARTS_JOINED_QUICKLY and not self._stores.named(upload.storage).reads_to_complete

    def _finalize_by_job(self, upload: Upload) -> UploadView | None:
        now, every = self._context.clock(), _every_part(upload)

        def begin(tx: Statements) -> bool:
            begun = rows.begin_finalizing(tx, upload, every, None, now)
            if begun:
                jobs.insert(tx, "finalize", upload.id, now)
            return begun

        if not self._db.transaction(begin):
            return None  # another complete or abort was first
        self._context.queue.enqueue("finalize", [upload.id])
        return self._progress.brief(replace(upload, state="finalizing", received=every, failure=None))

    def _finalize_here(self, upload: Upload, hashes: bytes, *, believed: bool) -> UploadView | None:
        now, owner = self._context.clock(), new_id()
        if not rows.begin_finalizing(self._db, upload, _every_part(upload), (owner, now + LEASE), now):
            return None
        completes = upload.completes + 1
        begun = replace(upload, completes=completes, completes_sent=upload.completes_sent + 1)
        try:
            file = self._finalizer.finish(begun, hashes, owner, believed=believed)
        except PartMismatch as ex:
            if believed:
                return None  # it is as it was: the storage is asked what is missing
            if completes >= MOST_COMPLETES:
                message = "Stored parts were not what their hashes say too often; create the upload anew."
                raise Problem(errors.PART_MISMATCH, message, parts=list(ex.parts), state="failed") from ex
            raise Problem(errors.PART_MISMATCH, parts=list(ex.parts)) from ex
        except StorageFull as ex:
            raise Problem(errors.STORAGE_FULL) from ex
        return self._done_view(upload, file) if file else None  # the row says how it ended, or who continues

    def _done_view(self, upload: Upload, file: File) -> UploadView:
        done = replace(upload, state="done", file_id=file.id, failure=None)
        return replace(self._progress.brief(done), file=file)

    # -- abort

    def abort(self, identity: Identity, upload_id: bytes) -> UploadView:
        """Ends an upload and frees its parts; safe to repeat.

        Raises:
            Problem: UPLOAD_NOT_FOUND, UPLOAD_NOT_OPEN (it is done, or being finalized).
        """
        upload = self._progress.own(identity, upload_id)
        if upload.state in ("done", "finalizing") or (
            upload.state in ("proving", "uploading") and not self.end(upload, "aborted", None)
        ):
            raise not_open(upload)
        return self._progress.view(self._progress.own(identity, upload_id))

    def end(self, upload: Upload, state: str, failure: str | None) -> bool:
        """Ends an open upload and frees its parts; False if it is not open any more."""
        if not rows.end(self._db, upload.id, state, failure, self._context.clock()):
            return False
        self._stores.free_parts(upload)
        return True


def _every_part(upload: Upload) -> bytes:
    return ranges.to_bits(range(1, upload.part_count + 1))


def _is_plain(upload: Upload, hashes: bytes) -> bool:
    return (
        upload.is_single
        and upload.state == "uploading"
        and upload.binds_hash
        and len(hashes) == digests.HASH_LENGTH
        and digests.composite(hashes) == upload.digest
    )
