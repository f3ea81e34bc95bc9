"""Uploads from their creation to their end; see DESIGN.md for the protocol and the states.

State first, storage second: a row says what is about to happen before any storage is asked for it, so that after a
crash the row tells what is still to do.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from api import digests, errors
from api.cache import Cache
from api.config import Config
from api.db import accounts, blobs, files, uploads
from api.db.pool import Database, Statements
from api.errors import DuplicateRow, PartMismatch, Problem, StorageError, StorageFull, UploadGone
from api.models import OPEN_STATES, ROOT_FOLDER, Blob, Clock, File, Identity, Upload, new_id
from api.services import ranges
from api.services.finalize import LEASE, Finalizer
from api.services.instant import Challenge, Instant
from api.services.names import check_name, content_type
from api.services.stores import Stores, multipart_ref
from api.storage.base import MultipartStorage, SignedPart

MAX_PARTS_A_CALL: Final = 1000
_ASK_AGAIN: Final = timedelta(seconds=5)
"""A storage is asked what it received of one upload at most this often."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewUpload:
    """What a client asks for; ``parts`` are hexadecimal hashes by part number."""

    name: str
    size: int
    digest: bytes | None = None
    resume_key: str | None = None
    content_type: str | None = None
    parts: Mapping[int, str] | None = None


@dataclass(frozen=True, slots=True)
class SignedParts:
    """URLs by part number, and when they expire."""

    parts: Mapping[int, SignedPart]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class UploadView:
    """An upload as its client sees it.

    Attributes:
        created: this call made it.
        received: part numbers that the storage holds, ascending.
    """

    upload: Upload
    received: list[int]
    challenge: Challenge | None = None
    file: File | None = None
    parts: SignedParts | None = None
    created: bool = False


class Uploads:
    """See the module's docstring."""

    def __init__(
        self,
        db: Database,
        cache: Cache,
        stores: Stores,
        instant: Instant,
        finalizer: Finalizer,
        config: Config,
        clock: Clock,
        prefix: Callable[[], str],
    ) -> None:
        self._db = db
        self._cache = cache
        self._stores = stores
        self._instant = instant
        self._finalizer = finalizer
        self._config = config
        self._clock = clock
        self._prefix = prefix

    # -- create

    def create(self, identity: Identity, new: NewUpload) -> UploadView:
        """A new upload, the same unfinished one again, or one that is done at once.

        Raises:
            Problem: NAME_INVALID, SIZE_INVALID, DIGEST_MISMATCH (of an empty file), STORAGE_FULL, UPLOADS_LIMITED,
                and what `sign` raises where parts are named.
        """
        check_name(new.name)
        if not 0 <= new.size <= self._config.max_file_size:
            limit = self._config.max_file_size
            raise Problem(errors.SIZE_INVALID, f"The size is from 0 to {limit} bytes.")
        if new.size == 0 and new.digest not in (None, digests.EMPTY_DIGEST):
            raise Problem(errors.DIGEST_MISMATCH, "The digest of an empty file is SHA-256 of nothing.")
        view = self._find_or_make(identity, new)
        upload = view.upload
        if upload.state in ("proving", "uploading"):
            upload = self._open(upload)
        if new.parts and upload.state == "uploading":
            return replace(view, upload=upload, parts=self.sign(identity, upload.id, new.parts))
        return replace(view, upload=upload)

    def _find_or_make(self, identity: Identity, new: NewUpload) -> UploadView:
        storage_name, storage = self._stores.for_new_upload()
        scope = self._instant.scope(identity.user_id)
        digest = digests.EMPTY_DIGEST if new.size == 0 else new.digest
        open_key = _open_key(identity.user_id, storage_name, new)
        for _ in range(3):
            same, own = uploads.same_or_own(self._db, open_key, identity.user_id, digest, new.size, scope)
            if same is not None:
                upload = uploads.by_id(self._db, same, identity.user_id)
                if upload is not None and upload.state in OPEN_STATES:
                    return self._found_again(upload)
                continue
            if new.size == 0 and own is None:
                own = self._empty_blob(scope)
            if own is None:
                _check_room(storage, new.size)
            upload = self._plan(identity, new, storage_name, digest, instant=own is not None)
            try:
                if self._db.transaction(lambda tx, u=upload, o=own: self._insert(tx, u, o, open_key)):  # type: ignore[misc]
                    return replace(self._view(upload), created=True)
            except DuplicateRow:
                pass
        raise errors.DatabaseUnavailable("the same upload came and went")

    def _plan(
        self, identity: Identity, new: NewUpload, storage_name: str, digest: bytes | None, *, instant: bool
    ) -> Upload:
        """The row of a new upload."""
        now, random = self._clock(), os.urandom(16).hex()
        proving = not instant and new.digest is not None and digests.part_count(new.size) > 1
        nonce, challenge_expires_at = self._instant.new_nonce(now) if proving else (None, None)
        return Upload(
            id=new_id(),
            user_id=identity.user_id,
            state="done" if instant else "proving" if proving else "uploading",
            name=new.name,
            folder_id=ROOT_FOLDER,
            content_type=content_type(new.content_type),
            size=new.size,
            digest=digest,
            part_size=digests.part_size(new.size),
            part_count=digests.part_count(new.size),
            storage=storage_name,
            object_key=f"{self._prefix()}/{random[:2]}/{random}",
            multipart_id="",
            binds_hash=self._stores.named(storage_name).enforces_sha256,
            nonce=nonce,
            challenge_expires_at=challenge_expires_at,
            received=b"",
            received_at=None,
            completes=0,
            lease_until=None,
            file_id=new_id() if instant else None,
            failure=None,
            created_at=now,
            expires_at=now + timedelta(seconds=self._config.upload_ttl),
        )

    def _insert(self, tx: Statements, upload: Upload, own: bytes | None, open_key: bytes | None) -> bool:
        """Writes the row and, where the content is there already, the file; False where the blob went away."""
        user = accounts.lock_user(tx, upload.user_id)
        if user is None or user.disabled_at is not None:
            raise Problem(errors.TOKEN_REVOKED)
        key = None if upload.state == "done" else open_key
        if not uploads.insert(tx, upload, key, self._config.user_uploads):
            raise Problem(errors.UPLOADS_LIMITED)
        if own is None:
            return True
        assert upload.file_id is not None
        if files.link_blob(
            tx,
            file_id=upload.file_id,
            user_id=upload.user_id,
            folder_id=upload.folder_id,
            name=upload.name,
            blob_id=own,
            content_type=upload.content_type,
            now=upload.created_at,
        ):
            return True
        raise DuplicateRow("the blob went away; nothing is written")

    def _empty_blob(self, scope: bytes) -> bytes:
        """The blob of no bytes, made on first use; it has no replica, for there is nothing to read."""
        blob = Blob(new_id(), 0, digests.EMPTY_DIGEST, "verified", digests.EMPTY_DIGEST, None, None)

        def make(tx: Statements) -> None:
            if not blobs.insert_verified(tx, blob, scope, b"", self._clock()):
                raise DuplicateRow("the empty blob is there")

        found = blobs.verified(self._db, digests.EMPTY_DIGEST, 0, scope)
        if found is None:
            try:
                self._db.transaction(make)
            except DuplicateRow:
                found = blobs.verified(self._db, digests.EMPTY_DIGEST, 0, scope)
        return found.id if found else blob.id

    def _found_again(self, upload: Upload) -> UploadView:
        """The same unfinished upload; a proving one gets a new nonce."""
        if upload.state == "proving":
            now = self._clock()
            nonce, expires_at = self._instant.new_nonce(now)
            if uploads.set_challenge(self._db, upload.id, nonce, expires_at, now):
                upload = replace(upload, nonce=nonce, challenge_expires_at=expires_at)
        return self._view(self._ask(upload))

    def _open(self, upload: Upload) -> Upload:
        """Makes the storage take parts for it, once."""
        if upload.multipart_id:
            return upload
        multipart_id = self._stores.named(upload.storage).create(multipart_ref(upload))
        uploads.set_opened(self._db, upload.id, multipart_id)
        return replace(upload, multipart_id=multipart_id)

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

        Raises:
            Problem: UPLOAD_NOT_FOUND, UPLOAD_NOT_OPEN, PART_NUMBER_INVALID, PART_HASH_CONFLICT, PARTS_LIMITED.
        """
        first, last = min(parts), max(parts)
        signing = uploads.for_signing(self._db, upload_id, identity.user_id, first, last)
        if signing is None:
            raise Problem(errors.UPLOAD_NOT_FOUND)
        upload = signing.upload
        if upload.state not in ("proving", "uploading") or upload.expires_at <= self._clock():
            raise _not_open(upload)
        if first < 1 or last > upload.part_count:
            raise Problem(errors.PART_NUMBER_INVALID, f"This upload has parts 1 to {upload.part_count}.")
        _check_written_once(signing.recorded, parts)
        limit = self._config.user_parts
        if signing.open_parts > limit and uploads.count_parts(self._db, identity.user_id) + len(parts) > limit:
            raise Problem(errors.PARTS_LIMITED)
        upload = self._open(upload)
        uploads.record_parts(self._db, upload.id, parts)
        _check_written_once(uploads.hashes_between(self._db, upload.id, first, last), parts)
        if upload.state == "proving":
            uploads.skip_proof(self._db, upload.id, self._clock())
        return self._sign(identity, upload, parts)

    def _sign(self, identity: Identity, upload: Upload, parts: Mapping[int, str]) -> SignedParts:
        expiry = min(int(self._clock().timestamp()) + self._config.part_url_ttl, int(upload.expires_at.timestamp()))
        presign, ref = (
            self._stores.named(upload.storage).presign_part,
            multipart_ref(upload, identity.generation),
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
        return self._view(self._ask(self._own(identity, upload_id)))

    def page(self, identity: Identity, after: bytes | None, state: str | None, limit: int) -> list[UploadView]:
        """The user's uploads, newest first; storages are not asked."""
        found = uploads.page(self._db, identity.user_id, after, state, limit)
        return [UploadView(u, _received(u), self._instant.challenge(u)) for u in found]

    def _ask(self, upload: Upload) -> Upload:
        """Asks the storage what it holds, unless that was asked a moment ago."""
        now = self._clock()
        if upload.state != "uploading" or not upload.multipart_id:
            return upload
        if upload.received_at is not None and now - upload.received_at < _ASK_AGAIN:
            return upload
        try:
            received = ranges.to_bits(self._stored(upload))
        except StorageError as ex:
            _log.warning("a storage does not say what it holds", extra={"storage": upload.storage, "error": str(ex)})
            return upload
        uploads.set_received(self._db, upload.id, received, now)
        return replace(upload, received=received, received_at=now)

    def _stored(self, upload: Upload) -> list[int]:
        """The parts that the storage holds with the right length, ascending."""
        stored = self._stores.named(upload.storage).list_parts(multipart_ref(upload))
        return sorted(
            number
            for number, length in stored.items()
            if 1 <= number <= upload.part_count and length == digests.part_length(number, upload.size, upload.part_size)
        )

    def _view(self, upload: Upload) -> UploadView:
        file = files.by_id(self._db, upload.file_id, upload.user_id) if upload.file_id else None
        return UploadView(upload, _received(upload), self._instant.challenge(upload), file)

    # -- the end

    def complete(self, identity: Identity, upload_id: bytes) -> UploadView:
        """Turns the parts into a file: done at once, or ``finalizing`` in the background when large.

        Raises:
            Problem: UPLOAD_NOT_FOUND, UPLOAD_NOT_OPEN, PARTS_MISSING, DIGEST_MISMATCH, PART_MISMATCH, STORAGE_FULL.
        """
        found = uploads.with_hashes(self._db, upload_id, identity.user_id)
        if found is None:
            raise Problem(errors.UPLOAD_NOT_FOUND)
        upload, hashes = found
        if upload.state in ("done", "finalizing"):
            return self._view(upload)
        if upload.failure == errors.DIGEST_MISMATCH.code:
            raise Problem(errors.DIGEST_MISMATCH)
        if upload.state not in ("proving", "uploading"):
            raise _not_open(upload)
        missing = self._missing(upload, hashes)
        if missing:
            if self._own(identity, upload_id).state != upload.state:
                return self.complete(identity, upload_id)  # the parts went because another call was first
            raise Problem(errors.PARTS_MISSING, missing=missing)
        digest = digests.composite(hashes)
        if upload.digest not in (None, digest):
            self._end(upload, "failed", errors.DIGEST_MISMATCH.code)
            raise Problem(errors.DIGEST_MISMATCH)
        upload = replace(upload, digest=digest)
        return self._finalize(identity, upload, hashes)

    def _missing(self, upload: Upload, hashes: bytes) -> list[tuple[int, int]]:
        """The parts, as ranges, that have no hash or are not stored."""
        try:
            stored = self._stored(upload) if upload.multipart_id else []
        except UploadGone:
            stored = []
        if len(hashes) // digests.HASH_LENGTH < upload.part_count:
            recorded = uploads.hashes_between(self._db, upload.id, 1, upload.part_count)
            stored = [number for number in stored if number in recorded]
        return ranges.to_ranges(ranges.missing(stored, upload.part_count))

    def _finalize(self, identity: Identity, upload: Upload, hashes: bytes) -> UploadView:
        now, owner = self._clock(), new_id()
        inline = upload.size <= self._config.finalize_inline
        every = ranges.to_bits(range(1, upload.part_count + 1))
        lease = (owner, now + LEASE) if inline else None
        assert upload.digest is not None
        if not uploads.begin_finalizing(self._db, upload, upload.digest, every, lease, now):
            return self.complete(identity, upload.id)  # another complete or abort was first
        if inline:
            self._finalize_here(upload, hashes, owner)
        else:
            self._cache.ring()
        return self._view(self._own(identity, upload.id))

    def _finalize_here(self, upload: Upload, hashes: bytes, owner: bytes) -> None:
        try:
            self._finalizer.run(replace(upload, completes=upload.completes + 1), hashes, owner)
        except PartMismatch as ex:
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
        return self._view(self._own(identity, upload_id))

    def _end(self, upload: Upload, state: str, failure: str | None) -> bool:
        if not uploads.end(self._db, upload.id, state, failure, self._clock()):
            return False
        try:
            self._stores.named(upload.storage).abort(multipart_ref(upload))
        except StorageError as ex:
            _log.warning("parts are left to the sweep", extra={"upload": upload.id.hex(), "error": str(ex)})
        return True


def _open_key(user_id: bytes, storage: str, new: NewUpload) -> bytes | None:
    """What makes an unfinished upload "the same": user, storage, size, place, and resume key or digest."""
    if new.resume_key is not None:
        named = b"key\0" + new.resume_key.encode()
    elif new.digest is not None:
        named = b"digest\0" + new.digest
    else:
        return None
    place = ROOT_FOLDER + new.name.encode()
    key = hashlib.sha256(user_id + new.size.to_bytes(8) + storage.encode() + b"\0")
    key.update(hashlib.sha256(place).digest() + hashlib.sha256(named).digest())
    return key.digest()


def _check_written_once(recorded: Mapping[int, str], parts: Mapping[int, str]) -> None:
    conflicts = [number for number, sha256 in parts.items() if recorded.get(number, sha256) != sha256]
    if conflicts:
        raise Problem(errors.PART_HASH_CONFLICT, parts=sorted(conflicts))


def _check_room(storage: MultipartStorage, size: int) -> None:
    try:
        storage.check_room(size, digests.part_count(size))
    except StorageFull as ex:
        raise Problem(errors.STORAGE_FULL) from ex


def _received(upload: Upload) -> list[int]:
    if upload.state == "done":
        return list(range(1, upload.part_count + 1))
    return ranges.from_bits(upload.received)


def _not_open(upload: Upload) -> Problem:
    return Problem(errors.UPLOAD_NOT_OPEN, f"The upload is {upload.state}.", state=upload.state)
