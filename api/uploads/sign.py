"""Signs URLs of parts. A part's hash is recorded first, and cannot be changed afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from api.context import Context
from api.core import errors
from api.core.errors import Problem
from api.core.models import Identity, Upload
from api.storage.stores import multipart_ref
from api.uploads import ranges, rows
from api.uploads.rows import Recorded
from api.uploads.status import Progress, SignedParts, not_open

PART_SIGNINGS_MOST: Final = 5
"""URLs that are issued for one part, if the storage leaks the first copy of a part that is sent again."""


class Signing:
    """See the module's docstring."""

    def __init__(self, context: Context, progress: Progress) -> None:
        self._db = context.db
        self._stores = context.stores
        self._progress = progress
        self._config = context.config
        self._clock = context.clock

    def sign(self, identity: Identity, upload_id: bytes, parts: Mapping[int, str]) -> SignedParts:
        """Writes down each part's hash and signs a URL for it.

        A part that must not be sent twice, and that the storage has, gets no URL and is left out.

        Args:
            parts: hexadecimal SHA-256 by part number.

        Raises:
            Problem: UPLOAD_NOT_FOUND, UPLOAD_NOT_OPEN, PART_NUMBER_INVALID, PART_HASH_CONFLICT,
                PART_TRIES_EXHAUSTED.
        """
        signing = rows.for_signing(self._db, upload_id, identity.user_id, parts)
        if signing is None:
            raise Problem(errors.UPLOAD_NOT_FOUND)
        upload = signing.upload
        if upload.state not in ("proving", "uploading") or upload.expires_at <= self._clock():
            raise not_open(upload)
        check_numbers(parts, upload.part_count)
        known = signing.recorded
        _check_written_once(known, parts)
        leaks = self._stores.named(upload.storage).leaks_resent_parts and not upload.is_single
        if known.hashes and (leaks or upload.is_single):
            upload, parts = self._not_received(upload, known, parts)
        if leaks:
            _check_tries(known, parts)
        upload = self.open(upload)
        if parts:
            were_new = rows.record_parts(self._db, upload.id, parts)
            if not were_new or known.hashes.keys() & parts.keys():
                # another call may have been first with another hash
                _check_written_once(rows.recorded_of(self._db, upload.id, parts), parts)
        if upload.state == "proving":
            rows.skip_proof(self._db, upload.id, self._clock())
        return self.urls(identity, upload, parts)

    def urls(self, identity: Identity, upload: Upload, parts: Mapping[int, str]) -> SignedParts:
        """URLs of parts whose hashes are written down, of an upload that is open at its storage."""
        expiry = min(int(self._clock().timestamp()) + self._config.part_url_ttl, int(upload.expires_at.timestamp()))
        presign = self._stores.named(upload.storage).presign_part
        ref = multipart_ref(upload, identity)
        signed = {number: presign(ref, number, sha256, expiry) for number, sha256 in parts.items()}
        return SignedParts(signed, datetime.fromtimestamp(expiry, UTC))

    def open(self, upload: Upload) -> Upload:
        """Has the storage take parts for an upload, once. Raises Problem UPLOAD_NOT_FOUND."""
        if upload.multipart_id:
            return upload
        multipart_id = self._stores.named(upload.storage).create(multipart_ref(upload))
        if rows.set_opened(self._db, upload.id, multipart_id):
            return replace(upload, multipart_id=multipart_id)
        # Another call was faster: all parts go to its multipart upload, and the sweep frees ours.
        found = rows.by_id(self._db, upload.id, upload.user_id)
        if found is None:
            raise Problem(errors.UPLOAD_NOT_FOUND)
        return replace(upload, multipart_id=found.multipart_id)

    def _not_received(
        self, upload: Upload, known: Recorded, parts: Mapping[int, str]
    ) -> tuple[Upload, Mapping[int, str]]:
        """The parts without those that the storage has; it is asked only if one of them was signed before.

        Raises:
            Problem: UPLOAD_NOT_OPEN, if the storage says that there is no such upload.
        """
        if not known.hashes.keys() & parts.keys():
            return upload, parts
        upload = self._progress.ask(upload)
        if upload.state not in ("proving", "uploading"):
            raise not_open(upload)
        received = set(ranges.from_bits(upload.received))
        return upload, {number: sha256 for number, sha256 in parts.items() if number not in received}


def check_numbers(parts: Mapping[int, str], count: int) -> None:
    """Raises Problem PART_NUMBER_INVALID if a part number is not from 1 to ``count``."""
    if parts and not (min(parts) >= 1 and max(parts) <= count):
        raise Problem(errors.PART_NUMBER_INVALID, f"This upload has {count} parts, numbered from 1.")


def _check_written_once(recorded: Recorded, parts: Mapping[int, str]) -> None:
    conflicts = [number for number, sha256 in parts.items() if recorded.hashes.get(number, sha256) != sha256]
    if conflicts:
        raise Problem(errors.PART_HASH_CONFLICT, parts=sorted(conflicts))


def _check_tries(recorded: Recorded, parts: Mapping[int, str]) -> None:
    # calls at the same moment may pass together: what they get is one URL, for its second is the same
    exhausted = [number for number in parts if recorded.signed.get(number, 0) >= PART_SIGNINGS_MOST]
    if exhausted:
        raise Problem(errors.PART_TRIES_EXHAUSTED, parts=sorted(exhausted))
