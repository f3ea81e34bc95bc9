"""Uploads as a whole; a file per verb has the rules: `create`, `proof`, `sign`, `complete`, `finalize`, `resize`.

State first, storage second: a row says what is about to happen before any storage is asked for it, so that after a
crash the row tells what is left to do. The states are drawn in docs/design.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from api.context import Context
from api.core.errors import Problem
from api.core.models import Identity
from api.uploads import rows
from api.uploads.complete import NO_ETAGS, Completion
from api.uploads.create import Creation, NewUpload
from api.uploads.finalize import Finalizer
from api.uploads.proof import Instant
from api.uploads.resize import resize
from api.uploads.sign import Signing
from api.uploads.status import Progress, SignedParts, UploadView, not_open


class Uploads:
    """The operations of clients on uploads. Each method documents its errors."""

    def __init__(self, context: Context, instant: Instant, finalizer: Finalizer) -> None:
        self._context = context
        self._db = context.db
        self._instant = instant
        self._progress = Progress(context, instant)
        self._signing = Signing(context, self._progress)
        self._creation = Creation(context, instant, self._progress, self._signing)
        self._completion = Completion(context, instant, finalizer, self._progress)

    def create(self, identity: Identity, news: Sequence[NewUpload | Problem]) -> list[UploadView | Problem]:
        """Begins uploads: see `api.uploads.create`."""
        return self._creation.create(identity, news)

    def prove(self, identity: Identity, upload_id: bytes, proof: bytes, hashes: bytes) -> UploadView:
        """Judges a proof: the upload is done, or continues as ``uploading``.

        Raises:
            Problem: UPLOAD_NOT_FOUND, UPLOAD_NOT_OPEN.
        """
        upload = self._progress.own(identity, upload_id)
        if upload.state not in ("proving", "uploading"):
            raise not_open(upload)
        self._instant.prove(upload, proof, hashes)
        return self.get(identity, upload_id)

    def sign(self, identity: Identity, upload_id: bytes, parts: Mapping[int, str]) -> SignedParts:
        """URLs of parts: see `api.uploads.sign`."""
        return self._signing.sign(identity, upload_id, parts)

    def complete(
        self, identity: Identity, ids: Sequence[bytes], etags: Mapping[int, str] = NO_ETAGS
    ) -> list[UploadView | Problem]:
        """Turns uploads into files: see `api.uploads.complete`."""
        return self._completion.complete(identity, ids, etags)

    def abort(self, identity: Identity, upload_id: bytes) -> UploadView:
        """Ends an upload: see `api.uploads.complete`."""
        return self._completion.abort(identity, upload_id)

    def resize(self, identity: Identity, upload_id: bytes, size: int) -> UploadView:
        """The upload with another size: see `api.uploads.resize`. Raises Problem UPLOAD_NOT_FOUND besides."""
        upload = self._progress.own(identity, upload_id)
        return self._progress.view(resize(self._context, identity, upload, size))

    def get(self, identity: Identity, upload_id: bytes) -> UploadView:
        """An upload as it is; what was received is the storage's own answer, at most 5 s old."""
        return self._progress.view(self._progress.ask(self._progress.own(identity, upload_id)))

    def page(self, identity: Identity, after: bytes | None, state: str | None, limit: int) -> list[UploadView]:
        """The user's uploads, newest first; storages are not asked."""
        found = rows.page(self._db, identity.user_id, after, state, limit)
        return [self._progress.brief(upload) for upload in found]
