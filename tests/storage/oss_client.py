"""A client's actions with storage oss: opening uploads and sending their parts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from api.core.errors import UploadGone
from api.storage.base import MultipartRef, MultipartStorage
from api.storage.oss.storage import OSSStorage
from tests.storage.contract import PART, Content
from tests.storage.signed import request

MakeOSS = Callable[..., OSSStorage]
"""Makes a storage that uses the stand-in, with some settings changed."""


def send(storage: MultipartStorage, ref: MultipartRef, number: int, data: bytes) -> bool:
    """Gets a part's URL and sends the part. Returns False if it is refused."""
    try:
        signed = storage.presign_part(ref, number, "0" * 64, int(time.time()) + 60)
    except UploadGone:
        return False
    return request("PUT", signed.url, signed.headers, data)[0] == 200


def opened(storage: MultipartStorage, size: int = 2 * PART + 9) -> Content:
    """An upload without parts."""
    what = Content(os.urandom(size))
    what.open(storage)
    return what


def sent_parts(storage: MultipartStorage, size: int = 2 * PART + 9) -> Content:
    """An upload with all of its parts."""
    what = opened(storage, size)
    assert all(send(storage, what.ref, number, what.part(number)) for number in what.numbers)
    return what
