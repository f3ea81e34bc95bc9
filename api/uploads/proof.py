"""Instant upload: challenge a claim of content, judge the proof, link the blob.

A client claims size and digest. The challenge names a few byte ranges, drawn over the claimed size from
HMAC(secret, user ‖ digest ‖ size): asking again changes the nonce and not the ranges, so a client cannot ask until the
ranges suit it. Known and unknown digests are challenged alike. The answer is the list of part hashes, which must hash
to the digest before anything is looked up, and SHA-256(nonce ‖ the ranges' bytes).
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import BoundedSemaphore
from typing import Final

from api.blobs import rows as blobs
from api.context import Context
from api.core import digests
from api.core.errors import ObjectNotFound, StorageError
from api.core.models import GLOBAL_SCOPE, Blob, File, Upload, new_id
from api.db.pool import Statements
from api.files import rows as files
from api.storage.base import Storage
from api.uploads import rows as uploads

RANGE_LENGTH: Final = 64 * 1024
CHALLENGE_LIFE: Final = timedelta(seconds=60)
_READ_TIME: Final = 2.0
"""Seconds for reading all ranges; a storage that takes longer counts as "wrong"."""
_READERS: Final = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Challenge:
    """The proof that an upload in state ``proving`` asks its client for."""

    nonce: bytes
    ranges: list[tuple[int, int]]
    expires_at: datetime


class _Moved(Exception):
    """The upload left the state in which it could be linked."""


class Instant:
    """See the module's docstring."""

    def __init__(self, context: Context) -> None:
        self._db = context.db
        self._stores = context.stores
        self._tokens = context.tokens
        self._config = context.config
        self._clock = context.clock
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="proof")
        # a storage that hangs holds its reader: if all readers are held, a proof fails immediately and is not queued
        self._readers = BoundedSemaphore(_READERS)

    def scope(self, user_id: bytes) -> bytes:
        """Within whose content this user's is stored once."""
        return GLOBAL_SCOPE if self._config.dedup_scope == "global" else user_id

    # -- challenge

    def new_nonce(self, now: datetime) -> tuple[bytes, datetime]:
        """A nonce and when it expires."""
        return os.urandom(16), now + CHALLENGE_LIFE

    def challenge(self, upload: Upload) -> Challenge | None:
        """The upload's current challenge; None if it has none or the challenge has expired."""
        nonce, expires_at = upload.nonce, upload.challenge_expires_at
        if upload.state != "proving" or nonce is None or expires_at is None or expires_at <= self._clock():
            return None
        return Challenge(nonce, self._ranges(upload), expires_at)

    def _ranges(self, upload: Upload) -> list[tuple[int, int]]:
        assert upload.digest is not None
        assert upload.challenge_expires_at is not None
        # by the key of that moment: one that was added since asks for the same
        asked_at = (upload.challenge_expires_at - CHALLENGE_LIFE).timestamp()
        length = min(RANGE_LENGTH, upload.size)
        claim = (b"challenge", upload.user_id, upload.digest, upload.size.to_bytes(8))
        return [
            (
                int.from_bytes(secret[:16]) % (upload.size - length + 1),
                length,
            )
            for index in range(self._config.proof_ranges)
            for secret in [self._tokens.derive(*claim, index.to_bytes(2), at=asked_at)]
        ]

    # -- proof

    def prove(self, upload: Upload, proof: bytes, hashes: bytes) -> bool:
        """Judges a proof; True when the upload is done. The challenge is used up either way.

        Never raises for what a storage does: a dead or slow one means that the content is uploaded.
        """
        challenge = self.challenge(upload)
        nonce, now = upload.nonce, self._clock()
        if nonce is None or not uploads.consume_challenge(self._db, upload.id, nonce, now):
            return False
        if challenge is None or digests.composite(hashes) != upload.digest:
            return False
        found = blobs.verified(self._db, upload.digest, upload.size, self.scope(upload.user_id))
        if not found or not self._holds(found, challenge, proof):
            return False
        return self._link(upload, found[0])

    def _holds(self, replicas: Sequence[Blob], challenge: Challenge, proof: bytes) -> bool:
        """Whether the proof is right for the stored bytes."""
        if not self._readers.acquire(blocking=False):
            _log.warning("every proof reader is busy; a proof counts as wrong")
            return False
        reading: Future[bytes] = self._pool.submit(self._read, replicas, challenge)
        reading.add_done_callback(lambda _: self._readers.release())
        try:
            expected = reading.result(timeout=_READ_TIME)
        except FutureTimeout:
            _log.warning("a storage was too slow for a proof", extra={"storages": [blob.storage for blob in replicas]})
            return False
        except StorageError as ex:
            _log.warning(
                "a storage failed a proof", extra={"storages": [blob.storage for blob in replicas], "error": str(ex)}
            )
            return False
        return hmac.compare_digest(expected, proof)

    def _read(self, replicas: Sequence[Blob], challenge: Challenge) -> bytes:
        """From the first replica that can be read."""
        failure: StorageError = ObjectNotFound("the blob lies nowhere")
        places = [(b.storage, b.object_key) for b in replicas if b.storage is not None and b.object_key is not None]
        for name, object_key in self._stores.in_order(places):
            try:
                return self._read_replica(self._stores.named(name), object_key, challenge)
            except StorageError as ex:
                failure = ex
        raise failure

    @staticmethod
    def _read_replica(storage: Storage, object_key: str, challenge: Challenge) -> bytes:
        answer = hashlib.sha256(challenge.nonce)
        for offset, length in challenge.ranges:
            with closing(storage.open(object_key, offset, length)) as reader:
                while length > 0:
                    if not (data := reader.read(length)):
                        raise ObjectNotFound(f"{object_key} ends early")
                    answer.update(data)
                    length -= len(data)
        return answer.digest()

    def _link(self, upload: Upload, blob: Blob) -> bool:
        now = self._clock()
        file = File.of(upload, blob, new_id(), now)

        def body(tx: Statements) -> None:
            if not files.link_blob(tx, file) or not uploads.set_done_instantly(tx, upload.id, file.id, now):
                raise _Moved

        try:
            self._db.transaction(body)
        except _Moved:
            return False
        self._stores.free_parts(upload)
        return True


def pack(hashes: Sequence[str]) -> bytes:
    """Hexadecimal hashes as 32 bytes each."""
    return bytes.fromhex("".join(hashes))
