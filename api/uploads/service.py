"""Uploads from their creation to their end; see docs/design.md for the protocol and the states.

State first, storage second: a row says what is about to happen before any storage is asked for it, so that after a
crash the row tells what is still to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from api.context import Context
from api.core import digests, errors
from api.core.errors import PartMismatch, Problem, StorageError, StorageFull, UploadGone
from api.core.models import File, Identity, Upload, new_id
from api.db.pool import Statements
from api.jobs import rows as jobs
from api.storage.stores import multipart_ref
from api.uploads import ranges
from api.uploads import rows as uploads
from api.uploads.batch import Singles
from api.uploads.create import Creation, NewUpload, check_numbers
from api.uploads.finalize import LEASE, MOST_COMPLETES, Finalizer
from api.uploads.proof import Instant
from api.uploads.resize import resize
from api.uploads.rows import Recorded
from api.uploads.status import Progress, SignedParts, UploadView

MOST_SIGNINGS: Final = 5
"""URLs that are given out for one part of a storage that leaks what is sent again."""

_PARTS_AT_ONCE: Final = 1_000
"""Parts that a storage names in one answer and joins in well under a second (measured on Ceph)."""

NO_ETAGS: Final[Mapping[int, str]] = MappingProxyType({})

_log = logging.getLogger(__name__)


class Uploads:
    """See the module's docstring."""

    def __init__(
        self, context: Context, instant: Instant, finalizer: Finalizer, creation: Creation, progress: Progress
    ) -> None:
        self._db = context.db
        self._singles = Singles(context, instant, creation)
        self._queue = context.queue
        self._stores = context.stores
        self._instant = instant
        self._finalizer = finalizer
        self._creation = creation
        self._progress = progress
        self._config = context.config
        self._clock = context.clock

    # -- create

    def create(self, identity: Identity, new: NewUpload) -> UploadView:
        """A new upload, the same unfinished one again, or one that is done at once.

        Raises:
            Problem: NAME_INVALID, SIZE_INVALID, DIGEST_MISMATCH (of an empty file), STORAGE_FULL, UPLOADS_LIMITED,
                PARTS_LIMITED, and what `sign` raises where parts are named.
        """
        self._creation.check(new)
        if made := self._singles.make(identity, [new]):
            return self._new_view(identity, made[0], new)
        return self._create(identity, new)

    def create_many(self, identity: Identity, news: Sequence[NewUpload | Problem]) -> list[UploadView | Problem]:
        """The same for each of several, plain small files in one transaction; a problem stays one."""
        answers: list[UploadView | Problem | None] = [None] * len(news)
        good: dict[int, NewUpload] = {}
        for place, new in enumerate(news):
            try:
                if isinstance(new, Problem):
                    raise new
                self._creation.check(new)
                good[place] = new
            except Problem as ex:
                answers[place] = ex
        places = list(good)
        for at, upload in self._singles.make(identity, list(good.values())).items():
            new = good.pop(places[at])
            answers[places[at]] = self._new_view(identity, upload, new)
        for place, new in good.items():
            answers[place] = _answered(lambda new=new: self._create(identity, new))  # type: ignore[misc]
        return [answer for answer in answers if answer is not None]

    def _new_view(self, identity: Identity, upload: Upload, new: NewUpload) -> UploadView:
        """A new upload of one PUT, with its URL."""
        signed = self._sign(identity, upload, new.parts or {})
        return replace(self._progress.brief(upload), created=True, parts=signed)

    def _create(self, identity: Identity, new: NewUpload) -> UploadView:
        view = self._creation.find_or_make(identity, new)
        upload = view.upload
        if upload.state in ("proving", "uploading"):
            upload = self._creation.open(upload)
        if new.parts and upload.state == "uploading":
            return replace(view, upload=upload, parts=self.sign(identity, upload.id, new.parts))
        return replace(view, upload=upload)

    def resize(self, identity: Identity, upload_id: bytes, size: int) -> UploadView:
        """The upload with another size: see `api.uploads.resize`. Raises Problem UPLOAD_NOT_FOUND besides."""
        upload = self._own(identity, upload_id)
        resized = resize(self._db, self._stores, self._config, self._clock, identity, upload, size)
        return self._progress.view(resized)

    # -- proof

    def prove(self, identity: Identity, upload_id: bytes, proof: bytes, hashes: bytes) -> UploadView:
        """Judges a proof: the upload is done, or goes on as ``uploading``.

        Raises:
            Problem: UPLOAD_NOT_FOUND, UPLOAD_NOT_OPEN.
        """
        upload = self._own(identity, upload_id)
        if upload.state not in ("proving", "uploading"):
            raise _not_open(upload)
        self._instant.prove(upload, proof, hashes)
        return self.get(identity, upload_id)

    # -- parts

    def sign(self, identity: Identity, upload_id: bytes, parts: Mapping[int, str]) -> SignedParts:
        """One URL for each part, after its hash was written down for good.

        A part that must not be sent twice, and that the storage has, gets none: it is left out.

        Raises:
            Problem: UPLOAD_NOT_FOUND, UPLOAD_NOT_OPEN, PART_NUMBER_INVALID, PART_HASH_CONFLICT,
                PART_TRIES_EXHAUSTED.
        """
        signing = uploads.for_signing(self._db, upload_id, identity.user_id, parts)
        if signing is None:
            raise Problem(errors.UPLOAD_NOT_FOUND)
        upload = signing.upload
        if upload.state not in ("proving", "uploading") or upload.expires_at <= self._clock():
            raise _not_open(upload)
        check_numbers(parts, upload.part_count)
        known = signing.recorded
        _check_written_once(known, parts)
        leaks = self._stores.named(upload.storage).leaks_resent_parts and not upload.is_single
        if known.hashes and (leaks or upload.is_single):
            upload, parts = self._not_received(upload, known, parts)
        if leaks:
            _check_tries(known, parts)
        upload = self._creation.open(upload)
        if parts:
            were_new = uploads.record_parts(self._db, upload.id, parts)
            if not were_new or known.hashes.keys() & parts.keys():
                # another call may have been first with another hash
                _check_written_once(uploads.recorded_of(self._db, upload.id, parts), parts)
        if upload.state == "proving":
            uploads.skip_proof(self._db, upload.id, self._clock())
        return self._sign(identity, upload, parts)

    def _not_received(
        self, upload: Upload, known: Recorded, parts: Mapping[int, str]
    ) -> tuple[Upload, Mapping[int, str]]:
        """The parts without those that the storage has; it is asked where one was signed before.

        Raises:
            Problem: UPLOAD_NOT_OPEN, where the storage says that there is no such upload.
        """
        if not known.hashes.keys() & parts.keys():
            return upload, parts
        upload = self._progress.ask(upload)
        if upload.state not in ("proving", "uploading"):
            raise _not_open(upload)
        received = set(ranges.from_bits(upload.received))
        return upload, {number: sha256 for number, sha256 in parts.items() if number not in received}

    def _sign(self, identity: Identity, upload: Upload, parts: Mapping[int, str]) -> SignedParts:
        expiry = min(int(self._clock().timestamp()) + self._config.part_url_ttl, int(upload.expires_at.timestamp()))
        presign, ref = (
            self._stores.named(upload.storage).presign_part,
            multipart_ref(upload, identity.generation, identity.tier),
        )
        signed = {number: presign(ref, number, sha256, expiry) for number, sha256 in parts.items()}
        return SignedParts(signed, datetime.fromtimestamp(expiry, UTC))

    # -- look

    def _own(self, identity: Identity, upload_id: bytes) -> Upload:
        upload = uploads.by_id(self._db, upload_id, identity.user_id)
        if upload is None:
            raise Problem(errors.UPLOAD_NOT_FOUND)
        return upload

    def get(self, identity: Identity, upload_id: bytes) -> UploadView:
        """An upload as it is; what was received is the storage's own answer, at most 5 s old."""
        return self._progress.view(self._progress.ask(self._own(identity, upload_id)))

    def page(self, identity: Identity, after: bytes | None, state: str | None, limit: int) -> list[UploadView]:
        """The user's uploads, newest first; storages are not asked."""
        found = uploads.page(self._db, identity.user_id, after, state, limit)
        return [self._progress.brief(upload) for upload in found]

    # -- the end

    def complete(self, identity: Identity, upload_id: bytes, etags: Mapping[int, str] = NO_ETAGS) -> UploadView:
        """Turns the parts into a file: done at once, or ``finalizing`` in the background when large.

        Args:
            etags: what the storage answered each part with, as the client says.

        Raises:
            Problem: UPLOAD_NOT_FOUND, UPLOAD_NOT_OPEN, PARTS_MISSING, DIGEST_MISMATCH, PART_MISMATCH, UPLOAD_GONE,
                STORAGE_FULL.
        """
        found = uploads.with_few_hashes(self._db, upload_id, identity.user_id)
        if found is None:
            raise Problem(errors.UPLOAD_NOT_FOUND)
        if done := self._singles.finish([found]).get(upload_id):
            return self._done_view(*done)
        upload, few = found
        if upload.state in ("done", "finalizing"):
            return self._progress.view(upload)
        for ended in (errors.DIGEST_MISMATCH, errors.UPLOAD_GONE):
            if upload.failure == ended.code:
                raise Problem(ended)
        if upload.state not in ("proving", "uploading"):
            raise _not_open(upload)
        believed = self._believes(upload, etags)
        try:
            missing = [] if believed else self._not_stored(upload)
        except UploadGone:
            self._progress.lost(upload)
            return self.complete(identity, upload_id)
        hashes = b""
        if not missing:
            hashes = few if few is not None else uploads.hashes(self._db, upload.id)
            if len(hashes) // digests.HASH_LENGTH < upload.part_count:
                believed, missing = False, self._without_hash(upload)
        if missing:
            if self._own(identity, upload_id).state != upload.state:
                return self.complete(identity, upload_id)  # the parts went because another call was first
            raise Problem(errors.PARTS_MISSING, missing=missing)
        digest = digests.composite(hashes)
        if upload.digest not in (None, digest):
            self._end(upload, "failed", errors.DIGEST_MISMATCH.code)
            raise Problem(errors.DIGEST_MISMATCH)
        upload = replace(upload, digest=digest)
        return self._finalize(identity, upload, hashes, believed)

    def complete_many(self, identity: Identity, ids: Sequence[bytes]) -> list[UploadView | Problem]:
        """The same for each of several, plain small files in one transaction. An id that is repeated costs nothing."""
        unique = list(dict.fromkeys(ids))
        found = uploads.many_with_few_hashes(self._db, unique, identity.user_id)
        finished = self._singles.finish(found)
        answers: dict[bytes, UploadView | Problem] = {}
        for upload_id in unique:
            if upload_id in finished:
                answers[upload_id] = self._done_view(*finished[upload_id])
            else:
                answers[upload_id] = _answered(lambda upload_id=upload_id: self.complete(identity, upload_id))  # type: ignore[misc]
        return [answers[upload_id] for upload_id in ids]

    def _done_view(self, upload: Upload, file: File) -> UploadView:
        done = replace(upload, state="done", file_id=file.id, failure=None)
        return replace(self._progress.brief(done), file=file)

    def _believes(self, upload: Upload, etags: Mapping[int, str]) -> bool:
        """Whether nobody has to ask what is stored: the storage's complete finds out what a client says wrongly."""
        if not etags or not upload.binds_hash or not self._is_inline(upload):
            return False
        return self._stores.named(upload.storage).believe(multipart_ref(upload), etags)

    def _not_stored(self, upload: Upload) -> list[tuple[int, int]]:
        """The parts, as ranges, that the storage does not have."""
        stored = self._progress.stored(upload) if upload.multipart_id else []
        return ranges.to_ranges(ranges.missing(stored, upload.part_count))

    def _without_hash(self, upload: Upload) -> list[tuple[int, int]]:
        """The parts, as ranges, whose hash is not written down."""
        every = range(1, upload.part_count + 1)
        return ranges.to_ranges(ranges.missing(uploads.recorded_of(self._db, upload.id, every).hashes, every[-1]))

    def _is_inline(self, upload: Upload) -> bool:
        return upload.size <= self._config.finalize_inline or self._completes_at_once(upload)

    def _finalize(self, identity: Identity, upload: Upload, hashes: bytes, believed: bool) -> UploadView:
        now, owner = self._clock(), new_id()
        every = ranges.to_bits(range(1, upload.part_count + 1))
        assert upload.digest is not None
        digest = upload.digest

        def begin(tx: Statements) -> bool:
            begun = uploads.begin_finalizing(tx, upload, digest, every, None, now)
            if begun:
                jobs.insert(tx, "finalize", upload.id, now)
            return begun

        if not self._is_inline(upload):
            if not self._db.transaction(begin):
                return self.complete(identity, upload.id)  # another complete or abort was first
            self._queue.enqueue("finalize", [upload.id])
            return self._progress.brief(replace(upload, state="finalizing", received=every, failure=None))
        if not uploads.begin_finalizing(self._db, upload, digest, every, (owner, now + LEASE), now):
            return self.complete(identity, upload.id)
        file = self._finalize_here(upload, hashes, owner, believed)
        if file is None:
            return self.complete(identity, upload.id)  # its row says how it ended, or who goes on with it
        return self._done_view(upload, file)

    def _completes_at_once(self, upload: Upload) -> bool:
        """A storage that puts parts together without reading them is slow by their number alone."""
        return upload.part_count <= _PARTS_AT_ONCE and not self._stores.named(upload.storage).reads_to_complete

    def _finalize_here(self, upload: Upload, hashes: bytes, owner: bytes, believed: bool) -> File | None:
        try:
            return self._finalizer.finish(
                replace(upload, completes=upload.completes + 1, completes_sent=upload.completes_sent + 1),
                hashes,
                owner,
                believed=believed,
            )
        except PartMismatch as ex:
            if believed:
                return None  # it is as it was: the storage is asked what is missing
            if upload.completes + 1 >= MOST_COMPLETES:
                message = "Stored parts were not what their hashes say too often; create the upload anew."
                raise Problem(errors.PART_MISMATCH, message, parts=list(ex.parts), state="failed") from ex
            raise Problem(errors.PART_MISMATCH, parts=list(ex.parts)) from ex
        except StorageFull as ex:
            raise Problem(errors.STORAGE_FULL) from ex

    def abort(self, identity: Identity, upload_id: bytes) -> UploadView:
        """Ends an upload and frees its parts; safe to repeat.

        Raises:
            Problem: UPLOAD_NOT_FOUND, UPLOAD_NOT_OPEN (it is done, or being finalized).
        """
        upload = self._own(identity, upload_id)
        if upload.state in ("done", "finalizing") or (
            upload.state in ("proving", "uploading") and not self._end(upload, "aborted", None)
        ):
            raise _not_open(upload)
        return self._progress.view(self._own(identity, upload_id))

    def _end(self, upload: Upload, state: str, failure: str | None) -> bool:
        if not uploads.end(self._db, upload.id, state, failure, self._clock()):
            return False
        self._stores.free_parts(upload)
        return True


def _answered(call: Callable[[], UploadView]) -> UploadView | Problem:
    """One of several calls' own answer."""
    try:
        return call()
    except Problem as ex:
        return ex
    except StorageError as ex:
        _log.error("a storage failed", extra={"error": str(ex), "kind": type(ex).__name__})
        return errors.problem_of(ex)


def _check_written_once(recorded: Recorded, parts: Mapping[int, str]) -> None:
    conflicts = [number for number, sha256 in parts.items() if recorded.hashes.get(number, sha256) != sha256]
    if conflicts:
        raise Problem(errors.PART_HASH_CONFLICT, parts=sorted(conflicts))


def _check_tries(recorded: Recorded, parts: Mapping[int, str]) -> None:
    # calls at the same moment may pass together: what they get is one URL, for its second is the same
    exhausted = [number for number in parts if recorded.signed.get(number, 0) >= MOST_SIGNINGS]
    if exhausted:
        raise Problem(errors.PART_TRIES_EXHAUSTED, parts=sorted(exhausted))


def _not_open(upload: Upload) -> Problem:
    return Problem(errors.UPLOAD_NOT_OPEN, f"The upload is {upload.state}.", state=upload.state)
