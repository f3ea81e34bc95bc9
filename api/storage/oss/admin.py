"""Prepares and examines a bucket of OSS: private, with our CORS and lifecycle rules beside whatever rules are there.

Permissions needed beside those of `oss`: oss:PutBucket, Get/PutBucketPublicAccessBlock, Get/PutBucketCors,
Get/PutBucketLifecycle. OSS's CORS rules have no names: if SLUICE_WEB_ORIGINS changes, the old rule stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final, Protocol
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from api.core.config import OSSConfig
from api.core.errors import StorageError, StorageUnavailable
from api.storage import checks
from api.storage.base import Finding, MultipartStorage
from api.storage.s3.rules import child, child_text, merge, plain

ABORT_DAYS: Final = 9
"""Two days more than an upload lives (7 days): the sweep comes first."""

METHODS: Final = ("PUT", "GET", "HEAD")
EXPOSED: Final = ("ETag", "x-oss-hash-crc64ecma")
_INIT: Final = "python -m api storage init NAME"
_HEADERS: Final[dict[str, dict[str, str]]] = {"lifecycle": {"x-oss-allow-same-action-overlap": "true"}}
"""Headers by configuration. Without this one OSS refuses our lifecycle rule beside one for the whole bucket."""


class WholeBucket(Protocol):
    """The operations of `OSSStorage` on its whole bucket."""

    def make_bucket(self) -> bool:
        """Creates the bucket, private. Returns False if it exists already. Raises StorageError."""

    def read_configuration(self, name: str) -> bytes | None:
        """A configuration's XML; None if there is none. Raises StorageError."""

    def write_configuration(self, name: str, document: bytes, headers: dict[str, str]) -> None:
        """Replaces a configuration as a whole. Raises StorageError."""


def prepare(bucket: WholeBucket, name: str, prefix: str, origins: Sequence[str]) -> Iterator[str]:
    """Makes what is missing; a line for each thing that holds now. Raises StorageError."""
    yield f"bucket {name}: {'made' if bucket.make_bucket() else 'was there'}"
    if is_blocked(bucket):
        yield "public access: was blocked"
    else:
        block = Element("PublicAccessBlockConfiguration")
        SubElement(block, "BlockPublicAccess").text = "true"
        _write(bucket, "publicAccessBlock", block)
        yield "public access: blocked"
    changed = _merge(bucket, "cors", "CORSConfiguration", cors_rule(origins))
    yield f"CORS: {', '.join(METHODS)} from {', '.join(origins)} {changed}"
    changed = _merge(bucket, "lifecycle", "LifecycleConfiguration", lifecycle_rule(prefix))
    yield f"lifecycle: unfinished uploads below {prefix}/ end after {ABORT_DAYS} days {changed}"


def is_blocked(bucket: WholeBucket) -> bool:
    """Whether nothing in the bucket can be public. Raises StorageError."""
    found = _read(bucket, "publicAccessBlock")
    return found is not None and child_text(found, "BlockPublicAccess").lower() == "true"


def cors_rule(origins: Sequence[str]) -> Element:
    """Lets pages of these origins send parts, without additional headers, and read the responses."""
    rule = Element("CORSRule")
    values = (("AllowedOrigin", origins), ("AllowedMethod", METHODS), ("AllowedHeader", ("range",)))
    for name, texts in (*values, ("ExposeHeader", EXPOSED), ("MaxAgeSeconds", ("3600",))):
        for text in texts:
            SubElement(rule, name).text = text
    return rule


def lifecycle_rule(prefix: str) -> Element:
    """OSS itself ends what the sweep was never there to end."""
    rule = Element("Rule")
    for name, text in (("ID", f"sluice-{prefix}"), ("Prefix", f"{prefix}/"), ("Status", "Enabled")):
        SubElement(rule, name).text = text
    SubElement(SubElement(rule, "AbortMultipartUpload"), "Days").text = str(ABORT_DAYS)
    return rule


def _read(bucket: WholeBucket, name: str) -> Element | None:
    body = bucket.read_configuration(name)
    try:
        return None if body is None else ElementTree.fromstring(body)  # noqa: S314 - our own storage's answer
    except ElementTree.ParseError as ex:
        raise StorageUnavailable(f"{name}: an answer that cannot be read") from ex


def _write(bucket: WholeBucket, name: str, document: Element) -> None:
    bucket.write_configuration(name, ElementTree.tostring(document, encoding="utf-8"), _HEADERS.get(name, {}))


def _merge(bucket: WholeBucket, name: str, root: str, rule: Element) -> str:
    return merge(partial(_read, bucket, name), partial(_write, bucket, name), Element(root), rule)


def examine(
    storage: MultipartStorage,
    bucket: WholeBucket,
    settings: OSSConfig,
    prefix: str,
    origins: Sequence[str],
    target_headers: dict[str, str],
    now: float,
) -> Iterator[Finding]:
    """Every finding; a fault that makes the rest pointless ends them.

    Args:
        target_headers: the headers that the edge sends with a signed GET.
        now: epoch seconds.
    """
    public = settings.public_endpoint or settings.endpoint
    found = list(checks.reach("endpoint", settings.endpoint, now))
    if public != settings.endpoint:
        found += checks.reach("public endpoint", public, now)
    if all(finding.ok for finding in found):
        found.append(_access(storage, settings.bucket))
    yield from found
    if not found[-1].ok or not all(finding.ok for finding in found):
        yield Finding("the rest", True, "was not tried", "mend the above first")
        return
    try:
        if not is_blocked(bucket):
            yield Finding("public access", False, "is not blocked", _INIT)
        else:
            yield Finding("public access", True, "is blocked")
        yield _lifecycle(_read(bucket, "lifecycle"), prefix)
    except StorageError as ex:
        yield Finding("bucket", False, f"its rules cannot be read: {ex}", "allow oss:GetBucket* to the key")
    yield Finding("hashes", True, "does not bind sha256: every object is read back before it counts as verified")
    yield from checks.round_trip(storage, prefix, origins[0], target_headers)
    yield from checks.for_clients(public, origins)
    yield from checks.preflight(storage, prefix, origins)


def _access(storage: MultipartStorage, name: str) -> Finding:
    """Credentials and bucket, by a call that the gateway itself makes."""
    try:
        storage.check()
    except StorageError as ex:
        text = str(ex)
        if text.startswith("NoSuchBucket"):
            return Finding("bucket", False, f"there is no bucket {name}", _INIT)
        return Finding("credentials", False, text, "correct SLUICE_OSS_ACCESS_KEY, _SECRET_KEY, _REGION")
    return Finding("bucket", True, f"{name} is there, the key is taken")


def _lifecycle(document: Element | None, prefix: str) -> Finding:
    for rule in document if document is not None else ():
        abort = child(rule, "AbortMultipartUpload")
        covers = f"{prefix}/".startswith(child_text(rule, "Prefix"))
        if plain(rule) == "Rule" and abort is not None and covers and child_text(rule, "Status") == "Enabled":
            return Finding("lifecycle", True, f"unfinished uploads end after {child_text(abort, 'Days')} days")
    return Finding("lifecycle", False, f"no rule ends unfinished uploads below {prefix}/", _INIT)
