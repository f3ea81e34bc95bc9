"""How an upload begins: as a new row, as the same unfinished upload again, or done at once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from api.accounts import rows as accounts
from api.blobs import rows as blobs
from api.context import Context
from api.core import digests, errors
from api.core.errors import DatabaseUnavailable, DuplicateRow, Problem, StorageFull
from api.core.models import OPEN_STATES, ROOT_FOLDER, SINGLE_PUT, Blob, File, Identity, Upload, new_id
from api.db.pool import Statements
from api.files import rows as files
from api.files.names import check_name, content_type
from api.storage.base import MultipartStorage
from api.storage.keys import object_key
from api.storage.stores import multipart_ref
from api.uploads import rows as uploads
from api.uploads.proof import Instant
from api.uploads.status import Progress, UploadView


@dataclass(frozen=True, slots=True)
class NewUpload:
    """What a client asks for; ``parts`` are hexadecimal hashes by part number."""

    name: str
    size: int
    digest: bytes | None = None
    resume_key: str | None = None
    content_type: str | None = None
    parts: Mapping[int, str] | None = None


_UNLIMITED = 2**31
"""Uploads that are done at once do not count as unfinished."""


class Creation:
    """See the module's docstring."""

    def __init__(self, context: Context, instant: Instant, progress: Progress) -> None:
        self._db = context.db
        self._stores = context.stores
        self._instant = instant
        self._progress = progress
        self._config = context.config
        self._clock = context.clock
        self._prefix = context.prefix

    def check(self, new: NewUpload) -> None:
        """Raises Problem NAME_INVALID, SIZE_INVALID, DIGEST_MISMATCH (of an empty file), PART_NUMBER_INVALID."""
        check_name(new.name)
        if not 0 <= new.size <= self._config.max_file_size:
            raise Problem(errors.SIZE_INVALID, f"The size is from 0 to {self._config.max_file_size} bytes.")
        if new.size == 0 and new.digest not in (None, digests.EMPTY_DIGEST):
            raise Problem(errors.DIGEST_MISMATCH, "The digest of an empty file is SHA-256 of nothing.")
        check_numbers(new.parts or {}, digests.part_count(new.size))

    def find_or_make(self, identity: Identity, new: NewUpload) -> UploadView:
        """The upload that stands for ``new``.

        Raises:
            Problem: STORAGE_FULL, UPLOADS_LIMITED, PARTS_LIMITED, TOKEN_REVOKED.
        """
        storage_name, storage = self._stores.for_new_upload(identity.tier)
        scope = self._instant.scope(identity.user_id)
        digest = digests.EMPTY_DIGEST if new.size == 0 else new.digest
        key = open_key(identity.user_id, storage_name, new)
        for _ in range(3):
            same, own_id = uploads.same_or_own(self._db, key, identity.user_id, digest, new.size, scope)
            if same is not None:
                upload = uploads.by_id(self._db, same, identity.user_id)
                if upload is not None and upload.state in OPEN_STATES:
                    if upload.state == "finalizing" or upload.expires_at > self._clock():
                        return self._found_again(upload)
                    # its time is over: the sweep, which has not come by yet, frees its parts
                    uploads.end(self._db, upload.id, "expired", "UPLOAD_EXPIRED", self._clock())
                continue
            try:
                own = blobs.by_id(self._db, own_id) if own_id else self._empty_blob(scope) if not new.size else None
                if own is None:
                    _check_room(storage, new.size)
                upload = self.plan(identity, new, storage_name, digest, instant=own is not None)
                return self._make(upload, own, key)
            except DuplicateRow:
                continue
        raise DatabaseUnavailable("the same upload came and went")

    def plan(
        self, identity: Identity, new: NewUpload, storage_name: str, digest: bytes | None, *, instant: bool
    ) -> Upload:
        """The row of a new upload, of content that is there already (``instant``) or not."""
        now, upload_id = self._clock(), new_id()
        storage, count = self._stores.named(storage_name), digests.part_count(new.size)
        single = not instant and count == 1 and new.size <= storage.single_put_max
        proving = not instant and new.digest is not None and count > 1
        nonce, challenge_expires_at = self._instant.new_nonce(now) if proving else (None, None)
        return Upload(
            id=upload_id,
            user_id=identity.user_id,
            state="done" if instant else "proving" if proving else "uploading",
            name=new.name,
            folder_id=ROOT_FOLDER,
            content_type=content_type(new.content_type),
            size=new.size,
            digest=digest,
            part_size=digests.part_size(new.size),
            part_count=count,
            storage=storage_name,
            # by this key a storage's unfinished upload is known for ours
            object_key=object_key(self._prefix(), upload_id),
            multipart_id=SINGLE_PUT if single else "",
            binds_hash=storage.enforces_sha256,
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

    def _make(self, upload: Upload, own: Blob | None, open_key: bytes | None) -> UploadView:
        """Writes the row and, where the content is there already, the file.

        Raises:
            DuplicateRow: the same upload is there by now, or the content is not any more; nothing is written.
        """
        file = File.of(upload, own, upload.file_id, upload.created_at) if own and upload.file_id else None

        def insert(tx: Statements) -> None:
            if not accounts.lock_live(tx, upload.user_id):
                raise Problem(errors.TOKEN_REVOKED)
            most, most_parts = self._config.user_uploads, self._config.user_parts
            if not uploads.insert(tx, upload, open_key, most, most_parts):
                count, _ = uploads.open_totals(tx, upload.user_id)
                raise Problem(errors.UPLOADS_LIMITED if count >= most else errors.PARTS_LIMITED)

        def insert_done(tx: Statements) -> None:
            assert file is not None
            uploads.insert(tx, upload, None, _UNLIMITED, _UNLIMITED)
            if not files.link_blob(tx, file):
                raise DuplicateRow("the blob went away")

        self._db.transaction(insert if file is None else insert_done)
        return replace(self._progress.brief(upload), file=file, created=True)

    def _empty_blob(self, scope: bytes) -> Blob:
        """The blob of no bytes, made on first use; it has no replica, for there is nothing to read."""
        blob = Blob(new_id(), 0, digests.EMPTY_DIGEST, "verified", digests.EMPTY_DIGEST, None, None)

        def make(tx: Statements) -> None:
            if not blobs.insert_verified(tx, blob, scope, b"", self._clock()):
                raise DuplicateRow("the empty blob is there")

        found = blobs.verified(self._db, digests.EMPTY_DIGEST, 0, scope)
        if not found:
            self._db.transaction(make)
        return found[0] if found else blob

    def _found_again(self, upload: Upload) -> UploadView:
        """The same unfinished upload; a proving one gets a new nonce."""
        if upload.state == "proving":
            now = self._clock()
            nonce, expires_at = self._instant.new_nonce(now)
            if uploads.set_challenge(self._db, upload.id, nonce, expires_at, now):
                upload = replace(upload, nonce=nonce, challenge_expires_at=expires_at)
        return self._progress.view(self._progress.ask(upload))

    def open(self, upload: Upload) -> Upload:
        """Makes the storage take parts for it, once. Raises Problem UPLOAD_NOT_FOUND."""
        if upload.multipart_id:
            return upload
        multipart_id = self._stores.named(upload.storage).create(multipart_ref(upload))
        if uploads.set_opened(self._db, upload.id, multipart_id):
            return replace(upload, multipart_id=multipart_id)
        # another call was faster: all parts go to one place, and ours is the sweep's
        found = uploads.by_id(self._db, upload.id, upload.user_id)
        if found is None:
            raise Problem(errors.UPLOAD_NOT_FOUND)
        return replace(upload, multipart_id=found.multipart_id)


def check_numbers(parts: Mapping[int, str], count: int) -> None:
    """Raises Problem PART_NUMBER_INVALID where one of ``parts`` is not from 1 to ``count``."""
    if parts and not (min(parts) >= 1 and max(parts) <= count):
        raise Problem(errors.PART_NUMBER_INVALID, f"This upload has {count} parts, numbered from 1.")


def open_key(user_id: bytes, storage: str, new: NewUpload) -> bytes | None:
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


def _check_room(storage: MultipartStorage, size: int) -> None:
    try:
        storage.check_room(size, digests.part_count(size))
    except StorageFull as ex:
        raise Problem(errors.STORAGE_FULL) from ex
