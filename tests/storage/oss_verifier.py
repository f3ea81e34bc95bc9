"""OSS's side of its signatures, written from their definition; it shares no code with the signer.

Every request must be signed by version 4 or version 1, in its query or in its headers; otherwise it is refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote, urlsplit

SKEW = 900
"""Seconds that a clock may be wrong by."""

# the parameters signed by version 1 that Sluice's requests can have
V1_SIGNED = {"uploadId", "uploads", "partNumber", "security-token", "x-oss-process", "x-oss-traffic-limit", "callback"}


class Refused(Exception):
    """A request without a signature, or with a wrong one."""

    def __init__(self, code: str, message: str, status: int = 403) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.status = status


@dataclass(frozen=True)
class Account:
    """The account that may send requests, and its bucket."""

    access_key: str
    secret_key: str
    region: str = "cn-hangzhou"
    bucket: str = "sluice-test"
    token: str = ""


@dataclass(frozen=True)
class Request:
    """A request as received; header names in lower case."""

    method: str
    key: str
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def params(self) -> dict[str, str]:
        return dict(self.query)

    @classmethod
    def of(cls, method: str, url: str, bucket: str, headers: Mapping[str, str]) -> Request:
        """Parses a URL; the bucket is the host's first label, or the first part of the path."""
        parts = urlsplit(url)
        key = unquote(parts.path).removeprefix("/")
        if not parts.netloc.startswith(f"{bucket}."):
            found, _, key = key.partition("/")
            if found != bucket:
                raise Refused("NoSuchBucket", found, 404)
        pairs = [pair.partition("=") for pair in parts.query.split("&") if pair]
        query = [(unquote(name), unquote(value)) for name, _, value in pairs]
        return cls(method, key, query, {name.lower(): value for name, value in headers.items()})


def verify(request: Request, account: Account, now: float) -> None:
    """Raises Refused if the request is not signed by the account, for this moment."""
    authorization = request.headers.get("authorization", "")
    params = request.params
    if len(params) < len(request.query):
        raise Refused("InvalidArgument", "a parameter is given twice", 400)
    ways = [
        (_v4_query, "x-oss-signature" in params),
        (_v1_query, "Signature" in params),
        (_v4_header, authorization.startswith("OSS4-HMAC-SHA256 ")),
        (_v1_header, authorization.startswith("OSS ")),
    ]
    used = [way for way, is_used in ways if is_used]
    if len(used) != 1:
        raise Refused("AccessDenied", f"{len(used)} signatures")
    used[0](request, account, now)


def _same(given: str, expected: str) -> None:
    if given != expected:
        raise Refused("SignatureDoesNotMatch", "the signature is another one")


def _token(given: str, account: Account) -> None:
    if given != account.token:
        raise Refused("InvalidSecurityToken", "the token is another one")


def enc(text: str, safe: str = "") -> str:
    """Everything but RFC 3986's unreserved characters."""
    return quote(text, safe=safe + "-_.~")


def v4_signature(request: Request, account: Account, date: str, additional: Sequence[str], payload: str) -> str:
    """The signature that a request should have."""
    query = sorted((enc(name), enc(value)) for name, value in request.query if name != "x-oss-signature")
    signed = {
        name: value.strip()
        for name, value in request.headers.items()
        if name.startswith("x-oss-") or name in ("content-type", "content-md5") or name in additional
    }
    canonical = "\n".join(
        [
            request.method,
            enc(f"/{account.bucket}/{request.key}", "/"),
            "&".join(f"{name}={value}" if value else name for name, value in query),
            "".join(f"{name}:{signed[name]}\n" for name in sorted(signed)),
            ";".join(sorted(additional)),
            payload,
        ]
    )
    scope = f"{date[:8]}/{account.region}/oss/aliyun_v4_request"
    to_sign = f"OSS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"aliyun_v4{account.secret_key}".encode()
    for step in scope.split("/"):
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()


def _v4_date(text: str) -> float:
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise Refused("InvalidArgument", f"a date of {text}", 400) from None


def _v4_credential(given: str, account: Account, date: str) -> None:
    if given != f"{account.access_key}/{date[:8]}/{account.region}/oss/aliyun_v4_request":
        raise Refused("InvalidArgument", f"a credential of {given}", 400)


def _v4_query(request: Request, account: Account, now: float) -> None:
    params = request.params
    if params.get("x-oss-signature-version") != "OSS4-HMAC-SHA256":
        raise Refused("InvalidArgument", "the version", 400)
    date, life = params.get("x-oss-date", ""), params.get("x-oss-expires", "")
    if not life.isdigit() or not 1 <= int(life) <= 604_800:
        raise Refused("InvalidArgument", f"a life of {life}", 400)
    _v4_credential(params.get("x-oss-credential", ""), account, date)
    additional = [name for name in params.get("x-oss-additional-headers", "").split(";") if name]
    if set(additional) - set(request.headers):
        raise Refused("SignatureDoesNotMatch", "a signed header is missing")
    _same(params["x-oss-signature"], v4_signature(request, account, date, additional, "UNSIGNED-PAYLOAD"))
    _token(params.get("x-oss-security-token", ""), account)
    if _v4_date(date) > now + SKEW:
        raise Refused("RequestTimeTooSkewed", "signed in the future")
    if now > _v4_date(date) + int(life):
        raise Refused("AccessDenied", "the URL has expired")


def _v4_header(request: Request, account: Account, now: float) -> None:
    words = request.headers["authorization"].partition(" ")[2].split(", ")
    given = dict(word.split("=", 1) for word in words)
    date, payload = request.headers.get("x-oss-date", ""), request.headers.get("x-oss-content-sha256", "")
    _v4_credential(given["Credential"], account, date)
    additional = [name for name in given.get("AdditionalHeaders", "").split(";") if name]
    _same(given["Signature"], v4_signature(request, account, date, additional, payload))
    _token(request.headers.get("x-oss-security-token", ""), account)
    if abs(_v4_date(date) - now) > SKEW:
        raise Refused("RequestTimeTooSkewed", "the clock is wrong")


def v1_signature(request: Request, account: Account, moment: str) -> str:
    """The signature that a request should have; ``moment`` is the Date header or the parameter Expires."""
    own = sorted((name, value) for name, value in request.headers.items() if name.startswith("x-oss-"))
    query = sorted((name, value) for name, value in request.query if name in V1_SIGNED or name.startswith("response-"))
    resource = f"/{account.bucket}/{request.key}"
    if query:
        resource += "?" + "&".join(f"{name}={value}" if value else name for name, value in query)
    to_sign = "\n".join(
        [
            request.method,
            request.headers.get("content-md5", ""),
            request.headers.get("content-type", ""),
            moment,
            "".join(f"{name}:{value}\n" for name, value in own) + resource,
        ]
    )
    mac = hmac.new(account.secret_key.encode(), to_sign.encode(), hashlib.sha1)
    return base64.b64encode(mac.digest()).decode()


def _v1_query(request: Request, account: Account, now: float) -> None:
    params = request.params
    if params.get("OSSAccessKeyId") != account.access_key:
        raise Refused("InvalidAccessKeyId", "another key")
    expires = params.get("Expires", "")
    _same(params["Signature"], v1_signature(request, account, expires))
    _token(params.get("security-token", ""), account)
    if now > int(expires):
        raise Refused("AccessDenied", "the URL has expired")


def _v1_header(request: Request, account: Account, now: float) -> None:
    access_key, _, signature = request.headers["authorization"].removeprefix("OSS ").partition(":")
    if access_key != account.access_key:
        raise Refused("InvalidAccessKeyId", "another key")
    date = request.headers.get("date", "")
    _same(signature, v1_signature(request, account, date))
    _token(request.headers.get("x-oss-security-token", ""), account)
    if abs(parsedate_to_datetime(date).timestamp() - now) > SKEW:
        raise Refused("RequestTimeTooSkewed", "the clock is wrong")
