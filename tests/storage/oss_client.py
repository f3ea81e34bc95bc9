"""What a client does with OSS's URLs: it sends exactly the headers that it was told, and nothing of its own."""

from __future__ import annotations

import contextlib
import http.client
import os
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from api.errors import UploadGone
from api.storage.base import MultipartRef, MultipartStorage
from api.storage.oss import OSSStorage
from tests.storage.contract import PART, Content

MakeOSS = Callable[..., OSSStorage]
"""Makes a storage over the stand-in, with some settings changed."""


def request(method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> tuple[int, bytes]:
    """(status, body); a server that answers before it has read everything is heard all the same."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=20)
    try:
        connection.putrequest(method, f"{parts.path}?{parts.query}", skip_accept_encoding=True)
        for name, value in ({"Content-Length": str(len(body))} | dict(headers)).items():
            connection.putheader(name, value)
        connection.endheaders()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.send(body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def send(storage: MultipartStorage, ref: MultipartRef, number: int, data: bytes) -> bool:
    """Asks for a part's URL and sends the part; False where it is refused."""
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
    """An upload with every part there."""
    what = opened(storage, size)
    assert all(send(storage, what.ref, number, what.part(number)) for number in what.numbers)
    return what
