"""Examines a bucket from the outside: what `storage check` shows for storages of kind s3.

docs/storages.md lists the observations and their methods. No check needs more rights than the gateway and `s3_admin`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final
from xml.etree.ElementTree import Element

from api.core.config import S3Config
from api.core.errors import StorageError, StorageUnavailable
from api.storage import checks
from api.storage.base import Finding
from api.storage.http import ask
from api.storage.probe import ProbedStorage
from api.storage.s3.admin import is_blocked, refuses_every_put
from api.storage.s3.bucket import Address, Bucket, BucketError
from api.storage.s3.rules import child, child_text, plain

UPLOAD_DAYS: Final = 7
"""An upload lives that long at most (`Config.upload_ttl`)."""

_INIT: Final = "python -m api storage init NAME"
_RESENT: Final = 1021
"""Bytes of the part that is sent again and again: a prime, so that others' traffic is not taken for it."""

_SENDINGS: Final = 3
_TRIES: Final = 3


class Examination:
    """One `storage check` of one bucket.

    Args:
        prefix: the prefix of this deployment's keys.
        now: epoch seconds.
    """

    def __init__(
        self, storage: ProbedStorage, bucket: Bucket, settings: S3Config, prefix: str, now: Callable[[], float]
    ) -> None:
        self._storage = storage
        self._bucket = bucket
        self._settings = settings
        self._prefix = prefix
        self._now = now
        self._public_endpoint = settings.public_endpoint or settings.endpoint
        self._public = Address(settings, self._public_endpoint)

    def run(self, origins: Sequence[str]) -> Iterator[Finding]:
        """Every finding; a fault that makes the rest pointless ends them."""
        for part in (self._endpoints, self._access):
            found = list(part())
            yield from found
            if not all(finding.ok for finding in found):
                yield Finding("the rest", True, "was not tried", "mend the above first")
                return
        yield from self._bucket_rules()
        yield from self._public_access()
        yield checks.enforcement(self._storage)
        yield self._small_files()
        yield from checks.round_trip(self._storage, self._prefix, origins[0], {})
        if self._settings.via_edge:
            yield Finding("CORS", True, "parts go through the edge: the bucket's rules are not asked")
        else:
            yield from checks.for_clients(self._public_endpoint, origins)
            yield from checks.preflight(self._storage, self._prefix, origins)
        yield self._resent_parts()

    def _small_files(self) -> Finding:
        """Whether they are one PUT, as was found with the hashes just now."""
        about, most = "small files", self._storage.single_put_max
        if most:
            return Finding(about, True, f"up to {most} bytes are one PUT through the edge")
        if not self._settings.single_put_max:
            return Finding(about, True, "go by multipart")
        return Finding(about, True, "go by multipart: the storage does not compare what a PUT's signature says")

    def _endpoints(self) -> Iterator[Finding]:
        yield from checks.reach("endpoint", self._settings.endpoint, self._now())
        if self._public_endpoint != self._settings.endpoint and not self._settings.via_edge:
            yield from checks.reach("public endpoint", self._public_endpoint, self._now())

    def _access(self) -> Iterator[Finding]:
        """Credentials and bucket, by a call that the gateway itself makes."""
        name = self._bucket.name
        try:
            self._bucket.call("GET", "max-uploads=1&uploads=")
        except BucketError as ex:
            if ex.code == "NoSuchBucket":
                yield Finding("credentials", True, "the key is taken")
                yield Finding("bucket", False, f"there is no bucket {name}", _INIT)
            else:
                yield self._refusal(ex)
        except StorageUnavailable as ex:
            yield Finding("endpoint", False, str(ex), "see its own log")
        else:
            yield Finding("credentials", True, "the key is taken")
            yield Finding("bucket", True, f"{name} is there")

    def _refusal(self, ex: BucketError) -> Finding:
        """Why a signed call was refused, as far as it says."""
        about, name = "credentials", self._bucket.name
        if ex.region and ex.region != self._settings.region:
            text = f"the bucket's region is {ex.region}, signatures name {self._settings.region}"
            return Finding("region", False, text, f"SLUICE_S3_REGION={ex.region}")
        if ex.code == "InvalidAccessKeyId":
            return Finding(about, False, "the access key is not known", "correct SLUICE_S3_ACCESS_KEY")
        if ex.code == "SignatureDoesNotMatch":
            return Finding(about, False, "the secret key is wrong", "correct SLUICE_S3_SECRET_KEY")
        if ex.code in ("ExpiredToken", "InvalidToken"):
            return Finding(about, False, "the session token is no longer good", "renew SLUICE_S3_SESSION_TOKEN")
        if ex.code == "RequestTimeTooSkewed":
            return Finding("clock", False, "the storage says that this clock is wrong", "set the clocks by NTP")
        if ex.status == 403 or (ex.status == 400 and self._settings.session_token):
            # RGW says AccessDenied of every fault of a signature, and InvalidArgument of a session token
            text = f"{ex}: the access key, the secret key or the session token is wrong, or has no rights on {name}"
            return Finding(about, False, text, "correct SLUICE_S3_ACCESS_KEY, _SECRET_KEY; rights: docs/storages.md")
        return Finding("bucket", False, f"{name}: {ex}", "is SLUICE_S3_ENDPOINT an S3 endpoint?")

    # -- what stands in the bucket

    def _bucket_rules(self) -> Iterator[Finding]:
        try:
            yield from self._lifecycle(self._bucket.read("lifecycle"))
            versioning = self._bucket.read("versioning")
        except StorageError as ex:
            yield Finding("lifecycle", False, f"cannot be read: {ex}", "allow Get*Configuration to the key")
            return
        if versioning is not None and child_text(versioning, "Status") == "Enabled":
            mend = "suspend versioning, or end old versions by a lifecycle rule"
            yield Finding("versioning", True, "is on: what is deleted stays as an old version and takes room", mend)

    def _lifecycle(self, document: Element | None) -> Iterator[Finding]:
        """No rule deletes what is stored; on Ceph that includes rules that abort unfinished uploads."""
        rules = [
            rule
            for rule in (document if document is not None else ())
            if plain(rule) == "Rule" and child_text(rule, "Status") == "Enabled" and self._concerns_us(rule)
        ]
        text = f"no rule is in the way; the sweep ends unfinished uploads below {self._prefix}/"
        yield from [*self._expiring(rules), *self._aborting(rules)] or [Finding("lifecycle", True, text)]

    def _expiring(self, rules: Sequence[Element]) -> Iterator[Finding]:
        for rule in rules:
            expiration = child(rule, "Expiration")
            if expiration is not None and (child_text(expiration, "Days") or child_text(expiration, "Date")):
                text = f"rule {_name(rule)} deletes stored files: it expires objects below {self._prefix}/"
                yield Finding("lifecycle", False, text, "take the rule away, or let it spare that prefix")

    def _aborting(self, rules: Sequence[Element]) -> Iterator[Finding]:
        is_ceph = self._bucket.is_rgw()
        for rule in rules:
            abort = child(rule, "AbortIncompleteMultipartUpload")
            if abort is None:
                continue
            days = int(child_text(abort, "DaysAfterInitiation") or 0)
            if is_ceph:
                text = f"rule {_name(rule)} aborts uploads: on Ceph that may delete the bytes of finished files"
                mend = f"{_INIT} takes ours away; take others away, or let them spare {self._prefix}/"
                yield Finding("lifecycle", False, text, mend)
            elif days <= UPLOAD_DAYS:
                text = f"rule {_name(rule)} aborts uploads after {days} days, while they may live {UPLOAD_DAYS}"
                mend = f"more than {UPLOAD_DAYS} days"
                yield Finding("lifecycle", False, text, mend)

    def _concerns_us(self, rule: Element) -> bool:
        """Whether a rule's prefix covers our keys; what has other conditions (tags, sizes) never fits them."""
        holder = child(rule, "Filter")
        if holder is None:
            holder = rule
        both = child(holder, "And")
        holder = holder if both is None else both
        if any(plain(condition) in ("Tag", "ObjectSizeGreaterThan") for condition in holder):
            return False
        prefix = child_text(holder, "Prefix")
        return f"{self._prefix}/".startswith(prefix) or prefix.startswith(f"{self._prefix}/")

    # -- strangers

    def _public_access(self) -> Iterator[Finding]:
        """Nobody without a signature reads or lists, not even after a PUT that asks for it."""
        try:
            if not is_blocked(self._bucket):
                yield Finding("public access", False, "is not blocked", _INIT)
            if refuses_every_put(self._bucket, self._prefix):
                text = "no PUT is taken: the key may not write, or BlockPublicAcls is on and this is RGW 15 or 16"
                yield Finding("writing", False, text, f"{_INIT}, or allow PutObject to the key")
        except StorageError as ex:
            yield Finding("public access", True, f"a block cannot be read here ({ex})", "see what follows")
        key = checks.new_ref(self._prefix, 1, binds_hash=False).object_key
        try:
            try:
                self._bucket.call("PUT", body=b"x", headers={"x-amz-acl": "public-read"}, object_key=key)
                how = "takes x-amz-acl: public-read"
            except BucketError as ex:
                if ex.status >= 500:
                    raise
                how = f"refuses x-amz-acl: public-read ({ex})"
            open_doors = list(self._open_to_strangers(key))
            for text in open_doors:
                yield Finding("public access", False, text, f"{_INIT}; look at the bucket's policy and ACL")
            if not open_doors:
                yield Finding("public access", True, f"none: {how}, strangers are refused")
        except StorageError as ex:
            yield Finding("public access", False, f"cannot be tried: {ex}", "see the other lines")
        finally:
            with suppress(StorageError):
                self._storage.delete(key)

    def _open_to_strangers(self, key: str) -> Iterator[str]:
        base, path = self._public.base, self._public.path
        if ask("GET", base + path(key)).status == 200:
            yield "a PUT with x-amz-acl: public-read makes an object public"
        if ask("GET", base + path("")).status == 200:
            yield "anybody can list the bucket"
        if ask("PUT", base + path(key), body=b"x").status < 300:
            yield "anybody can write to the bucket"

    # -- parts that are sent again

    def _resent_parts(self) -> Finding:
        """Whether a part's first copy is freed when it is sent again.

        RGW 16 keeps it permanently, and counts it: its answer to HEAD of a bucket says how many bytes are in use.
        """
        about, edge = "re-sent parts", "SLUICE_S3_VIA_EDGE=1 counts and limits them"
        if self._settings.via_edge:
            return Finding(about, True, "go through the edge, which limits how often a part is sent")
        try:
            for _ in range(_TRIES):
                before = self._bytes_used()
                if before is None:
                    break
                self._send_again()
                after = self._bytes_used()
                left = 0 if after is None else after - before
                if left == 0:
                    return Finding(about, True, "leave nothing behind")
                if left == (_SENDINGS - 1) * _RESENT:
                    text = "leak: what a client sends again and again stays for good, also after an abort (RGW 16)"
                    return Finding(about, True, text, edge)
        except StorageError as ex:
            return Finding(about, False, f"cannot be tried: {ex}", "see the other lines")
        if before is None:
            return Finding(about, True, "cannot be seen here: no byte count in the answer to HEAD (RGW has one)", edge)
        return Finding(about, True, "cannot be told while others write; check again when it is quiet", edge)

    def _bytes_used(self) -> int | None:
        # newer RGW counts only when it is asked to
        used = self._bucket.call("HEAD", "read-stats=true").headers.get("x-rgw-bytes-used", "")
        return int(used) if used.isdecimal() else None

    def _send_again(self) -> None:
        ref = checks.new_ref(self._prefix, _RESENT, binds_hash=False)
        ref = replace(ref, multipart_id=self._storage.create(ref))
        data = os.urandom(_RESENT)
        try:
            for _ in range(_SENDINGS):
                status = checks.send(self._storage, ref, data).status
                if status >= 300:
                    raise StorageError(f"a part was answered with {status}")
        finally:
            self._storage.abort(ref)


def _name(rule: Element) -> str:
    return child_text(rule, "ID") or "without a name"
