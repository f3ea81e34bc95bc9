"""Storage ``oss``: Aliyun OSS. The only importer of oss2, which makes the calls; part URLs are signed by `oss_v4`.

Not run against the real OSS by its authors: signatures stand on the official vectors and on oss2's results, the rest on
Alibaba's documentation and a strict stand-in (tests/storage/oss_standin.py). Live tests are switched on by environment.

OSS compares a body with nothing that we could sign but its MD5, which nobody has: a blob is read back before it counts
as verified. A part's URL binds upload, part number and exact length (V4; V1, for old accounts, cannot bind the length,
and complete looks at the lengths in either case), and a client that adds ``x-oss-*`` headers or a Content-Type is
refused.

Permissions needed: oss:PutObject, GetObject, DeleteObject, AbortMultipartUpload, ListParts, ListMultipartUploads,
ListObjects.

What is done about the traps of OSS and oss2:

- oss2 repeats nothing: calls that may be repeated are, three times, with pauses.
- oss2's ``connect_timeout`` is the time of every read as well, unless it is a pair.
- oss2's list of parts leaves out their CRC64: the answer is parsed here.
- OSS goes on with a complete whose client has gone away, and answers a repeated one with 404: after any error the
  object is looked at first. If it is there with its size and CRC64, it is there for good: by its documentation ("After
  CompleteMultipartUpload, no operation is allowed with the upload ID", page AbortMultipartUpload) an abort deletes
  nothing then, and a rule that aborts uploads neither, unlike with Ceph's RGW. It is read back all the same. If neither
  object nor upload is there, an earlier complete may be at work still: `_LOOKS` looks, over half an hour, decide.
- A range past the end is answered with the whole object, unless ``x-oss-range-behavior: standard`` is sent. It is part
  of the signature: who uses `internal_uri` must send `TARGET_HEADERS`.
- requests takes passwords from ~/.netrc and puts them in the place of our signature; oss2 logs headers at DEBUG.
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
"""Seconds that a GET signed for the edge lives; the edge asks again long before."""

TARGET_HEADERS: Final[Mapping[str, str]] = {"x-oss-range-behavior": "standard"}
"""What must be sent with such a GET: it is signed."""

_CRC: Final = "x-oss-hash-crc64ecma"
_TIMEOUTS: Final = (3, 60)
"""Seconds for a connection, and for each read."""

_LOOKS: Final = 10
"""Looks for the object of a complete whose answer was lost, until it counts as gone; a job's pauses double."""

_TRIES: Final = 3
_PAUSE: Final = 0.2
"""Seconds that the first pause has at most; each further one twice as many."""

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
logging.getLogger("oss2").setLevel(logging.WARNING)


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except OssError as ex:
        raise translate(type(ex).__name__, ex.status, ex.code, ex.request_id) from ex
    except OSError as ex:  # a body that broke off; requests' errors are OSErrors
        raise Passing(type(ex).__name__) from ex
    except (ElementTree.ParseError, RuntimeError, ValueError) as ex:
        raise Passing(f"an answer that cannot be read: {type(ex).__name__}") from ex


class OSSStorage(MultipartStorage, Administered):
    """See the module's docstring.

    Args:
        prefix: answers what this deployment's keys begin with.
        now: epoch seconds.
        sleep: waits between two tries.

    Raises:
        ConfigError: settings that oss2 or OSS would not take.
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
        """A Bucket on one endpoint; oss2 has one for both signing and calling, so there are two of it."""
        given = self._settings
        session = oss2.Session(pool_size=32)
        session.session.auth = lambda request: request  # or ~/.netrc's entry for the host would take its place
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
                connect_timeout=_TIMEOUTS,
                enable_crc=False,  # it would be crcmod's; see `crc64`
                region=given.region,
            )
        except OssError as ex:
            raise ConfigError([f"SLUICE_OSS_BUCKET {given.bucket} or the endpoint {endpoint}: {ex.body}"]) from ex

    def _call(self, call: Callable[[], _T], tries: int = _TRIES) -> _T:
        """Calls what may be repeated, again where the failure may be over in a moment."""
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
        # the whole span at random, so that many who failed together do not come back together
        self._sleep(random.uniform(0, _PAUSE * 2 ** (done - 1)))  # noqa: S311 - no secret

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
            self.check()  # raises where it is the bucket that is missing
            raise

    def stat(self, object_key: str) -> int:
        length = self._head(object_key).content_length
        if length is None:
            raise StorageUnavailable("an answer without a length")
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
            raise StorageUnavailable(f"a range was answered with {answer.status}, {answer.content_length} bytes")
        crc = answer.headers.get(_CRC) if whole else None  # of the whole object, in every answer
        return Body(answer, answer.content_length, None if crc is None else int(crc))

    def delete(self, object_key: str) -> None:
        with contextlib.suppress(ObjectNotFound):
            self._call(lambda: self._internal.delete_object(object_key).resp.read())

    def internal_uri(self, object_key: str) -> str:
        """A signed GET; it must be sent with `TARGET_HEADERS`."""
        # one URL a quarter of its life: what the edge caches by it stays the same
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
                raise StorageUnavailable("a list that goes back")
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
        expires = min(expires_at - int(time.time()), MAX_EXPIRES)  # oss2 takes any, and adds the time again
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
            sent.reraise()  # what the body raised was not the connection's fault
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
        """A thousand parts, and the number behind which to go on."""
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
                if 0 < ref.completes_sent < _LOOKS:
                    raise Passing(f"an earlier complete may be at work still: {ex}") from ex
                raise
        numbers = range(1, ref.part_count + 1)
        lengths = {number: digests.part_length(number, ref.size, ref.part_size) for number in numbers}
        wrong = [number for number in numbers if number not in listed or listed[number].size != lengths[number]]
        if wrong:
            raise PartMismatch(wrong)
        parts = [listed[number] for number in numbers]
        sums = [(part.crc, part.size) for part in parts if part.crc is not None]
        crc = crc64.combine(sums) if len(sums) == len(parts) else None
        for done in range(1, _TRIES + 1):
            try:
                self._complete_once(ref, parts)
                break
            except StorageError as ex:
                _log.warning("complete failed; the object decides", extra={"error": str(ex)})
                try:
                    return self._completed_before(ref, crc)
                except UploadGone:
                    if not isinstance(ex, Passing):
                        # after a try whose answer was lost, "no such upload" may mean that it is still at work
                        raise ex if done == 1 and not ref.completes_sent else Passing(f"not known yet: {ex}") from ex
                    if done == _TRIES:
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
        """What an earlier complete left, whose answer was lost. Raises UploadGone where there is no object."""
        try:
            return self._judge(ref, self._head(ref.object_key), crc)
        except ObjectNotFound as ex:
            raise UploadGone(str(ex)) from ex

    def _judge(self, ref: MultipartRef, head: Any, crc: int | None) -> Completed:
        """The object is what our own create call made of the parts: right size, no encoding, their CRC64.

        Where the CRC64 is another one, a repeated complete finds the object and no parts to compare it with;
        reading back then says what it holds.
        """
        encoding = head.headers.get("content-encoding")
        if head.content_length != ref.size or encoding:
            raise StorageError(f"the object has {head.content_length} bytes, encoding {encoding}")
        if crc is not None and int(head.headers.get(_CRC, crc)) != crc:
            raise StorageError("the object's CRC64 is not that of its parts")
        return Completed(verified=False, sha256=None)

    def abort(self, ref: MultipartRef) -> None:
        # a create whose answer was lost left an upload that no row names: all of the key's are aborted
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
        """See `oss_admin.WholeBucket`; so the next two."""
        try:
            self.check()
        except StorageUnavailable as ex:
            if not str(ex).startswith("NoSuchBucket"):
                raise
            self._call(lambda: self._internal.create_bucket(oss2.BUCKET_ACL_PRIVATE), tries=1)
            return True
        return False

    def read_configuration(self, name: str) -> bytes | None:
        # oss2 parses these into shapes of its own, which would lose what it does not know
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
    """What the addresses of a bucket's objects begin with; the bucket is the host's first label."""
    parts = urlsplit(endpoint)
    if is_ip_or_localhost(parts.netloc):  # so does oss2
        return f"{parts.scheme}://{parts.netloc}/{bucket}/"
    return f"{parts.scheme}://{bucket}.{parts.netloc}/"
