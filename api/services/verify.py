"""Reading back what a storage stored without comparing it: part by part, against the hashes that were written once.

Until that is done a blob is its uploader's alone and matches nobody's instant upload. It ends as verified, or merged
with the blob that was verified first, or corrupt; an I/O error ends nothing, it is tried again later.

Large content of local storage comes here too, verified already, for the SHA-256 of the whole: `done` does not wait
for that.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import closing
from datetime import timedelta
from typing import Final

from api import digests
from api.db import blobs, verifications
from api.db.pool import Database, Statements
from api.db.verifications import Verification
from api.errors import ObjectNotFound, StorageError
from api.models import Clock, new_id
from api.services.finalize import is_whole
from api.services.stores import Stores
from api.storage.base import Storage

_LEASE: Final = timedelta(seconds=60)
_BUFFER: Final = 1024**2
_LATER: Final = timedelta(seconds=5)
_LATEST: Final = timedelta(minutes=10)

_log = logging.getLogger(__name__)


class _LeaseLost(Exception):
    """Another process has taken over."""


class Verifier:
    """See the module's docstring."""

    def __init__(self, db: Database, stores: Stores, clock: Clock) -> None:
        self._db = db
        self._stores = stores
        self._clock = clock

    def due(self) -> list[bytes]:
        """Blobs that wait to be read."""
        return verifications.due(self._db, self._clock())

    def take(self, blob_id: bytes) -> bool:
        """Reads a blob that nobody is reading; False where somebody is."""
        owner, now = new_id(), self._clock()
        work = verifications.take(self._db, blob_id, owner, now, now + _LEASE)
        if work is None:
            return False
        try:
            self._run(work, owner)
        except StorageError as ex:
            pause = min(_LATER * 2 ** min(work.tries, 10), _LATEST)
            verifications.postpone(self._db, blob_id, owner, self._clock() + pause)
            _log.warning("a blob cannot be read back yet", extra={"blob": blob_id.hex(), "error": str(ex)})
        except _LeaseLost:
            _log.warning("another process reads this blob", extra={"blob": blob_id.hex()})
        return True

    def _run(self, work: Verification, owner: bytes) -> None:
        blob = work.blob
        assert blob.storage is not None
        assert blob.object_key is not None
        storage, length = self._stores.named(blob.storage), digests.part_size(blob.size)
        # the hash of the whole cannot be taken up again in the middle: who wants it reads from the start
        done = 0 if blob.state == "verified" else work.parts_done
        whole = hashlib.sha256() if done == 0 else None
        for number, expected in enumerate(digests.split(work.hashes), 1):
            if number <= done:
                continue
            span = (number - 1) * length, digests.part_length(number, blob.size, length)
            if _hash(storage, blob.object_key, span, whole) != expected:
                whole = None
                # two reads that disagree with the hash: the bytes are wrong, not the reading
                if _hash(storage, blob.object_key, span, None) != expected:
                    self._corrupt(work, owner, number)
                    return
            if not verifications.advance(self._db, blob.id, owner, number, self._clock() + _LEASE):
                raise _LeaseLost
        self._verified(work, owner, whole.digest() if whole else None)

    def _corrupt(self, work: Verification, owner: bytes, number: int) -> None:
        self._db.transaction(lambda tx: verifications.set_corrupt(tx, work.blob.id, owner))
        _log.error("a blob is not what was uploaded", extra={"blob": work.blob.id.hex(), "part": number})

    def _verified(self, work: Verification, owner: bytes, sha256: bytes | None) -> None:
        blob = work.blob
        if blob.state == "verified":
            self._db.transaction(lambda tx: verifications.set_sha256(tx, blob.id, sha256, owner))
            return

        def claim(tx: Statements) -> bool:
            if not blobs.claim(tx, blob.digest, work.scope, blob.id):
                return False
            if not verifications.set_verified(tx, blob.id, sha256, owner, self._clock()):
                raise _LeaseLost
            return True

        for _ in range(3):
            if self._db.transaction(claim) or self._merge(work, owner):
                return
        raise StorageError("a blob of this digest came and went")

    def _merge(self, work: Verification, owner: bytes) -> bool:
        """Files go to the blob that was verified first; a first copy that is not whole is replaced by this one."""
        blob = work.blob
        first = blobs.verified(self._db, blob.digest, blob.size, work.scope)
        if first is None:
            return False
        whole = is_whole(self._stores, first)

        def body(tx: Statements) -> bool:
            if not verifications.merge(tx, blob.id, owner, first.id):
                return False
            assert blob.storage is not None
            assert blob.object_key is not None
            if whole or not blobs.heal(tx, first, blob.storage, blob.object_key, self._clock()):
                blobs.doom(tx, blob.storage, blob.object_key, self._clock())
            return True

        return self._db.transaction(body)


def _hash(storage: Storage, object_key: str, span: tuple[int, int], whole: hashlib._Hash | None) -> bytes:
    """SHA-256 of (offset, length) of an object; an object that is gone has no bytes."""
    part, left = hashlib.sha256(), span[1]
    try:
        with closing(storage.open(object_key, *span)) as reader:
            while left > 0 and (data := reader.read(min(left, _BUFFER))):
                part.update(data)
                if whole is not None:
                    whole.update(data)
                left -= len(data)
    except ObjectNotFound:
        return b""
    return part.digest()
