"""Prepares a bucket: made, private, with our CORS rule beside whatever rules are there.

No lifecycle rule is made, and the one that earlier versions made is taken away: it aborted unfinished uploads after 9
days. On Ceph RGW an upload may be open although its object is finished (`api.storage.s3.complete`), and an abort then
deletes the object's bytes. The sweep reads the rows first, and frees the uploads that the rule freed.

Permissions needed beside those of `s3`: CreateBucket, Get/PutBucketPublicAccessBlock, Get/PutBucketCORS,
Get/PutLifecycleConfiguration. Our rules carry the deployment's id in theirs, so that several deployments, and other
programs, can share a bucket; a repeat replaces our own rule and no other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final
from xml.etree.ElementTree import Element, SubElement

from api.core.errors import StorageError
from api.storage.s3.bucket import Bucket, BucketError, named
from api.storage.s3.rules import merge, plain, remove

METHODS: Final = ("PUT", "GET", "HEAD")
SIGNED_HEADERS: Final = ("content-type", "range", "x-amz-content-sha256")
"""Headers that pages may send; browsers set host and content-length by themselves."""

_BLOCK: Final = ("IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
"""With these nothing is public, whatever ACLs and policies say."""

_REFUSING_BLOCK: Final = "BlockPublicAcls"
"""With this a public ACL is refused as well; but RGW 15 and 16 refuse every PUT then, a private one too."""

_MADE_BEFORE: Final = ("BucketAlreadyOwnedByYou",)
_NOT_OFFERED: Final = ("NotImplemented", "MethodNotAllowed")


def prepare(bucket: Bucket, prefix: str, origins: Sequence[str]) -> Iterator[str]:
    """Makes what is missing; a line for each thing that holds now.

    Args:
        prefix: the prefix of this deployment's keys.

    Raises:
        StorageError: with what S3 said.
    """
    yield _make(bucket)
    yield _block_public(bucket, prefix)
    rule = cors_rule(prefix, origins)
    changed = _merge(bucket, "cors", "CORSConfiguration", rule)
    yield f"CORS: {', '.join(METHODS)} from {', '.join(origins)} {changed}"
    yield _drop_abort_rule(bucket, prefix)


def _make(bucket: Bucket) -> str:
    try:
        bucket.call("GET", "max-uploads=1&uploads=")
        return f"bucket {bucket.name}: was there"
    except BucketError as ex:
        if ex.code != "NoSuchBucket":
            raise StorageError(f"bucket {bucket.name}: {ex}") from ex
    place = Element(named("CreateBucketConfiguration"))
    SubElement(place, named("LocationConstraint")).text = bucket.region
    try:
        try:
            # us-east-1 is the one region that S3 will not have named
            bucket.create(None if bucket.region == "us-east-1" else place)
        except BucketError as ex:
            # RGW knows no region except the name of its zone group, and accepts a request that names none
            if ex.code != "InvalidLocationConstraint":
                raise
            bucket.create(None)
    except BucketError as ex:
        if ex.code in _MADE_BEFORE:
            return f"bucket {bucket.name}: was there"
        if ex.code == "BucketAlreadyExists":
            raise StorageError(f"bucket {bucket.name} belongs to somebody else: choose another name") from ex
        raise StorageError(f"bucket {bucket.name} cannot be made: {ex}") from ex
    return f"bucket {bucket.name}: made"


def _block_public(bucket: Bucket, prefix: str) -> str:
    """Forbids whatever would let strangers in."""
    try:
        found = blocks(bucket)
        refusing = _REFUSING_BLOCK in found and refuses_every_put(bucket, prefix)
        if found >= set(_BLOCK) and not refusing:
            return "public access: was blocked"
        wanted = set(_BLOCK) if refusing or bucket.is_rgw() else {*_BLOCK, _REFUSING_BLOCK}
        document = Element(named("PublicAccessBlockConfiguration"))
        for name in (_REFUSING_BLOCK, *_BLOCK):
            SubElement(document, named(name)).text = "true" if name in wanted else "false"
        bucket.write("publicAccessBlock", document)
    except BucketError as ex:
        if ex.code in _NOT_OFFERED or ex.status in (405, 501):
            return "public access: cannot be blocked here, storage check shows whether anything is public"
        raise StorageError(f"public access cannot be blocked: {ex}") from ex
    return "public access: blocked" + (f" (without {_REFUSING_BLOCK}: this RGW refused every PUT)" if refusing else "")


def blocks(bucket: Bucket) -> set[str]:
    """Which kinds of public access the bucket forbids. Raises BucketError."""
    found = bucket.read("publicAccessBlock")
    return {plain(kind) for kind in found if (kind.text or "").lower() == "true"} if found is not None else set()


def is_blocked(bucket: Bucket) -> bool:
    """Whether nothing can be public. Raises BucketError."""
    return blocks(bucket) >= set(_BLOCK)


def refuses_every_put(bucket: Bucket, prefix: str) -> bool:
    """Whether not even a private object is taken. Raises BucketError."""
    key = f"{prefix}/probe/{os.urandom(16).hex()}"
    try:
        bucket.call("PUT", body=b"x", object_key=key)
    except BucketError as ex:
        if ex.status == 403:
            return True
        raise
    bucket.call("DELETE", object_key=key)
    return False


def rule_id(prefix: str) -> str:
    """The ID of this deployment's rules."""
    return f"sluice-{prefix}"


def cors_rule(prefix: str, origins: Sequence[str]) -> Element:
    """Pages of these origins send parts and read objects, and see the ETag."""
    rule = Element(named("CORSRule"))
    SubElement(rule, named("ID")).text = rule_id(prefix)
    for name, values in (
        ("AllowedHeader", SIGNED_HEADERS),
        ("AllowedMethod", METHODS),
        ("AllowedOrigin", origins),
        ("ExposeHeader", ("ETag",)),
        ("MaxAgeSeconds", ("3600",)),
    ):
        for value in values:
            SubElement(rule, named(name)).text = value
    return rule


def _drop_abort_rule(bucket: Bucket, prefix: str) -> str:
    """Takes away the rule that earlier versions made."""
    read, write = partial(bucket.read, "lifecycle"), partial(bucket.write, "lifecycle")
    try:
        if remove(read, write, lambda: bucket.remove("lifecycle"), rule_id(prefix)):
            return "lifecycle: our rule that aborted unfinished uploads is taken away"
    except BucketError as ex:
        if ex.code not in _NOT_OFFERED:
            raise StorageError(f"the lifecycle rule {rule_id(prefix)} cannot be taken away: {ex}") from ex
    return "lifecycle: there was no rule of ours, the sweep ends unfinished uploads"


def _merge(bucket: Bucket, configuration: str, root: str, rule: Element) -> str:
    read, write = partial(bucket.read, configuration), partial(bucket.write, configuration)
    try:
        return merge(read, write, Element(named(root)), rule)
    except BucketError as ex:
        if ex.code in _NOT_OFFERED:
            return "(this storage takes no such rules)"
        raise StorageError(f"{configuration} cannot be written: {ex}") from ex
