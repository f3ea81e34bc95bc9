"""Sends one part to its URL, and reads from the answer what to do next."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable

from sluice.digest import hash_part
from sluice.engine import Engine
from sluice.errors import APIError, CertificateRefused, FileChanged, NetworkError, ServerFull
from sluice.models import SignedPart
from sluice.progress import Reporter
from sluice.source import Source
from sluice.transport import intercepted, retry_after
from sluice.wire import Response

_SPARE_SECONDS = 5.0
_XML_CODE = re.compile(rb"<Code>([A-Za-z0-9]+)</Code>")
_ENDED = frozenset({"UPLOAD_NOT_OPEN", "NoSuchUpload", "NoSuchKey", "UPLOAD_NOT_FOUND"})
_WRONG_BODY = frozenset(
    {"PART_HASH_MISMATCH", "LENGTH_MISMATCH", "XAmzContentSHA256Mismatch", "BadDigest", "IncompleteBody"}
)
_FULL = frozenset({"STORAGE_FULL", "QuotaExceeded"})
_TRANSIENT = frozenset({"RequestTimeout", "SlowDown", "ServiceUnavailable", "InternalError"})


class URLUsedUp(Exception):
    """The part needs another URL: this one expired, or the storage may have the part already."""


class UploadEnded(Exception):
    """The upload does not take parts any more; its state says why."""


class PartBody:
    """The bytes of one part; each sent piece is added to the progress."""

    def __init__(
        self, engine: Engine, source: Source, place: tuple[int, int], reporter: Reporter, check: Callable[[], None]
    ) -> None:
        offset, self.length = place
        self.sent = 0
        self._engine = engine
        self._check = check
        self._source = source
        self._offset = offset
        self._reporter = reporter

    def send(self, sock: socket.socket) -> None:
        self.take_back()
        self._source.send(sock, self._offset, self.length, self._on_sent, self._engine.limiter.piece)

    def _on_sent(self, count: int) -> None:
        self.sent += count
        self._reporter.moved(count)
        self._check()
        self._engine.limiter.take(count)

    def take_back(self) -> None:
        """Takes the sent bytes back from the progress: the part did not arrive as a whole."""
        if self.sent:
            self._reporter.moved(-self.sent)
            self.sent = 0


def send_part(
    engine: Engine,
    source: Source,
    place: tuple[int, int],
    sha256: str,
    signed: SignedPart,
    reporter: Reporter,
    check: Callable[[], None] | None = None,
) -> str | None:
    """Sends a part until it is taken.

    Args:
        place: its offset and length.
        check: raises what ends it in the middle; by default what ends everything.

    Returns:
        The storage's ETag of the part, which may be passed to complete.

    Raises:
        URLUsedUp, UploadEnded: the upload decides what to do next.
        FileChanged: the bytes are not those that were hashed.
        ServerFull, APIError, NetworkError: it cannot be sent.
    """
    body, patience = PartBody(engine, source, place, reporter, check or engine.check), engine.patience()
    while True:
        patience.check()
        if signed.expires_at.timestamp() - engine.transport.now() < _SPARE_SECONDS:
            raise URLUsedUp
        try:
            with engine.connections.request("PUT", signed.url, signed.headers, body) as response:
                text = response.read(65536)
        except CertificateRefused:
            raise
        except NetworkError as ex:
            whole = body.sent == body.length
            body.take_back()
            if not ex.stale:
                reporter.waiting(str(ex))
                patience.pause(ex)
            if whole:
                raise URLUsedUp from ex  # it may have been stored: the server looks before it is sent again
            continue
        except BaseException:
            body.take_back()
            raise
        if response.status < 300:
            return response.headers.get("etag")
        body.take_back()
        error = _judge(response, text)
        if _code(text) in _WRONG_BODY:
            source.check_unchanged()
            if hash_part(source, *place, engine.check) != sha256:
                raise FileChanged(f"{source.name} was written to while it was uploaded; nothing was stored")
        reporter.waiting(str(error))
        patience.pause(error, retry_after(response))


def _code(text: bytes) -> str:
    """The error's code, of the edge's JSON or of a storage's XML."""
    found = _XML_CODE.search(text)
    if found:
        return found[1].decode()
    try:
        return str(json.loads(text)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""


def _judge(response: Response, text: bytes) -> APIError | NetworkError:
    """Returns the error after which to try again. Raises it if another try cannot help."""
    status, code = response.status, _code(text)
    error = APIError(status, code or str(status), f"The storage answers {status}")
    if code in _FULL or status == 507:
        raise ServerFull(status, code, "The server's storage is full")
    if code in _ENDED:
        raise UploadEnded
    if not code and "x-request-id" not in response.headers and not 500 <= status <= 504:
        raise intercepted(response)
    if status == 403:
        raise URLUsedUp from error
    if code in _WRONG_BODY or code in _TRANSIENT or status in (408, 425, 429) or status >= 500:
        return error
    raise error
