"""How uploads begin: as new rows, as the same unfinished uploads again, or done immediately.

A call begins a list of uploads; a single call passes a list of one. All new rows of the list are written in one
transaction. If they cannot be (a limit is reached, or another call was first with one of them), each upload gets a
separate transaction, so that each gets the answer it would have got alone.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from api.accounts import rows as accounts
from api.blobs import rows as blobs
from api.context import Context
from api.core import digests, errors
from api.core.errors import DatabaseUnavailable, DuplicateRow, Problem, StorageError, StorageFull
from api.core.models import OPEN_STATES, ROOT_FOLDER, SINGLE_PUT, Blob, File, Identity, Upload, new_id
from api.db.pool import Statements
from api.files import rows as files
from api.files.names import check_name, content_type
from api.storage.base import MultipartStorage
from api.storage.keys import object_key
from api.uploads import create_rows, rows
from api.uploads.create_rows import Known
from api.uploads.proof import Instant
from api.uploads.sign import Signing, check_numbers
from api.uploads.status import Progress, UploadView

_TRIES: Final = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewUpload:
    """A client's request for one upload. ``parts`` are hexadecimal hashes by part number."""

    name: str
    size: int
    digest: bytes | None = None
    resume_key: str | None = None
    content_type: str | None = None
    parts: Mapping[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """An upload that is to be made.

    Attributes:
        key: finds the upload again while it is unfinished.
        blob: the user's own content: the upload is done with a file on it.
    """

    new: NewUpload
    upload: Upload
    key: bytes | None
    blob: Blob | None = None

    @property
    def parts(self) -> Mapping[int, str]:
        """Parts whose hashes are written down with the upload; a proof comes before parts."""
        return self.new.parts or {} if self.upload.state == "uploading" else {}


class _Apart(Exception):
    """These uploads cannot be made in one transaction now."""


class Creation:
    """See the module's docstring."""

    def __init__(self, context: Context, instant: Instant, progress: Progress, signing: Signing) -> None:
        self._db = context.db
        self._stores = context.stores
        self._instant = instant
        self._progress = progress
        self._signing = signing
        self._context = context

    def create(self, identity: Identity, news: Sequence[NewUpload | Problem]) -> list[UploadView | Problem]:
        """Begins uploads of one user.

        Args:
            news: what is wanted; a Problem stays one.

        Returns:
            For each, in order, a new upload, the same unfinished one again, one that is done, or a Problem:
            NAME_INVALID, SIZE_INVALID, DIGEST_MISMATCH (of an empty file), PART_NUMBER_INVALID, STORAGE_FULL,
            UPLOADS_LIMITED, PARTS_LIMITED, TOKEN_REVOKED, and what `Signing.sign` raises if parts are named.
        """
        wanted = [self._checked(new) for new in news]
        good = [new for new in wanted if isinstance(new, NewUpload)]
        answers = iter(self._create_all(identity, good))
        return [next(answers) if isinstance(new, NewUpload) else new for new in wanted]

    def _checked(self, new: NewUpload | Problem) -> NewUpload | Problem:
        if isinstance(new, Problem):
            return new
        most = self._context.config.max_file_size
        try:
            check_name(new.name)
            if not 0 <= new.size <= most:
                raise Problem(errors.SIZE_INVALID, f"The size is from 0 to {most} bytes.")
            if new.size == 0 and new.digest not in (None, digests.EMPTY_DIGEST):
                raise Problem(errors.DIGEST_MISMATCH, "The digest of an empty file is SHA-256 of nothing.")
            check_numbers(new.parts or {}, digests.part_count(new.size))
        except Problem as ex:
            return ex
        return new

    def _create_all(self, identity: Identity, news: Sequence[NewUpload]) -> list[UploadView | Problem]:
        if len(news) > 1:
            try:
                return self._create(identity, news)
            except (_Apart, Problem):
                pass
        return [self._create_alone(identity, new) for new in news]

    def _create_alone(self, identity: Identity, new: NewUpload) -> UploadView | Problem:
        for _ in range(_TRIES):
            try:
                return self._create(identity, [new])[0]
            except _Apart:
                continue
            except Problem as ex:
                return ex
        raise DatabaseUnavailable("the same upload came and went")

    def _create(self, identity: Identity, news: Sequence[NewUpload]) -> list[UploadView | Problem]:
        """Begins uploads in one transaction.

        Raises:
            _Apart: another call was first with one of them; with several uploads, also if one breaks a limit.
            Problem: the only one breaks a limit.
        """
        name, storage = self._stores.for_new_upload(identity.tier)
        scope = self._instant.scope(identity.user_id)
        keys = [open_key(identity.user_id, name, new) for new in news]
        known = create_rows.known(self._db, keys, [_digest_of(new) for new in news], identity.user_id, scope)
        again = self._unfinished(identity, known)
        steps: list[Upload | Plan | Problem] = []
        for new, key in zip(news, keys, strict=True):
            if key in again:
                steps.append(again[key])
                continue
            try:
                steps.append(self._plan(identity, new, key, self._own(new, known, scope), storage, name))
            except StorageFull:
                steps.append(Problem(errors.STORAGE_FULL))
        self._insert(identity, [step for step in steps if isinstance(step, Plan)])
        return [self._answer(identity, step, new) for step, new in zip(steps, news, strict=True)]

    def _unfinished(self, identity: Identity, known: Known) -> dict[bytes | None, Upload]:
        """The unfinished uploads that are asked for again, by their keys."""
        found: dict[bytes | None, Upload] = {}
        for key, upload_id in known.uploads.items():
            upload = rows.by_id(self._db, upload_id, identity.user_id)
            if upload is None or upload.state not in OPEN_STATES:
                raise _Apart
            if upload.state != "finalizing" and upload.expires_at <= self._context.clock():
                # It has expired: the next sweep frees its parts.
                rows.end(self._db, upload.id, "expired", "UPLOAD_EXPIRED", self._context.clock())
                raise _Apart
            found[key] = upload
        return found

    def _own(self, new: NewUpload, known: Known, scope: bytes) -> Blob | None:
        """Content that the user has a live file of, and the content of an empty file."""
        if new.size == 0:
            return self._empty_blob(scope)
        blob_id = known.blobs.get((_digest_of(new) or b"", new.size))
        return blobs.by_id(self._db, blob_id) if blob_id else None

    def _plan(
        self,
        identity: Identity,
        new: NewUpload,
        key: bytes | None,
        own: Blob | None,
        storage: MultipartStorage,
        storage_name: str,
    ) -> Plan:
        """The row of a new upload. Raises StorageFull."""
        now, upload_id, count = self._context.clock(), new_id(), digests.part_count(new.size)
        if own is None:
            storage.check_room(new.size, count)
        single = own is None and count == 1 and new.size <= storage.single_put_max
        proving = own is None and new.digest is not None and count > 1
        nonce, challenge_expires_at = self._instant.new_nonce(now) if proving else (None, None)
        upload = Upload(
            id=upload_id,
            user_id=identity.user_id,
            state="done" if own else "proving" if proving else "uploading",
            name=new.name,
            folder_id=ROOT_FOLDER,
            content_type=content_type(new.content_type),
            size=new.size,
            digest=_digest_of(new) if own or single else new.digest,
            part_size=digests.part_size(new.size),
            part_count=count,
            storage=storage_name,
            # by this key a storage's unfinished upload is known for ours
            object_key=object_key(self._context.prefix(), upload_id),
            multipart_id=SINGLE_PUT if single else "",
            binds_hash=storage.enforces_sha256,
            nonce=nonce,
            challenge_expires_at=challenge_expires_at,
            received=b"",
            received_at=None,
            completes=0,
            lease_until=None,
            file_id=new_id() if own else None,
            failure=None,
            created_at=now,
            expires_at=now + timedelta(seconds=self._context.config.upload_ttl),
        )
        return Plan(new, upload, key if own is None else None, own)

    def _insert(self, identity: Identity, plans: Sequence[Plan]) -> None:
        """Writes the rows, the hashes that came along, and the files of content that is there. Raises as `_create`."""
        if not plans:
            return
        done, unfinished = [p for p in plans if p.blob], [p for p in plans if not p.blob]
        most, most_parts = self._context.config.user_uploads, self._context.config.user_parts

        def insert(tx: Statements) -> None:
            if unfinished and not accounts.lock_live(tx, identity.user_id):
                raise Problem(errors.TOKEN_REVOKED)
            new = [(plan.upload, plan.key) for plan in unfinished]
            if new and not create_rows.insert(tx, new, most, most_parts):
                if len(plans) > 1:
                    raise _Apart
                count, _ = rows.open_totals(tx, identity.user_id)
                raise Problem(errors.UPLOADS_LIMITED if count >= most else errors.PARTS_LIMITED)
            create_rows.record_parts(tx, [(plan.upload.id, plan.parts) for plan in unfinished])
            create_rows.insert_done(tx, [plan.upload for plan in done])
            for plan in done:
                if not files.link_blob(tx, _file_of(plan)):
                    raise _Apart  # the content went away

        try:
            self._db.transaction(insert)
        except DuplicateRow as ex:
            raise _Apart from ex

    def _answer(self, identity: Identity, step: Upload | Plan | Problem, new: NewUpload) -> UploadView | Problem:
        """The answer for one upload whose row is written."""
        if isinstance(step, Problem):
            return step
        try:
            return self._made(identity, step) if isinstance(step, Plan) else self._found_again(identity, step, new)
        except Problem as ex:
            return ex
        except StorageError as ex:
            _log.error("a storage failed", extra={"error": str(ex), "kind": type(ex).__name__})
            return errors.problem_of(ex)

    def _made(self, identity: Identity, plan: Plan) -> UploadView:
        if plan.blob:
            return replace(self._progress.brief(plan.upload), file=_file_of(plan), created=True)
        upload = self._signing.open(plan.upload)
        signed = self._signing.urls(identity, upload, plan.parts) if plan.parts else None
        return replace(self._progress.brief(upload), created=True, parts=signed)

    def _found_again(self, identity: Identity, upload: Upload, new: NewUpload) -> UploadView:
        """The answer for an unfinished upload that the client began before; a proving one gets a new nonce."""
        if upload.state == "proving":
            now = self._context.clock()
            nonce, expires_at = self._instant.new_nonce(now)
            if rows.set_challenge(self._db, upload.id, nonce, expires_at, now):
                upload = replace(upload, nonce=nonce, challenge_expires_at=expires_at)
        view = self._progress.view(self._progress.ask(upload))
        upload = view.upload
        if upload.state in ("proving", "uploading"):
            upload = self._signing.open(upload)
        wants_parts = new.parts and upload.state == "uploading"
        signed = self._signing.sign(identity, upload.id, new.parts or {}) if wants_parts else None
        return replace(view, upload=upload, parts=signed)

    def _empty_blob(self, scope: bytes) -> Blob:
        """The blob of no bytes, made on first use; it has no replica, for there is nothing to read."""
        blob = Blob(new_id(), 0, digests.EMPTY_DIGEST, "verified", digests.EMPTY_DIGEST, None, None)

        def make(tx: Statements) -> None:
            if not blobs.insert_verified(tx, blob, scope, b"", self._context.clock()):
                raise _Apart

        found = blobs.verified(self._db, digests.EMPTY_DIGEST, 0, scope)
        if not found:
            try:
                self._db.transaction(make)
            except DuplicateRow as ex:
                raise _Apart from ex
        return found[0] if found else blob


def _file_of(plan: Plan) -> File:
    assert plan.blob is not None
    assert plan.upload.file_id is not None
    return File.of(plan.upload, plan.blob, plan.upload.file_id, plan.upload.created_at)


def _digest_of(new: NewUpload) -> bytes | None:
    """The digest as the client says, or as the hash of its only part makes it."""
    if new.size == 0:
        return digests.EMPTY_DIGEST
    if new.digest is None and new.parts and digests.part_count(new.size) == 1:
        return digests.composite(bytes.fromhex(new.parts[1]))
    return new.digest


def open_key(user_id: bytes, storage: str, new: NewUpload) -> bytes | None:
    """The key by which an unfinished upload is found again: user, storage, size, place, and resume key or digest."""
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
