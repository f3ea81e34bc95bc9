"""OSS signature version 4 in query strings, by hand, because signing parts is the hottest thing that the API does.

As in `sigv4`: one SHA-256 and one HMAC a URL, the day's key derived once, what the URLs of one upload share put
together once. Source: Alibaba Cloud, "Include a V4 signature in a URL". The official vectors and a property test
against oss2's own results, byte for byte, hold it.

Differences from AWS that are easy to get wrong:

- The host is not signed: a URL stays valid behind a proxy that changes it.
- Every ``x-oss-*`` header, Content-Type and Content-MD5 that a request carries is part of its signature. A client that
  adds one of them, such as ``x-oss-copy-source``, is refused. Other headers are signed only if they are named in
  ``x-oss-additional-headers``; that is how a part's length is bound.
- The signed path is ``/bucket/key``, even if the bucket is the host's first label. ``/`` is not encoded in it, and is
  ``%2F`` in parameters.
- A parameter without a value is signed, and written, without ``=``.
- The region is ``cn-hangzhou``; with ``oss-cn-hangzhou``, or with none, the signature is silently wrong.
- OSS accepts no lifetime of more than 7 days. If a longer one is signed, the error shows only when the URL is used.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from api.storage.s3.sigv4 import MAX_EXPIRES, Credentials, basic_date, encode, signing_key

_ALGORITHM: Final = "OSS4-HMAC-SHA256"
_ALWAYS_SIGNED: Final = frozenset({"content-type", "content-md5"})
_PREFIX: Final = "x-oss-"


def encode_path(path: str) -> str:
    """A key or path as OSS signs it: RFC 3986, but for the slashes."""
    return quote(path, safe="/-_.~")


def _encoded(text: str) -> str:
    # part numbers and upload ids, which are most of what comes here, need no encoding
    return text if text.isalnum() and text.isascii() else encode(text)


class Presigner:
    """Signs URLs of one method for one object; only what a call names differs between them.

    Args:
        url: scheme, host and encoded path of the object, as clients reach it.
        resource: ``/bucket/key``, not encoded.
        headers: names, in lower case, of the headers that `sign` gives values for and clients must send.
        now, expires: epoch seconds and the URL's life in seconds, at most 7 days.

    Raises:
        ValueError: what OSS would refuse later: such a life, or such a region.
    """

    def __init__(
        self,
        credentials: Credentials,
        method: str,
        url: str,
        resource: str,
        headers: tuple[str, ...],
        now: int,
        expires: int,
    ) -> None:
        region = credentials.region
        if not 1 <= expires <= MAX_EXPIRES:
            raise ValueError(f"a URL lives 1 to {MAX_EXPIRES} seconds, not {expires}")
        if not region or region.startswith("oss-"):
            raise ValueError(f"a region is such as cn-hangzhou, not {region!r}")
        date = basic_date(now)
        scope = f"{date[:8]}/{region}/oss/aliyun_v4_request"
        names = sorted(headers)
        additional = ";".join(name for name in names if not name.startswith(_PREFIX) and name not in _ALWAYS_SIGNED)
        # oss2 writes the parameters in this order and signs them sorted; both are kept
        auth = {
            "x-oss-security-token": credentials.session_token,
            "x-oss-date": date,
            "x-oss-expires": str(expires),
            "x-oss-signature-version": _ALGORITHM,
            "x-oss-credential": f"{credentials.access_key}/{scope}",
            "x-oss-additional-headers": additional,
        }
        pairs = [f"{name}={encode(value)}" for name, value in auth.items() if value]
        self._auth = "&".join(pairs)
        self._pairs = sorted(pairs)
        self._sorted_auth = "&".join(self._pairs)
        self._names = names
        self._head = f"{method}\n{encode_path(resource)}\n"
        self._tail = f"\n{additional}\nUNSIGNED-PAYLOAD"
        self._to_sign = f"{_ALGORITHM}\n{date}\n{scope}\n"
        self._key = signing_key("aliyun_v4", credentials.secret_key, scope)
        self._url = f"{url}?"

    def sign(self, params: Mapping[str, str], headers: Mapping[str, str]) -> str:
        """A URL.

        Args:
            params: the request's own parameters, not encoded; every one of them is signed.
            headers: the values that clients must send.

        Raises:
            ValueError: ``params`` has a parameter of the signature itself.
        """
        own = [f"{_encoded(name)}={_encoded(value)}" if value else _encoded(name) for name, value in params.items()]
        shown = "&".join((*own, self._auth))
        values = "".join([f"{name}:{headers[name].strip()}\n" for name in self._names])
        canonical = f"{self._head}{self._query(own)}\n{values}{self._tail}"
        to_sign = self._to_sign + hashlib.sha256(canonical.encode()).hexdigest()
        signature = hmac.digest(self._key, to_sign.encode(), "sha256").hex()
        return f"{self._url}{shown}&x-oss-signature={signature}"

    def _query(self, own: list[str]) -> str:
        """Every parameter, sorted by its encoded name."""
        own = sorted(own, key=_name) if len(own) > 1 else own
        if not own or own[-1] < _PREFIX:
            return "&".join((*own, self._sorted_auth))
        names = [_name(pair) for pair in (*own, *self._pairs)]
        if len(set(names)) < len(names) or "x-oss-signature" in names:
            raise ValueError("a parameter of the signature itself is not the caller's to give")
        return "&".join(sorted((*own, *self._pairs), key=_name))


def _name(pair: str) -> str:
    return pair.partition("=")[0]
