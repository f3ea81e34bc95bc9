"""One HTTP request as a client of a storage makes it: no SDK, no retries, no redirects, no proxies."""

from __future__ import annotations

import contextlib
import http.client
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from api.core.errors import StorageUnavailable

TIMEOUT: Final = 10.0
"""Seconds for a connection, and for each read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(
    method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes = b"", timeout: float = TIMEOUT
) -> Answer:
    """Sends a request and reads the whole answer.

    Raises:
        StorageUnavailable: there was no answer; the text says why, and never holds the URL's query.
    """
    with _connection(url, timeout) as (connection, target):
        connection.request(method, target, body if method in ("PUT", "POST") else None, dict(headers or {}))
        return _answer(connection)


def put(url: str, headers: Mapping[str, str], length: int, body: Iterable[bytes], timeout: float) -> Answer:
    """Sends a body of ``length`` bytes piece by piece, and reads the whole answer.

    What ``body`` raises goes through: the connection is closed before the last byte, so that nothing is stored.

    Args:
        timeout: seconds that one piece, or the answer, may take.

    Raises:
        StorageUnavailable: there was no answer, or the body was not as long as it was said to be.
    """
    with _connection(url, TIMEOUT) as (connection, target):
        connection.putrequest("PUT", target, skip_accept_encoding=True)
        for name, value in ({"content-length": str(length)} | dict(headers)).items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.sock.settimeout(timeout)
        for piece in body:
            try:
                connection.send(piece)
            except (BrokenPipeError, ConnectionResetError):
                # a server that says no before it has read everything is heard all the same
                with contextlib.suppress(OSError, http.client.HTTPException):
                    return _answer(connection)
                raise
            length -= len(piece)
        if length:
            raise StorageUnavailable("a body that is not as long as it was said to be")
        return _answer(connection)


@contextlib.contextmanager
def _connection(url: str, timeout: float) -> Iterator[tuple[http.client.HTTPConnection, str]]:
    """A connection and the target to ask for, whose errors are ours."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    connection = (http.client.HTTPSConnection if secure else http.client.HTTPConnection)(parts.netloc, timeout=timeout)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        yield connection, target
    except ssl.SSLCertVerificationError as ex:
        raise StorageUnavailable(f"{parts.netloc}: the certificate is not trusted: {ex.verify_message}") from ex
    except (OSError, http.client.HTTPException) as ex:
        raise StorageUnavailable(f"{parts.netloc} does not answer: {_reason(ex)}") from ex
    finally:
        connection.close()


def _answer(connection: http.client.HTTPConnection) -> Answer:
    answer = connection.getresponse()
    found = {name.lower(): value for name, value in answer.getheaders()}
    return Answer(answer.status, found, answer.read())


def _reason(ex: Exception) -> str:
    strerror = getattr(ex, "strerror", None)
    return str(strerror or type(ex).__name__)
