"""The view of an upload for its client, and the parts that its storage reports."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from api.context import Context
from api.core import digests, errors
from api.core.errors import Problem, StorageError, UploadGone
from api.core.models import File, Identity, Upload
from api.files import rows as files
from api.storage.base import SignedPart
from api.storage.stores import multipart_ref
from api.uploads import ranges
from api.uploads import rows as uploads
from api.uploads.proof import Challenge, Instant

_ASK_AGAIN: Final = timedelta(seconds=5)
"""A storage is asked for the received parts of one upload at most this often."""

_log = logging.getLogger(__name__)


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
    """

    upload: Upload
    challenge: Challenge | None = None
    file: File | None = None
    parts: SignedParts | None = None
    created: bool = False


class Progress:
    """See the module's docstring."""

    def __init__(self, context: Context, instant: Instant) -> None:
        self._db = context.db
        self._stores = context.stores
        self._instant = instant
        self._clock = context.clock

    def ask(self, upload: Upload) -> Upload:
        """Asks the storage which parts it holds, unless it was asked a moment ago."""
        now = self._clock()
        if upload.state != "uploading" or not upload.multipart_id:
            return upload
        if upload.received_at is not None and now - upload.received_at < _ASK_AGAIN:
            return upload
        try:
            received = ranges.to_bits(self.stored(upload))
        except UploadGone:
            return self.lost(upload)
        except StorageError as ex:
            _log.warning("a storage does not say what it holds", extra={"storage": upload.storage, "error": str(ex)})
            return upload
        uploads.set_received(self._db, upload.id, received, now)
        return replace(upload, received=received, received_at=now)

    def stored(self, upload: Upload) -> list[int]:
        """The parts that the storage holds with the right length, ascending."""
        stored = self._stores.named(upload.storage).list_parts(multipart_ref(upload))
        return sorted(
            number
            for number, length in stored.items()
            if 1 <= number <= upload.part_count and length == digests.part_length(number, upload.size, upload.part_size)
        )

    def lost(self, upload: Upload) -> Upload:
        """The upload's state after its storage has reported that there is no such upload.

        Either another call has ended it meanwhile, or something outside this deployment did, such as a bucket's
        lifecycle rule. In the second case the upload has failed, and is not found again.
        """
        if uploads.end(self._db, upload.id, "failed", errors.UPLOAD_GONE.code, self._clock()):
            _log.warning(
                "a storage has dropped an upload", extra={"upload": upload.id.hex(), "storage": upload.storage}
            )
        return uploads.by_id(self._db, upload.id, upload.user_id) or upload

    def own(self, identity: Identity, upload_id: bytes) -> Upload:
        """An upload of this user. Raises Problem UPLOAD_NOT_FOUND."""
        upload = uploads.by_id(self._db, upload_id, identity.user_id)
        if upload is None:
            raise Problem(errors.UPLOAD_NOT_FOUND)
        return upload

    def view(self, upload: Upload) -> UploadView:
        """An upload and, if it is done, its file."""
        file = files.by_id(self._db, upload.file_id, upload.user_id) if upload.file_id else None
        return UploadView(upload, self._instant.challenge(upload), file)

    def brief(self, upload: Upload) -> UploadView:
        """An upload as lists show it: its file is not looked up."""
        return UploadView(upload, self._instant.challenge(upload))


def not_open(upload: Upload) -> Problem:
    """The refusal of a call that this state does not allow."""
    return Problem(errors.UPLOAD_NOT_OPEN, f"The upload is {upload.state}.", state=upload.state)
