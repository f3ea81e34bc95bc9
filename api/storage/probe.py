"""What a storage refuses, found by trying it at the clients' endpoint; documentation is not believed."""

from __future__ import annotations

import abc
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from api.core.errors import StorageError
from api.storage.base import MultipartRef, MultipartStorage, SignedPart
from api.storage.http import ask

_LENGTH: Final = 1024
_LIFE: Final = 900
"""Seconds that a URL lives: more than clocks that are a little off may differ."""

_AGAIN_AFTER: Final = 30.0
"""Seconds after a probe that failed until the next one: a dead endpoint must not delay every new upload."""

_log = logging.getLogger(__name__)


class ProbedStorage(MultipartStorage):
    """A storage that finds out what it enforces by trying it, when that is first asked.

    Attributes:
        found: what the probe found; None while none has succeeded.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.found: bool | None = None
        self._monotonic = monotonic
        self._again_at = float("-inf")
        self._probing = threading.Lock()

    @abc.abstractmethod
    def probe(self) -> bool:
        """Whether a body that is not the signed hash is refused, asked at the clients' endpoint by trying it.

        Raises:
            StorageError: the storage could not be asked.
        """

    def presign_at_storage(self, ref: MultipartRef, number: int, sha256: str, expires_at: int) -> SignedPart:
        """A part's URL at the storage itself, also where clients get one of the edge's."""
        return self.presign_part(ref, number, sha256, expires_at)

    @property
    def enforces_sha256(self) -> bool:
        """See the contract. While it is not known, uploads are read back, which is always right."""
        if self.found is None:
            with self._probing:
                if self.found is None and self._monotonic() >= self._again_at:
                    try:
                        self.found = self.probe()
                    except StorageError as ex:
                        self._again_at = self._monotonic() + _AGAIN_AFTER
                        _log.warning("enforcement is not known yet", extra={"error": str(ex)})
        return bool(self.found)


def refuses_wrong_body(storage: ProbedStorage, prefix: str) -> bool:
    """Whether a part's URL that binds a hash refuses a body with another one, and takes the right one.

    Raises:
        StorageError: the storage could not be asked.
    """
    right, wrong = os.urandom(_LENGTH), os.urandom(_LENGTH)
    sha256 = hashlib.sha256(right).hexdigest()
    random = os.urandom(16).hex()
    ref = MultipartRef(random, f"{prefix}/{random}", "", _LENGTH, _LENGTH, 1, "", 0, binds_hash=True)
    ref = replace(ref, multipart_id=storage.create(ref))
    try:
        signed = storage.presign_at_storage(ref, 1, sha256, int(time.time()) + _LIFE)
        headers = {"content-type": "application/octet-stream", **signed.headers}
        refusal = ask("PUT", signed.url, headers, wrong).status
        # 400 is a judgement on the body; an overload or a proxy's error says nothing, and must not pass for one
        if refusal not in (200, 204, 400, 403):
            raise StorageError(f"a part with another body was answered with {refusal}")
        refused = refusal == 400 and not storage.list_parts(ref)
        status = ask("PUT", signed.url, headers, right).status
        if status >= 300 or storage.list_parts(ref) != {1: _LENGTH}:
            raise StorageError(f"a part with the signed hash was answered with {status}")
        return refused
    finally:
        storage.abort(ref)
