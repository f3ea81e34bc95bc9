"""Checks of `storage check` for every storage that clients reach over HTTP."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from api.core.errors import ObjectNotFound, StorageError, StorageUnavailable
from api.storage.base import Finding, MultipartRef, MultipartStorage
from api.storage.http import Answer, ask
from api.storage.probe import ProbedStorage

MAX_CLOCK_SKEW_SECONDS: Final = 300
"""Largest accepted difference between this clock and the storage's. S3 and OSS refuse 15 minutes."""

PROBE_BYTES: Final = 4096
URL_LIFETIME_SECONDS: Final = 900
"""Lifetime of a presigned URL; longer than usual clock differences."""


def reach(about: str, endpoint: str, now: float) -> Iterator[Finding]:
    """Checks that an endpoint is reachable and that its clock agrees with this machine's."""
    begun = time.monotonic()
    try:
        answer = ask("GET", endpoint)
    except StorageUnavailable as ex:
        yield Finding(about, False, str(ex), "start it, or correct the setting")
        return
    took = f"{(time.monotonic() - begun) * 1000:.0f} ms"
    if answer.status >= 500:
        yield Finding(about, False, f"{endpoint} returns {answer.status}", "read its log, or its proxy's")
        return
    yield Finding(about, True, f"{endpoint} answers in {took}")
    with suppress(TypeError, ValueError):
        skew = parsedate_to_datetime(answer.headers.get("date", "")).timestamp() - now
        direction = "ahead of" if skew > 0 else "behind"
        if abs(skew) > MAX_CLOCK_SKEW_SECONDS:
            text = f"{endpoint} is {abs(skew):.0f} s {direction} this machine: signatures are refused"
            yield Finding("clock", False, text, "set the clocks of both by NTP")
        else:
            yield Finding("clock", True, f"{abs(skew):.0f} s {direction if round(skew) else 'from'} this machine's")


def for_clients(endpoint: str, origins: Sequence[str]) -> Iterator[Finding]:
    """Checks that browsers can use an endpoint, too."""
    where = urlsplit(endpoint)
    for origin in origins:
        page = urlsplit(origin)
        if _is_loopback(where.hostname) and not _is_loopback(page.hostname):
            text = f"browsers on {origin} are told to send parts to {endpoint}, which is their own machine"
        elif page.scheme == "https" and where.scheme == "http" and not _is_loopback(where.hostname):
            text = f"browsers refuse to send parts from {origin} to {endpoint}, which has no TLS"
        else:
            continue
        yield Finding("clients", False, text, "set a public endpoint, or let parts go through the edge")


def _is_loopback(host: str | None) -> bool:
    if host is None or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def enforcement(storage: ProbedStorage) -> Finding:
    """Probes whether the storage compares bodies with signed hashes."""
    try:
        binds = storage.probe()
    except StorageError as ex:
        return Finding("hashes", False, f"cannot be tried: {ex}", "see the other lines")
    if binds:
        return Finding("hashes", True, "binds sha256: wrong parts are refused, no object has to be read back")
    text = "does not bind sha256: wrong parts are stored, and every object is read back before it counts as verified"
    return Finding("hashes", True, text, "no action is needed; with RGW or MinIO, objects are not read back")


def new_ref(prefix: str, length: int, *, binds_hash: bool) -> MultipartRef:
    """A reference for a test upload of one part, without a row in the database."""
    random = os.urandom(16).hex()
    return MultipartRef(random, f"{prefix}/probe/{random}", "", length, length, 1, "0" * 32, 0, binds_hash)


def send(storage: MultipartStorage, ref: MultipartRef, data: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    """Signs the only part of an upload and sends it like a client. Raises StorageError."""
    sign = storage.presign_at_storage if isinstance(storage, ProbedStorage) else storage.presign_part
    signed = sign(ref, 1, hashlib.sha256(data).hexdigest(), int(time.time()) + URL_LIFETIME_SECONDS)
    return ask("PUT", signed.url, {**signed.headers, **(headers or {})}, data)


def round_trip(
    storage: MultipartStorage, prefix: str, origin: str, target_headers: Mapping[str, str] | None = None
) -> Iterator[Finding]:
    """Uploads one part by its URL, completes it, reads the object by the edge's URL, and deletes it.

    The response to the part shows whether a page of ``origin`` can read the response.

    Args:
        target_headers: headers that the edge sends; None if the edge reads without a URL.
    """
    data = os.urandom(PROBE_BYTES)
    ref = new_ref(prefix, len(data), binds_hash=storage.enforces_sha256)
    step = "create"
    try:
        ref = replace(ref, multipart_id=storage.create(ref))
        try:
            step = "a part by its URL"
            answer = send(storage, ref, data, {"origin": origin})
            if answer.status >= 300:
                raise StorageError(f"answered {answer.status} {_code(answer)}".strip())
            step = "complete"
            storage.complete(ref, hashlib.sha256(data).digest(), lambda: None)
            step = "read"
            if storage.stat(ref.object_key) != len(data) or not _reads(storage, ref, data, target_headers):
                raise StorageError("other bytes came back than were sent")
        finally:
            storage.abort(ref)
            storage.delete(ref.object_key)
        step = "delete"
        with suppress(ObjectNotFound):
            storage.stat(ref.object_key)
            raise StorageError("the deleted object is still there")
    except StorageError as ex:
        mend = "give the key the permissions in docs/storages.md, and see the other lines"
        yield Finding("round trip", False, f"{step}: {ex}", mend)
        return
    yield Finding("round trip", True, "multipart create, part, complete, read, delete")
    exposed = [name.strip().lower() for name in answer.headers.get("access-control-expose-headers", "").split(",")]
    if answer.headers.get("access-control-allow-origin") in (origin, "*") and not {"etag", "*"} & set(exposed):
        text = f"a page of {origin} does not see a part's ETag"
        yield Finding("CORS", False, text, "python -m api storage init NAME")


def _code(answer: Answer) -> str:
    """The error code in the XML of S3 and OSS."""
    found = re.search(rb"<Code>(\w+)</Code>", answer.body)
    return found.group(1).decode() if found else ""


def _reads(storage: MultipartStorage, ref: MultipartRef, data: bytes, headers: Mapping[str, str] | None) -> bool:
    with closing(storage.open(ref.object_key)) as reader:
        direct = b"".join(iter(lambda: reader.read(PROBE_BYTES), b""))
    if headers is None:
        return direct == data
    answer = ask("GET", storage.internal_uri(ref.object_key), headers)
    return direct == data and (answer.status, answer.body) == (200, data)


def preflight(storage: MultipartStorage, prefix: str, origins: Sequence[str]) -> Iterator[Finding]:
    """Sends the preflight requests that browsers send before a part, for each origin."""
    ref = replace(new_ref(prefix, 1, binds_hash=True), multipart_id="preflight")
    signed = storage.presign_part(ref, 1, "0" * 64, int(time.time()) + URL_LIFETIME_SECONDS)
    headers = sorted(name.lower() for name in signed.headers)
    for origin in origins:
        missing = []
        try:
            for method in ("PUT", "GET"):
                wanted = {"origin": origin, "access-control-request-method": method}
                if method == "PUT" and headers:
                    wanted["access-control-request-headers"] = ",".join(headers)
                missing += _not_allowed(ask("OPTIONS", signed.url, wanted), origin, method, headers)
        except StorageUnavailable as ex:
            yield Finding("CORS", False, str(ex), "see the other lines")
            return
        if missing:
            text = f"pages of {origin} may not use {', '.join(dict.fromkeys(missing))}"
            yield Finding("CORS", False, text, "python -m api storage init NAME (origins: SLUICE_WEB_ORIGINS)")
        else:
            yield Finding("CORS", True, f"pages of {origin} may PUT and GET")


def _not_allowed(answer: Answer, origin: str, method: str, headers: Sequence[str]) -> list[str]:
    """The method and headers that the response to a preflight does not allow."""

    def listed(name: str) -> set[str]:
        return {word.strip().lower() for word in answer.headers.get(f"access-control-allow-{name}", "").split(",")}

    if answer.status >= 300 or not {origin.lower(), "*"} & listed("origin"):
        return [method]
    missing = [] if {method.lower(), "*"} & listed("methods") else [method]
    if method == "PUT" and "*" not in listed("headers"):
        missing += [name for name in headers if name not in listed("headers")]
    return missing
