"""Single HTTP requests to a storage, without SDK, retries, redirects or proxies."""

from __future__ import annotations

import contextlib
import http.client
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from api.core.errors import StorageUnavailable

TIMEOUT_SECONDS: Final = 10.0
"""Timeout of connecting, and of each read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(
    method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes = b"", timeout: float = TIMEOUT_SECONDS
) -> Answer:
    """Sends a request and reads the whole response.

    Raises:
        StorageUnavailable: there was no response. The text gives the reason, and never contains the URL's query.
    """
    with _connection(url, timeout) as (connection, target):
        connection.request(method, target, body if method in ("PUT", "POST") else None, dict(headers or {}))
        return _answer(connection)


def put(url: str, headers: Mapping[str, str], length: int, body: Iterable[bytes], timeout: float) -> Answer:
    """Sends a body of ``length`` bytes in pieces, and reads the whole response.

    If ``body`` raises, the exception is passed on, and the connection is closed before the last byte is sent. So
    nothing is stored.

    Args:
        timeout: seconds that one piece, or the response, may take.

    Raises:
        StorageUnavailable: there was no response, or the body did not have ``length`` bytes.
    """
    with _connection(url, TIMEOUT_SECONDS) as (connection, target):
        connection.putrequest("PUT", target, skip_accept_encoding=True)
        for name, value in ({"content-length": str(length)} | dict(headers)).items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.sock.settimeout(timeout)
        for piece in body:
            try:
                connection.send(piece)
            except (BrokenPipeError, ConnectionResetError):
                # if the server refused before it read the whole body, its response can still be read
                with contextlib.suppress(OSError, http.client.HTTPException):
                    return _answer(connection)
                raise
            length -= len(piece)
        if length:
            raise StorageUnavailable("the body does not have the announced length")
        return _answer(connection)


@contextlib.contextmanager
def _connection(url: str, timeout: float) -> Iterator[tuple[http.client.HTTPConnection, str]]:
    """Yields a connection and the request target. Translates errors."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    connection = (http.client.HTTPSConnection if secure else http.client.HTTPConnection)(parts.netloc, timeout=timeout)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        yield connection, target
    except ssl.SSLCertVerificationError as ex:
        raise StorageUnavailable(f"{parts.netloc}: the certificate is not trusted: {ex.verify_message}") from ex
    except (OSError, http.client.HTTPException) as ex:
        raise StorageUnavailable(f"{parts.netloc} is unreachable: {_reason(ex)}") from ex
    finally:
        connection.close()


def _answer(connection: http.client.HTTPConnection) -> Answer:
    answer = connection.getresponse()
    found = {name.lower(): value for name, value in answer.getheaders()}
    return Answer(answer.status, found, answer.read())


def _reason(ex: Exception) -> str:
    strerror = getattr(ex, "strerror", None)
    return str(strerror or type(ex).__name__)
