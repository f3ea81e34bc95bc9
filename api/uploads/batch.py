"""Small uploads whose object is one PUT: several are made, or done, in one transaction.

Nothing here is another way for an upload to go: it is the way that most small files take, with nobody and nothing
between. Whatever is not as plain as that (found again, known content, a limit that is met, a part that is missing, a
storage that does not answer) is left to `api.uploads.create` and `finalize`, one by one.

An upload of one PUT needs no state of its own between uploading and done: there is nothing to join at the storage, so
that no crash can come in between.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from api.accounts import rows as accounts
from api.context import Context
from api.core import digests
from api.core.errors import DuplicateRow, StorageError
from api.core.models import Blob, File, Identity, Upload, new_id
from api.db.pool import Statements
from api.storage.stores import multipart_ref
from api.uploads import batch_rows as singles
from api.uploads import rows as uploads
from api.uploads.create import Creation, NewUpload, open_key
from api.uploads.proof import Instant

_log = logging.getLogger(__name__)


class _Moved(Exception):
    """Not all of them can be done as one."""


@dataclass(frozen=True, slots=True)
class _Plain:
    """What may be made at once; ``digest`` is the client's, or what its only part comes to."""

    new: NewUpload
    sha256: bytes
    digest: bytes
    key: bytes | None


class Singles:
    """See the module's docstring."""

    def __init__(self, context: Context, instant: Instant, creation: Creation) -> None:
        self._db = context.db
        self._stores = context.stores
        self._instant = instant
        self._creation = creation
        self._config = context.config
        self._clock = context.clock

    # -- begin

    def make(self, identity: Identity, news: Sequence[NewUpload]) -> dict[int, Upload]:
        """The uploads that could be made at once, with their part's hash, by their place among ``news``."""
        name, storage = self._stores.for_new_upload(identity.tier)
        plain = {}
        for place, new in enumerate(news):
            if 1 <= new.size <= storage.single_put_max and new.parts is not None and len(new.parts) == 1:
                sha256 = bytes.fromhex(next(iter(new.parts.values())))
                digest = new.digest or digests.composite(sha256)
                plain[place] = _Plain(new, sha256, digest, open_key(identity.user_id, name, new))
        made = {
            place: (self._creation.plan(identity, each.new, name, each.digest, instant=False), each.key, each.sha256)
            for place, each in self._unknown(identity, plain).items()
        }
        if not made or not all(upload.is_single for upload, _, _ in made.values()):
            return {}

        def insert(tx: Statements) -> None:
            if not accounts.lock_live(tx, identity.user_id):
                raise _Moved
            count, parts = uploads.open_totals(tx, identity.user_id)
            if count + len(made) > self._config.user_uploads or parts + len(made) > self._config.user_parts:
                raise _Moved
            singles.insert(tx, list(made.values()))

        try:
            self._db.transaction(insert)
        except (_Moved, DuplicateRow):
            return {}
        return {place: upload for place, (upload, _, _) in made.items()}

    def _unknown(self, identity: Identity, plain: Mapping[int, _Plain]) -> dict[int, _Plain]:
        """Those that are no unfinished upload, and whose content is not the user's already, nor of another of them."""
        if not plain:
            return {}
        keys = [each.key for each in plain.values() if each.key is not None] or [b""]
        contents = [each.digest for each in plain.values()]
        seen = singles.known(self._db, keys, contents, identity.user_id, self._instant.scope(identity.user_id))
        found = {}
        for place, each in plain.items():
            if each.digest not in seen and each.key not in seen:
                found[place] = each
                seen |= {each.digest, each.key or each.digest}
        return found

    # -- end

    def finish(self, found: Sequence[tuple[Upload, bytes | None]]) -> dict[bytes, tuple[Upload, File]]:
        """The uploads, of one user, that could be done at once, with their files.

        Args:
            found: each with the packed hashes of its parts, if these are few.
        """
        ready: dict[bytes, singles.Done] = {}
        now, claimed = self._clock(), set[bytes]()
        for upload, hashes in found:
            if hashes is None or not _is_plain(upload, hashes) or upload.digest in claimed:
                continue
            if not self._is_stored(upload, hashes):
                continue
            assert upload.digest is not None
            claimed.add(upload.digest)
            blob = Blob(new_id(), upload.size, upload.digest, "verified", None, upload.storage, upload.object_key)
            ready[upload.id] = singles.Done(upload, File.of(upload, blob, new_id(), now), hashes)
        if not ready:
            return {}
        scope = self._instant.scope(found[0][0].user_id)

        def body(tx: Statements) -> None:
            if not singles.finish(tx, list(ready.values()), scope, now):
                raise _Moved

        try:
            self._db.transaction(body)
        except (_Moved, DuplicateRow):
            return {}
        return {upload_id: (done.upload, done.file) for upload_id, done in ready.items()}

    def _is_stored(self, upload: Upload, hashes: bytes) -> bool:
        """Whether its object is there as it was signed."""
        try:
            storage = self._stores.named(upload.storage)
            return storage.complete(multipart_ref(upload), hashes, lambda: None).verified
        except StorageError as ex:
            _log.info("an upload of one PUT is not plain", extra={"upload": upload.id.hex(), "error": str(ex)})
            return False


def _is_plain(upload: Upload, hashes: bytes) -> bool:
    return (
        upload.is_single
        and upload.state == "uploading"
        and upload.binds_hash
        and len(hashes) == digests.HASH_LENGTH
        and digests.composite(hashes) == upload.digest
    )
