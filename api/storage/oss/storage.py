"""Storage ``oss``: Aliyun OSS. The only module that imports oss2. Part URLs are signed by `api.storage.oss.v4`.

It was not run against the real OSS by its authors. Signatures are tested with the official vectors and oss2's results,
all else with Alibaba's documentation and a strict stand-in (tests/storage/oss_standin.py). Environment variables enable
live tests.

The only hash in a signature that OSS compares with a body is MD5, which clients do not compute. So a blob is read back
before it counts as verified. A part's URL binds upload, part number and exact length (with V4; V1, for old accounts,
cannot bind the length; complete checks the lengths in any case). OSS refuses a client that adds ``x-oss-*`` headers or
a Content-Type.

Permissions needed: oss:PutObject, GetObject, DeleteObject, AbortMultipartUpload, ListParts, ListMultipartUploads,
ListObjects.

Pitfalls of OSS and oss2, and how this module handles them:

- oss2 never retries. This module tries calls that are safe to repeat up to three times, with pauses.
- oss2's ``connect_timeout`` is also the read timeout, unless it is a pair.
- oss2's list of parts omits their CRC64, so the response is parsed here.
- OSS continues a complete after the client has disconnected, and returns 404 to a repeated one. So after any error the
  object is checked first. If it exists with its size and CRC64, it is permanent: by the documentation ("After
  CompleteMultipartUpload, no operation is allowed with the upload ID", page AbortMultipartUpload) neither an abort nor
  a lifecycle rule that aborts uploads deletes anything then, unlike with Ceph's RGW. It is read back nevertheless. If
  neither object nor upload exists, an earlier complete may still be running: `LOOKS_FOR_OBJECT` checks decide, over
  half an hour.
- For a range past the end, OSS returns the whole object, unless ``x-oss-range-behavior: standard`` is sent. That header
  is part of the signature, so requests to `internal_uri` must send `TARGET_HEADERS`.
- requests replaces the signature by passwords from ~/.netrc, unless it has another auth. oss2 logs headers at DEBUG.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from xml.etree import ElementTree

import oss2
from oss2.exceptions import OssError
from oss2.models import PartInfo
from oss2.utils import is_ip_or_localhost

from api.core import digests, lifetimes
from api.core.config import OSSConfig
from api.core.errors import ConfigError, ObjectNotFound, PartMismatch, StorageError, StorageUnavailable, UploadGone
from api.storage.base import Administered, Completed, Finding, MultipartRef, MultipartStorage, Reader, SignedPart
from api.storage.oss import admin as oss_admin
from api.storage.oss import crc64
from api.storage.oss.answers import Body, Nothing, Part, Sending, parse_parts
from api.storage.oss.errors import Passing, PastTheEnd, Unsaid, translate
from api.storage.oss.v4 import Presigner, encode_path
from api.storage.s3.sigv4 import MAX_EXPIRES, Credentials

TARGET_LIFE: Final = lifetimes.TARGET
"""Lifetime of a presigned GET for the edge, in seconds. The edge requests a new one long before."""

TARGET_HEADERS: Final[Mapping[str, str]] = {"x-oss-range-behavior": "standard"}
"""Signed headers that must be sent with such a GET."""

_CRC: Final = "x-oss-hash-crc64ecma"
TIMEOUTS_SECONDS: Final = (3, 60)
"""Timeouts of connecting and of each read."""

LOOKS_FOR_OBJECT: Final = 10
"""Checks for the object after a lost response to a complete, until it counts as gone. A job's pauses double."""

MOST_TRIES: Final = 3
FIRST_PAUSE_SECONDS: Final = 0.2
"""Longest first pause. Each further pause is twice as long."""

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
logging.getLogger("oss2").setLevel(logging.WARNING)


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except OssError as ex:
        raise translate(type(ex).__name__, ex.status, ex.code, ex.request_id) from ex
    except OSError as ex:  # the body was interrupted; errors of requests are OSErrors
        raise Passing(type(ex).__name__) from ex
    except (ElementTree.ParseError, RuntimeError, ValueError) as ex:
        raise Passing(f"a response that cannot be parsed: {type(ex).__name__}") from ex


class OSSStorage(MultipartStorage, Administered):
    """See the module's docstring.

    Args:
        prefix: returns the prefix of this deployment's keys.
        now: epoch seconds.
        sleep: waits between two tries.

    Raises:
        ConfigError: oss2 or OSS would not accept the settings.
    """

    def __init__(
        self,
        settings: OSSConfig,
        prefix: Callable[[], str],
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._prefix = prefix
        self._now = now
        self._sleep = sleep
        self._credentials = Credentials(
            settings.access_key, settings.secret_key, settings.region, settings.session_token or None
        )
        if not settings.region or settings.region.startswith("oss-"):
            raise ConfigError([f"SLUICE_OSS_REGION is such as cn-hangzhou, not {settings.region!r}"])
        self._internal = self._connect(settings.endpoint)
        self._public = self._connect(settings.public_endpoint or settings.endpoint)
        self._presigners: dict[tuple[str, int, int], Presigner] = {}

    def _connect(self, endpoint: str) -> Any:
        """A Bucket for one endpoint. oss2 uses the same endpoint to sign and to call, so two buckets are needed."""
        given = self._settings
        session = oss2.Session(pool_size=32)
        session.session.auth = lambda request: request  # otherwise requests would use ~/.netrc
        try:
            if given.session_token:
                auth = oss2.StsAuth(given.access_key, given.secret_key, given.session_token, given.signature)
            else:
                auth = oss2.make_auth(given.access_key, given.secret_key, given.signature)
            return oss2.Bucket(
                auth,
                endpoint,
                given.bucket,
                session=session,
                connect_timeout=TIMEOUTS_SECONDS,
                enable_crc=False,  # it would use crcmod; see `crc64`
                region=given.region,
            )
        except OssError as ex:
            raise ConfigError([f"SLUICE_OSS_BUCKET {given.bucket} or the endpoint {endpoint}: {ex.body}"]) from ex

    def _call(self, call: Callable[[], _T], tries: int = MOST_TRIES) -> _T:
        """Runs a call that is safe to repeat. Retries it after failures that may be temporary."""
        for done in range(1, tries + 1):
            try:
                with _own_errors():
                    return call()
            except Passing:
                if done == tries:
                    raise
            self._pause(done)
        raise AssertionError

    def _pause(self, done: int) -> None:
        # fully random, so that many calls that failed together are not repeated together
        self._sleep(random.uniform(0, FIRST_PAUSE_SECONDS * 2 ** (done - 1)))  # noqa: S311 - no secret

    # -- objects

    def check(self) -> None:
        try:
            self._call(lambda: self._internal.list_multipart_uploads(max_uploads=1), tries=1)
        except ObjectNotFound as ex:
            raise StorageUnavailable(str(ex)) from ex

    def _head(self, object_key: str) -> Any:
        """oss2's HeadObjectResult."""
        try:
            return self._call(lambda: self._internal.head_object(object_key))
        except Unsaid:
            self.check()  # raises if the bucket is missing
            raise

    def stat(self, object_key: str) -> int:
        length = self._head(object_key).content_length
        if length is None:
            raise StorageUnavailable("a response without a length")
        return int(length)

    def open(self, object_key: str, offset: int = 0, length: int | None = None) -> Reader:
        if length == 0:
            self._head(object_key)
            return Nothing()
        last = None if length is None else offset + length - 1
        whole = offset == 0 and length is None
        try:
            answer = self._call(
                lambda: self._internal.get_object(
                    object_key, byte_range=None if whole else (offset, last), headers=TARGET_HEADERS
                )
            )
        except PastTheEnd:
            return Nothing()
        if answer.status != (200 if whole else 206) or answer.content_length is None:
            answer.close()
            raise StorageUnavailable(f"a range got status {answer.status}, {answer.content_length} bytes")
        crc = answer.headers.get(_CRC) if whole else None  # every response has that of the whole object
        return Body(answer, answer.content_length, None if crc is None else int(crc))

    def delete(self, object_key: str) -> None:
        with contextlib.suppress(ObjectNotFound):
            self._call(lambda: self._internal.delete_object(object_key).resp.read())

    def internal_uri(self, object_key: str) -> str:
        """A presigned GET, to be sent with `TARGET_HEADERS`."""
        # the URL changes only once per quarter of its lifetime, since the edge uses it as a cache key
        now = int(self._now())
        signed_at = now - now % (TARGET_LIFE // 4)
        if self._settings.signature == "v1":
            return self._sign_v1(self._internal, "GET", object_key, signed_at + TARGET_LIFE, {}, TARGET_HEADERS)
        presigner = self._presigner(self._settings.endpoint, "GET", object_key, signed_at, TARGET_LIFE)
        return presigner.sign({}, TARGET_HEADERS)

    def list_objects(self, after: str = "") -> Iterator[str]:
        prefix = f"{self._prefix()}/"
        while True:
            page = self._call(partial(self._internal.list_objects, prefix=prefix, marker=after, max_keys=1000))
            keys = [str(entry.key) for entry in page.object_list]
            if keys and keys[0] <= after:
                raise StorageUnavailable("a list that is not in order")
            yield from keys
            if not page.is_truncated or not keys:
                return
            after = keys[-1]

    # -- signing

    def _presigner(self, endpoint: str, method: str, object_key: str, signed_at: int, expires: int) -> Presigner:
        bucket = self._settings.bucket
        names = ("content-length",) if method == "PUT" else tuple(TARGET_HEADERS)
        url = _base(endpoint, bucket) + encode_path(object_key)
        return Presigner(self._credentials, method, url, f"/{bucket}/{object_key}", names, signed_at, expires)

    @staticmethod
    def _sign_v1(
        bucket: Any, method: str, object_key: str, expires_at: int, params: dict[str, str], headers: Mapping[str, str]
    ) -> str:
        expires = min(expires_at - int(time.time()), MAX_EXPIRES)  # oss2 accepts any, and adds the current time
        if expires < 1:
            raise ValueError(f"a URL lives 1 to {MAX_EXPIRES} seconds, not {expires}")
        url: str = bucket.sign_url(method, object_key, expires, dict(headers), params, slash_safe=True)
        return url

    def presign_part(self, ref: MultipartRef, number: int, sha256: str, expires_at: int) -> SignedPart:
        if not ref.multipart_id:
            raise UploadGone("an empty upload id would make the URL a plain PUT of the object")
        params = {"uploadId": ref.multipart_id, "partNumber": str(number)}
        if self._settings.signature == "v1":
            return SignedPart(self._sign_v1(self._public, "PUT", ref.object_key, expires_at, params, {}), {})
        length = digests.part_length(number, ref.size, ref.part_size)
        now = int(self._now())
        # the parts of one call share a presigner
        wanted = (ref.object_key, now, min(expires_at - now, MAX_EXPIRES))
        presigner = self._presigners.get(wanted)
        if presigner is None:
            endpoint = self._settings.public_endpoint or self._settings.endpoint
            presigner = self._presigner(endpoint, "PUT", *wanted)
            self._presigners = {wanted: presigner}
        return SignedPart(presigner.sign(params, {"content-length": str(length)}), {})

    # -- multipart uploads

    @property
    def enforces_sha256(self) -> bool:
        return False

    def create(self, ref: MultipartRef) -> str:
        headers = {"x-oss-forbid-overwrite": "true", "content-type": "application/octet-stream"}
        made = self._call(lambda: self._internal.init_multipart_upload(ref.object_key, headers))
        return str(made.upload_id)

    def write_part(self, ref: MultipartRef, number: int, body: Iterable[bytes], sha256: str) -> None:
        if not ref.multipart_id:
            raise UploadGone("it was never made")
        sent = Sending(body, digests.part_length(number, ref.size, ref.part_size))
        try:
            with _own_errors():
                answer = self._internal.upload_part(ref.object_key, ref.multipart_id, number, sent)
                answer.resp.read()
        except StorageError:
            sent.reraise()  # if the body raised, that is the cause
            raise
        if answer.crc is not None and int(answer.crc) != sent.crc:
            raise PartMismatch([number])

    def list_parts(self, ref: MultipartRef) -> dict[int, int]:
        return {number: part.size for number, part in self._listed(ref).items()}

    def _listed(self, ref: MultipartRef) -> dict[int, Part]:
        """Every stored part by its number."""
        found: dict[int, Part] = {}
        marker: int | None = 0
        while marker is not None:
            page, marker = self._page(ref, marker)
            found |= page
        return found

    def _page(self, ref: MultipartRef, after: int) -> tuple[dict[int, Part], int | None]:
        """A page of 1,000 parts, and the number after which the next page begins."""
        if not ref.multipart_id:
            raise UploadGone("it was never made")
        params = {"uploadId": ref.multipart_id, "max-parts": "1000", "part-number-marker": str(after)}
        return self._call(
            lambda: parse_parts(self._internal.get_object(ref.object_key, params=dict(params)).read(), after)
        )

    def complete(self, ref: MultipartRef, hashes: bytes, keep_alive: Callable[[], None]) -> Completed:
        keep_alive()
        try:
            listed = self._listed(ref)
        except UploadGone:
            try:
                return self._completed_before(ref)
            except UploadGone as ex:
                if 0 < ref.completes_sent < LOOKS_FOR_OBJECT:
                    raise Passing(f"an earlier complete may still be running: {ex}") from ex
                raise
        numbers = range(1, ref.part_count + 1)
        lengths = {number: digests.part_length(number, ref.size, ref.part_size) for number in numbers}
        wrong = [number for number in numbers if number not in listed or listed[number].size != lengths[number]]
        if wrong:
            raise PartMismatch(wrong)
        parts = [listed[number] for number in numbers]
        sums = [(part.crc, part.size) for part in parts if part.crc is not None]
        crc = crc64.combine(sums) if len(sums) == len(parts) else None
        for done in range(1, MOST_TRIES + 1):
            try:
                self._complete_once(ref, parts)
                break
            except StorageError as ex:
                _log.warning("complete failed; checking the object", extra={"error": str(ex)})
                try:
                    return self._completed_before(ref, crc)
                except UploadGone:
                    if not isinstance(ex, Passing):
                        # after a lost response, "no such upload" may mean that the complete is still running
                        raise ex if done == 1 and not ref.completes_sent else Passing(f"not known yet: {ex}") from ex
                    if done == MOST_TRIES:
                        raise ex from None
            self._pause(done)
            keep_alive()
        return self._judge(ref, self._head(ref.object_key), crc)

    def _complete_once(self, ref: MultipartRef, parts: list[Part]) -> None:
        infos = [PartInfo(number, part.etag) for number, part in enumerate(parts, 1)]
        headers = {"x-oss-forbid-overwrite": "true"}
        with _own_errors():
            self._internal.complete_multipart_upload(ref.object_key, ref.multipart_id, infos, headers).resp.read()

    def _completed_before(self, ref: MultipartRef, crc: int | None = None) -> Completed:
        """The object of an earlier complete whose response was lost. Raises UploadGone if there is none."""
        try:
            return self._judge(ref, self._head(ref.object_key), crc)
        except ObjectNotFound as ex:
            raise UploadGone(str(ex)) from ex

    def _judge(self, ref: MultipartRef, head: Any, crc: int | None) -> Completed:
        """Checks the object: right size, no encoding, and the CRC64 of its parts.

        If the CRC64 differs, a repeated complete finds the object but no parts to compare. Reading it back then shows
        whether it is right.
        """
        encoding = head.headers.get("content-encoding")
        if head.content_length != ref.size or encoding:
            raise StorageError(f"the object has {head.content_length} bytes, encoding {encoding}")
        if crc is not None and int(head.headers.get(_CRC, crc)) != crc:
            raise StorageError("the object's CRC64 is not that of its parts")
        return Completed(verified=False, sha256=None)

    def abort(self, ref: MultipartRef) -> None:
        # a lost response to a create leaves an upload without a row, so all uploads of the key are aborted
        for key, multipart_id in self._open_uploads(ref.object_key):
            if key == ref.object_key:
                self._abort(key, multipart_id)

    def _abort(self, object_key: str, multipart_id: str) -> None:
        with contextlib.suppress(UploadGone, ObjectNotFound):
            self._call(lambda: self._internal.abort_multipart_upload(object_key, multipart_id).resp.read())

    def _open_uploads(self, prefix: str) -> Iterator[tuple[str, str]]:
        """(object key, multipart id) of the unfinished uploads below a prefix."""
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            ask = partial(
                self._internal.list_multipart_uploads, prefix=prefix, key_marker=after[0], upload_id_marker=after[1]
            )
            page = self._call(ask)
            yield from ((upload.key, upload.upload_id) for upload in page.upload_list)
            after = (page.next_key_marker, page.next_upload_id_marker) if page.is_truncated else None

    def list_uploads(self) -> Iterator[str]:
        for key, _ in self._open_uploads(f"{self._prefix()}/"):
            yield key.rpartition("/")[2]

    # -- for operators

    @property
    def place(self) -> str:
        return f"{self._settings.endpoint} bucket {self._settings.bucket}"

    def init(self, origins: Sequence[str]) -> Iterator[str]:
        return oss_admin.prepare(self, self._settings.bucket, self._prefix(), origins)

    def checks(self, origins: Sequence[str]) -> Iterator[Finding]:
        return oss_admin.examine(self, self, self._settings, self._prefix(), origins, dict(TARGET_HEADERS), self._now())

    def make_bucket(self) -> bool:
        """See `oss_admin.WholeBucket`, also for the next two."""
        try:
            self.check()
        except StorageUnavailable as ex:
            if not str(ex).startswith("NoSuchBucket"):
                raise
            self._call(lambda: self._internal.create_bucket(oss2.BUCKET_ACL_PRIVATE), tries=1)
            return True
        return False

    def read_configuration(self, name: str) -> bytes | None:
        # oss2's parser would lose the elements that it does not know
        ask = partial(self._internal._do, "GET", self._settings.bucket, "", params={name: ""})
        try:
            body: bytes = self._call(lambda: ask().read())
        except StorageError as ex:
            code = str(ex).partition(",")[0]
            if code.startswith("NoSuch") and code != "NoSuchBucket":
                return None
            raise
        return body

    def write_configuration(self, name: str, document: bytes, headers: dict[str, str]) -> None:
        given = {"params": {name: ""}, "data": document, "headers": headers}
        self._call(lambda: self._internal._do("PUT", self._settings.bucket, "", **given).read())


def _base(endpoint: str, bucket: str) -> str:
    """The start of the URLs of a bucket's objects. The bucket is the host's first label."""
    parts = urlsplit(endpoint)
    if is_ip_or_localhost(parts.netloc):  # like oss2
        return f"{parts.scheme}://{parts.netloc}/{bucket}/"
    return f"{parts.scheme}://{bucket}.{parts.netloc}/"
