"""What a storage refuses, found by trying it at the clients' endpoint; documentation is not believed."""

from __future__ import annotations

import hashlib
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import replace

from api.errors import StorageError, StorageUnavailable
from api.storage.base import MultipartRef, MultipartStorage

_LENGTH = 1024


def put(url: str, headers: Mapping[str, str], data: bytes) -> int:
    """The status that a PUT is answered with."""
    request = urllib.request.Request(url, data, dict(headers), method="PUT")  # noqa: S310 - a URL that we signed
    request.add_header("Content-Type", "application/octet-stream")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as ex:
        return ex.code
    except OSError as ex:
        raise StorageUnavailable(f"the clients' endpoint does not answer: {type(ex).__name__}") from ex


def refuses_wrong_body(storage: MultipartStorage, prefix: str) -> bool:
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
        signed = storage.presign_part(ref, 1, sha256, int(time.time()) + 60)
        refused = put(signed.url, signed.headers, wrong) >= 400 and not storage.list_parts(ref)
        if put(signed.url, signed.headers, right) >= 300 or storage.list_parts(ref) != {1: _LENGTH}:
            raise StorageError("a part with the signed hash was refused")
        return refused
    finally:
        storage.abort(ref)
