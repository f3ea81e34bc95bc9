"""Small objects of kind s3: one PUT through the edge in place of a multipart upload, two requests in place of five.

A presigned PUT of an object is dangerous in a client's hands: it obeys unsigned headers (``x-amz-acl``, SSE-C,
metadata) and stays valid after the upload has ended. So no client gets one. The edge sends it, with a fixed list of
headers. The URL is in the part's token, which only the edge can read (`api.core.tokens.Tokens.seal`): even if clients
can reach the storage, it accepts nothing from them. The signature binds the exact length, the body's SHA-256 and
``If-None-Match: *``, so the object under the key always has the signed content.

- A lost response costs nothing: the storage's 412 to the same PUT shows that exactly these bytes are stored, and the
  edge answers 200. Seen on RGW 16.2.15, killed before each of its writes: there is no object, or all of it. But if its
  last write, the index, *fails* (EIO), RGW answers 500, deletes the bytes after the first 4 MiB, and leaves the head:
  HEAD returns 200, and every repeat gets 412. So an object counts only after its last byte was read. A broken object
  is deleted, and the part is sent again.
- A PUT that comes after abort or expiry can bring the object back, while its token is valid. The sweep deletes the key
  of such an upload after all its tokens have expired (`api.sweep.ended`). It deletes the key again if a listing shows
  that an object came even later, for a body may take hours. After the upload's row is deleted, the object is an orphan.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from typing import Final

from api.core.errors import ObjectNotFound, StorageError, UploadGone
from api.core.models import SINGLE_PUT
from api.storage.base import EdgePartURL, MultipartRef, SignedPart
from api.storage.http import ask
from api.storage.recent import Recent
from api.storage.s3.bucket import Address
from api.storage.s3.calls import Calls
from api.storage.s3.sigv4 import MAX_EXPIRES, Credentials, Presigner

_log = logging.getLogger(__name__)

_SIGNED: Final = ("content-length", "if-none-match", "x-amz-content-sha256")
_HEADS: Final = 1024
_LENGTH: Final = 1024
_LIFE: Final = 900
_NOT_OFFERED: Final = (200, 204, 403, 501)
"""Statuses by which a storage shows that it does not compare signed hashes, or does not know the condition."""

Head = Mapping[str, str]


class SinglePuts:
    """See the module's docstring.

    Args:
        address: the bucket as the edge reaches it.
        now: epoch seconds.
        part_url: signs the edge's URLs.
    """

    def __init__(
        self, address: Address, credentials: Credentials, calls: Calls, now: Callable[[], float], part_url: EdgePartURL
    ) -> None:
        self._address = address
        self._credentials = credentials
        self._calls = calls
        self._now = now
        self._part_url = part_url
        self._heads = Recent[Head](_HEADS)

    def presign(self, ref: MultipartRef, sha256: str, expires_at: int) -> SignedPart:
        """The edge's URL of the whole object."""
        signed = self.presign_at_storage(ref, sha256, expires_at)
        return SignedPart(self._part_url(ref, 1, ref.size, expires_at, signed), {})

    def presign_at_storage(self, ref: MultipartRef, sha256: str, expires_at: int) -> SignedPart:
        """The PUT that the edge is to send."""
        if not ref.binds_hash:
            raise UploadGone("a PUT that binds no hash could store anything")
        now = int(self._now())
        path, life = self._address.path(ref.object_key), min(expires_at - now, MAX_EXPIRES)
        headers = {"content-length": str(ref.size), "if-none-match": "*", "x-amz-content-sha256": sha256}
        presigner = Presigner(self._credentials, "PUT", self._address.base, path, _SIGNED, now, life)
        url = presigner.sign("", headers, sha256)
        return SignedPart(url, {"if-none-match": "*", "x-amz-content-sha256": sha256})

    def received(self, ref: MultipartRef) -> dict[int, int]:
        """The only part, if the object exists."""
        try:
            head = self._calls.peek(ref.object_key, ref.size)
        except ObjectNotFound:
            return {}
        self._heads.keep(ref.object_key, head)
        return {1: int(head["content-length"])}

    def head(self, ref: MultipartRef) -> Head:
        """The object's headers, after its last byte was read. Deletes a broken object. Raises ObjectNotFound."""
        if kept := self._heads.take(ref.object_key):
            return kept
        try:
            return self._calls.peek(ref.object_key, ref.size)
        except ObjectNotFound:
            self._calls.head(ref.object_key)
        # the object was there, so that what is missing now is its last byte, not a PUT that is under way
        try:
            return self._calls.peek(ref.object_key, ref.size)
        except ObjectNotFound:
            _log.error("a small object has lost its end, and is deleted", extra={"key": ref.object_key})
            self._calls.delete(ref.object_key)
            raise

    def delete(self, ref: MultipartRef) -> None:
        """Deletes the object of an upload that came to nothing."""
        self._heads.take(ref.object_key)
        self._calls.delete(ref.object_key)

    def probe(self, prefix: str) -> bool:
        """Whether the storage compares hash and condition of a signed PUT, tried with a wrong body and with a second.

        Raises:
            StorageError: the storage could not be asked.
        """
        right, wrong = os.urandom(_LENGTH), os.urandom(_LENGTH)
        random = os.urandom(16).hex()
        ref = MultipartRef(random, f"{prefix}/{random}", SINGLE_PUT, _LENGTH, _LENGTH, 1, "", 0, binds_hash=True)
        signed = self.presign_at_storage(ref, hashlib.sha256(right).hexdigest(), int(self._now()) + _LIFE)
        headers = {"content-type": "application/octet-stream", **signed.headers}

        def put(body: bytes) -> int:
            return ask("PUT", signed.url, headers, body).status

        try:
            answers = [put(wrong)]
            stored_wrong = bool(self.received(ref))
            answers += [put(right), put(right)]
            if answers == [400, 200, 412] and not stored_wrong:
                return True
            if any(status not in (400, 412, *_NOT_OFFERED) for status in answers):
                raise StorageError(f"PUTs of an object were answered with {answers}")
            return False
        finally:
            self.delete(ref)
