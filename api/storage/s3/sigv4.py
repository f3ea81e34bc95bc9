"""AWS Signature Version 4 in query strings, by hand, because signing parts is the hottest thing that the API does.

One URL costs one SHA-256 and one HMAC: the day's key is derived once, and everything that the URLs of one upload
share is put together once. Source: AWS, "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)".
A property test holds the URLs byte for byte against botocore's.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote

UNSIGNED: Final = "UNSIGNED-PAYLOAD"
MAX_EXPIRES: Final = 604_800
_ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The keys that sign requests."""

    access_key: str
    secret_key: str
    region: str
    session_token: str | None = None


def encode(text: str) -> str:
    """RFC 3986: everything but letters, digits and ``-_.~``."""
    return quote(text, safe="-_.~")


@lru_cache(maxsize=16)
def signing_key(scheme: str, secret_key: str, scope: str) -> bytes:
    """The key of a scope, which is ``day/region/service/request``: one HMAC a step."""
    key = f"{scheme}{secret_key}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    return key


@lru_cache(maxsize=16)
def basic_date(moment: int) -> str:
    """Epoch seconds as ISO 8601's basic format, in UTC."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(moment))


class Presigner:
    """Signs URLs of one method on one address; only what a call names differs between them.

    Args:
        base: scheme and host, as clients reach the storage; the host is signed.
        path: encoded, with its leading slash.
        headers: names, in lower case and in order, of the headers that `sign` gives values for (beside ``host``).
        now, expires: epoch seconds and the URL's life in seconds, at most 7 days.
    """

    def __init__(
        self,
        credentials: Credentials,
        method: str,
        base: str,
        path: str,
        headers: tuple[str, ...],
        now: int,
        expires: int,
    ) -> None:
        if not 1 <= expires <= MAX_EXPIRES:
            raise ValueError(f"a URL lives 1 to {MAX_EXPIRES} seconds, not {expires}")
        date = basic_date(now)
        scope = f"{date[:8]}/{credentials.region}/s3/aws4_request"
        names = sorted((*headers, "host"))
        query = {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{credentials.access_key}/{scope}",
            "X-Amz-Date": date,
            "X-Amz-Expires": str(expires),
            "X-Amz-SignedHeaders": ";".join(names),
        }
        if credentials.session_token:
            query["X-Amz-Security-Token"] = credentials.session_token
        # botocore writes the parameters in this order and signs them sorted; both are kept
        self._auth = "&".join(f"{key}={encode(value)}" for key, value in query.items())
        self._sorted_auth = "&".join(f"{key}={encode(query[key])}" for key in sorted(query))
        self._head = f"{method}\n{path}\n"
        self._names = names
        self._host = base.partition("://")[2]
        self._tail = f"\n{';'.join(names)}\n"
        self._to_sign = f"{_ALGORITHM}\n{date}\n{scope}\n"
        self._key = signing_key("AWS4", credentials.secret_key, scope)
        self._url = f"{base}{path}?"

    def sign(self, query: str, headers: Mapping[str, str], payload: str = UNSIGNED, shown: str = "") -> str:
        """A URL.

        Args:
            query: encoded parameters, sorted, or nothing; all of them sort after ``X-Amz-``.
            payload: the SHA-256 that the storage is to compare the body with, or UNSIGNED.
            shown: the same parameters in the order in which the URL has them.
        """
        values = [f"{name}:{headers[name] if name != 'host' else self._host}\n" for name in self._names]
        parameters = f"{self._sorted_auth}&{query}" if query else self._sorted_auth
        canonical = f"{self._head}{parameters}\n{''.join(values)}{self._tail}{payload}"
        to_sign = self._to_sign + hashlib.sha256(canonical.encode()).hexdigest()
        signature = hmac.new(self._key, to_sign.encode(), "sha256").hexdigest()
        given = f"{shown or query}&" if query else ""
        return f"{self._url}{given}{self._auth}&X-Amz-Signature={signature}"
