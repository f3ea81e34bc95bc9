"""Finds out by a probe at the clients' endpoint whether a storage refuses wrong bodies."""

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

PROBE_BYTES: Final = 1024
URL_LIFETIME_SECONDS: Final = 900
"""Lifetime of a presigned URL; longer than usual clock differences."""

RETRY_SECONDS: Final = 30.0
"""Seconds from a failed probe to the next one, so that a dead endpoint does not delay every new upload."""

_log = logging.getLogger(__name__)


class ProbedStorage(MultipartStorage):
    """A storage that probes on first use whether it enforces hashes.

    Attributes:
        found: the probe's result; None until a probe has succeeded.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.found: bool | None = None
        self._monotonic = monotonic
        self._again_at = float("-inf")
        self._probing = threading.Lock()

    @abc.abstractmethod
    def probe(self) -> bool:
        """Tries at the clients' endpoint whether a body with another hash than the signed one is refused.

        Raises:
            StorageError: the probe failed.
        """

    def presign_at_storage(self, ref: MultipartRef, number: int, sha256: str, expires_at: int) -> SignedPart:
        """A part's URL at the storage itself, even if clients get a URL of the edge."""
        return self.presign_part(ref, number, sha256, expires_at)

    @property
    def enforces_sha256(self) -> bool:
        """See the contract. False until it is known: uploads are then read back, which is always safe."""
        if self.found is None:
            with self._probing:
                if self.found is None and self._monotonic() >= self._again_at:
                    try:
                        self.found = self.probe()
                    except StorageError as ex:
                        self._again_at = self._monotonic() + RETRY_SECONDS
                        _log.warning("the storage could not be probed yet", extra={"error": str(ex)})
        return bool(self.found)


def refuses_wrong_body(storage: ProbedStorage, prefix: str) -> bool:
    """Whether a part's URL that binds a hash refuses a wrong body and accepts the right one.

    Raises:
        StorageError: the probe failed.
    """
    right, wrong = os.urandom(PROBE_BYTES), os.urandom(PROBE_BYTES)
    sha256 = hashlib.sha256(right).hexdigest()
    random = os.urandom(16).hex()
    ref = MultipartRef(random, f"{prefix}/{random}", "", PROBE_BYTES, PROBE_BYTES, 1, "", 0, binds_hash=True)
    ref = replace(ref, multipart_id=storage.create(ref))
    try:
        signed = storage.presign_at_storage(ref, 1, sha256, int(time.time()) + URL_LIFETIME_SECONDS)
        headers = {"content-type": "application/octet-stream", **signed.headers}
        refusal = ask("PUT", signed.url, headers, wrong).status
        # 400 means that the body was compared; an overload or an error of a proxy must not count as that
        if refusal not in (200, 204, 400, 403):
            raise StorageError(f"a part with a wrong body got status {refusal}")
        refused = refusal == 400 and not storage.list_parts(ref)
        status = ask("PUT", signed.url, headers, right).status
        if status >= 300 or storage.list_parts(ref) != {1: PROBE_BYTES}:
            raise StorageError(f"a part with the signed hash got status {status}")
        return refused
    finally:
        storage.abort(ref)
