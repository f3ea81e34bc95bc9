"""One HTTP request as a client of a storage makes it: no SDK, no retries, no redirects, no proxies."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from api.errors import StorageUnavailable

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
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    connection = (http.client.HTTPSConnection if secure else http.client.HTTPConnection)(parts.netloc, timeout=timeout)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        connection.request(method, target, body if method in ("PUT", "POST") else None, dict(headers or {}))
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read())
    except ssl.SSLCertVerificationError as ex:
        raise StorageUnavailable(f"{parts.netloc}: the certificate is not trusted: {ex.verify_message}") from ex
    except (OSError, http.client.HTTPException) as ex:
        raise StorageUnavailable(f"{parts.netloc} does not answer: {_reason(ex)}") from ex
    finally:
        connection.close()


def _reason(ex: Exception) -> str:
    strerror = getattr(ex, "strerror", None)
    return str(strerror or type(ex).__name__)
