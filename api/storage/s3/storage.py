"""Storage ``s3``: Ceph RGW first, also MinIO and AWS. The only importer of boto3.

The calls that every upload makes go without boto3 (`api.storage.s3.calls`): with it, they were half of an upload's CPU.

Clients send to the storage by multipart only, even a single part: our create call fixes metadata, ACL and encryption,
and part URLs die at complete (a presigned single PUT obeys unsigned ``x-amz-acl`` and SSE-C headers; small files are
such PUTs, which only the edge can send: `api.storage.s3.single`). A part's URL signs host, exact length and, if the
storage compares it (`enforces_sha256`, found by probing), the body's SHA-256 as the header ``x-amz-content-sha256``
with the hash as the payload line; then nothing has to be read back.

Permissions needed on the bucket: PutObject, GetObject, DeleteObject, AbortMultipartUpload, ListMultipartUploadParts,
ListBucketMultipartUploads, ListBucket.

Differences of RGW 16 and 18 from AWS, and their treatment here:

- Complete wants every uploaded part listed: what `list_parts` answers is what is completed, or the ETags of a client
  that names all of them. An ETag chooses no bytes: what a part's URL took is bound to its hash, and a wrong ETag is
  refused (InvalidPart), upon which the parts are listed.
- A complete writes the object's head first and removes the upload last. If radosgw dies, stands still or fails in
  between, the object can be read, and loses its bytes to the next abort, lifecycle rule or repeated complete, once
  garbage collection comes hours later. Nothing that can be asked shows it: HEAD and GET say 200, a repeat says 200,
  even the first complete may. So a complete counts only if it was the only one ever sent, answered 200, and ListParts
  says 404 afterwards. Any other is `CompleteDoubtful`: `api.storage.s3.complete`.
- list_parts of a gone upload says NoSuchKey.
- A part that is sent again leaks its first copy: so a part's URL is given out 5 times at most, and not at all once the
  part is there. How often one URL is used meanwhile is counted by the edge alone: ``SLUICE_S3_VIA_EDGE``.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import boto3
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import get_cert_path

from api.core import digests, lifetimes
from api.core.config import S3Config
from api.core.errors import CompleteDoubtful, ObjectNotFound, PartMismatch, StorageError, StorageUnavailable, UploadGone
from api.storage.base import Administered, Completed, Copies, EdgePartURL, Finding, MultipartRef, Reader, SignedPart
from api.storage.http import put
from api.storage.probe import ProbedStorage, refuses_wrong_body
from api.storage.recent import Recent
from api.storage.s3 import admin as s3_admin
from api.storage.s3.bucket import Address, Bucket, error_code
from api.storage.s3.calls import ERRORS, Calls, Part, PastTheEnd
from api.storage.s3.check import Examination
from api.storage.s3.complete import Completes, wrong_parts
from api.storage.s3.sigv4 import MAX_EXPIRES, UNSIGNED, Credentials, Presigner, encode
from api.storage.s3.single import SinglePuts
from api.storage.wholeness import is_whole

TARGET_LIFE: Final = lifetimes.TARGET
"""Seconds that a GET signed for the edge lives; the edge asks again long before."""

_PAGE: Final = 1000
"""Keys per page of a listing."""

_PART_LIFE: Final = 900
"""Seconds that the URL of a part lives that is sent from here, until its first byte is."""
_READ_TIMEOUT: Final = 60.0

_LISTINGS: Final = 256
_STRANGE: Final = ("x-amz-server-side-encryption-customer-algorithm", "content-encoding")

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except ClientError as ex:
        code = str(ex.response.get("Error", {}).get("Code", ""))
        raise ERRORS.get(code, StorageUnavailable)(f"{ex.operation_name}: {code}") from ex
    except BotoCoreError as ex:
        # its text may hold a signed URL
        raise StorageUnavailable(type(ex).__name__) from ex


class _Body:
    """A response's body whose network errors are ours."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def read(self, size: int = -1, /) -> bytes:
        with _own_errors():
            data: bytes = self._body.read(None if size < 0 else size)
        return data

    def close(self) -> None:
        self._body.close()


class S3Storage(ProbedStorage, Administered, Copies):
    """See the module's docstring.

    Args:
        prefix: returns the prefix of this deployment's keys.
        now: epoch seconds.
        part_url: signs the edge's URLs, which clients get for small files, and for all parts with ``via_edge``.
    """

    def __init__(
        self,
        settings: S3Config,
        prefix: Callable[[], str],
        now: Callable[[], float] = time.time,
        part_url: EdgePartURL | None = None,
    ) -> None:
        super().__init__()
        self.leaks_resent_parts = not settings.via_edge  # there tries are counted
        self._part_url = part_url if settings.via_edge else None
        self._settings = settings
        self._prefix = prefix
        self._bucket = settings.bucket
        self._now = now
        self._credentials = Credentials(
            settings.access_key, settings.secret_key, settings.region, settings.session_token or None
        )
        self._session = boto3.session.Session()
        self._client = self._connect(settings.endpoint)
        self._internal = Address(settings, settings.endpoint)
        self._calls = Calls(self._internal, self._credentials, now, self._tls)
        self._completes = Completes(self._calls)
        self._singles = part_url and SinglePuts(self._internal, self._credentials, self._calls, now, part_url)
        self._takes_singles = False
        self._listings = Recent[dict[int, Part]](_LISTINGS)
        public = settings.public_endpoint or settings.endpoint
        self._parts = self._internal if settings.via_edge else Address(settings, public)
        self._presigners: dict[tuple[str, str, int, int], Presigner] = {}

    def _connect(self, endpoint: str) -> Any:
        style = "virtual" if self._settings.virtual_hosted else "path"
        return self._session.client(
            "s3",
            endpoint_url=endpoint,
            region_name=self._settings.region,
            aws_access_key_id=self._settings.access_key,
            aws_secret_access_key=self._settings.secret_key,
            aws_session_token=self._settings.session_token or None,
            config=BotoConfig(
                signature_version="s3v4",
                s3={"addressing_style": style},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                connect_timeout=3,
                read_timeout=_READ_TIMEOUT,
                retries={"mode": "standard", "total_max_attempts": 3},
                max_pool_connections=32,
            ),
        )

    def _tls(self) -> ssl.SSLContext:
        """Believes whom boto3 believes, and whom the system does."""
        context = ssl.create_default_context()
        context.load_verify_locations(self._session._session.get_config_variable("ca_bundle") or get_cert_path(True))
        return context

    # -- objects

    def check(self) -> None:
        with _own_errors():
            self._client.head_bucket(Bucket=self._bucket)

    def stat(self, object_key: str) -> int:
        return int(self._calls.head(object_key)["content-length"])

    def open(self, object_key: str, offset: int = 0, length: int | None = None) -> Reader:
        if length == 0:
            self._calls.head(object_key)
            return _Nothing()
        last = "" if length is None else str(offset + length - 1)
        try:
            with _own_errors():
                answer = self._client.get_object(Bucket=self._bucket, Key=object_key, Range=f"bytes={offset}-{last}")
        except PastTheEnd:
            return _Nothing()
        return _Body(answer["Body"])

    def delete(self, object_key: str) -> None:
        with _own_errors():
            self._client.delete_object(Bucket=self._bucket, Key=object_key)

    def internal_uri(self, object_key: str) -> str:
        # the URL stays the same for a quarter of its life, because the edge caches by URL
        now = int(self._now())
        signed_at = now - now % (TARGET_LIFE // 4)
        address = self._internal
        presigner = Presigner(
            self._credentials, "GET", address.base, address.path(object_key), (), signed_at, TARGET_LIFE
        )
        return presigner.sign("response-cache-control=no-store", {})

    def list_objects(self, after: str = "") -> Iterator[str]:
        prefix = f"{self._prefix()}/"
        while True:
            with _own_errors():
                page = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, StartAfter=after, MaxKeys=_PAGE)
            keys = [str(entry["Key"]) for entry in page.get("Contents", ())]
            if keys and keys[0] <= after:
                raise StorageUnavailable("a list that goes back")
            yield from keys
            if not page.get("IsTruncated") or not keys:
                return
            after = keys[-1]

    # -- multipart uploads

    def probe(self) -> bool:
        prefix = f"{self._prefix()}/probe"
        binds = refuses_wrong_body(self, prefix)
        wanted = binds and self._settings.single_put_max > 0
        self._takes_singles = wanted and self._singles is not None and self._singles.probe(prefix)
        return binds

    @property
    def single_put_max(self) -> int:
        return self._settings.single_put_max if self.enforces_sha256 and self._takes_singles else 0

    def _single(self, ref: MultipartRef) -> SinglePuts | None:
        """The handler of an upload that is one PUT; None for all other uploads."""
        if not ref.is_single:
            return None
        if self._singles is None:
            raise StorageUnavailable("nobody signs the edge's URLs here")
        return self._singles

    def create(self, ref: MultipartRef) -> str:
        return self._calls.create(ref.object_key)

    def presign_part(self, ref: MultipartRef, number: int, sha256: str, expires_at: int) -> SignedPart:
        if single := self._single(ref):
            return single.presign(ref, sha256, expires_at)
        signed = self.presign_at_storage(ref, number, sha256, expires_at)
        if self._part_url is None:
            return signed
        length = digests.part_length(number, ref.size, ref.part_size)
        return SignedPart(self._part_url(ref, number, length, expires_at, signed), {})

    def presign_at_storage(self, ref: MultipartRef, number: int, sha256: str, expires_at: int) -> SignedPart:
        return self._presign(self._parts, ref, number, sha256, expires_at)

    def _presign(self, address: Address, ref: MultipartRef, number: int, sha256: str, expires_at: int) -> SignedPart:
        if not ref.multipart_id or ref.is_single:
            raise UploadGone("an empty upload id would make the URL a plain PUT of the object")
        length = digests.part_length(number, ref.size, ref.part_size)
        now = int(self._now())
        names = ("content-length", "x-amz-content-sha256") if ref.binds_hash else ("content-length",)
        presigner = self._presigner(address, ref, names, now, min(expires_at - now, MAX_EXPIRES))
        upload = encode(ref.multipart_id)
        values = {"content-length": str(length), "x-amz-content-sha256": sha256}
        url = presigner.sign(
            f"partNumber={number}&uploadId={upload}",
            values,
            sha256 if ref.binds_hash else UNSIGNED,
            shown=f"uploadId={upload}&partNumber={number}",
        )
        return SignedPart(url, {"x-amz-content-sha256": sha256} if ref.binds_hash else {})

    def _presigner(
        self, address: Address, ref: MultipartRef, names: tuple[str, ...], now: int, expires: int
    ) -> Presigner:
        """The presigner that the parts of one call share."""
        wanted = (address.base, ref.object_key, now, expires)
        found = self._presigners.get(wanted)
        if found is None:
            path = address.path(ref.object_key)
            found = Presigner(self._credentials, "PUT", address.base, path, names, now, expires)
            self._presigners = {wanted: found}
        return found

    def write_part(self, ref: MultipartRef, number: int, body: Iterable[bytes], sha256: str) -> None:
        # not by boto3: it would read the body twice in order to sign its hash
        signed = self._presign(self._internal, ref, number, sha256, int(self._now()) + _PART_LIFE)
        length = digests.part_length(number, ref.size, ref.part_size)
        answer = put(signed.url, signed.headers, length, body, _READ_TIMEOUT)
        if answer.status >= 300:
            code = error_code(answer)
            raise ERRORS.get(code, StorageUnavailable)(f"part {number}: {answer.status} {code}")

    def list_parts(self, ref: MultipartRef) -> dict[int, int]:
        if single := self._single(ref):
            return single.received(ref)
        listed = self._listed(ref)
        self._listings.keep(ref.multipart_id, listed)
        return {number: size for number, (size, _) in listed.items()}

    def _listed(self, ref: MultipartRef) -> dict[int, Part]:
        """(size, ETag) of every stored part."""
        return self._calls.list_parts(ref.object_key, ref.multipart_id)

    def believe(self, ref: MultipartRef, etags: Mapping[int, str]) -> bool:
        numbers = range(1, ref.part_count + 1)
        if ref.is_single or not ref.binds_hash or etags.keys() != set(numbers):
            return False
        lengths = {number: digests.part_length(number, ref.size, ref.part_size) for number in numbers}
        self._listings.keep(ref.multipart_id, {number: (lengths[number], etags[number]) for number in numbers})
        return True

    def complete(self, ref: MultipartRef, hashes: bytes, keep_alive: Callable[[], None]) -> Completed:
        keep_alive()
        if single := self._single(ref):
            try:
                return _judge(ref, single.head(ref))
            except ObjectNotFound as ex:
                raise PartMismatch([1]) from ex
        if ref.completes_sent:
            raise CompleteDoubtful("a complete was sent before, and how it ended is not known")
        recent = self._listings.take(ref.multipart_id)
        # S3 refuses a list that is not right any more
        if recent is not None and not wrong_parts(ref, recent):
            try:
                return self._completes.once(ref, recent)
            except CompleteDoubtful:
                raise
            except StorageUnavailable as ex:  # it was refused
                _log.info("complete is tried with a new list", extra={"error": str(ex)})
        listed = self._listed(ref)
        if wrong := wrong_parts(ref, listed):
            raise PartMismatch(wrong)
        return self._completes.once(ref, listed)

    def copy_completed(self, ref: MultipartRef, object_key: str, keep_alive: Callable[[], None]) -> Completed:
        keep_alive()
        self._completes.bring(ref, object_key, keep_alive)
        if not is_whole(self, object_key, ref.size):
            raise StorageUnavailable("a copy cannot be read from its first to its last byte")
        return Completed(verified=ref.binds_hash, sha256=None)

    def copy(self, source_key: str, object_key: str, size: int, keep_alive: Callable[[], None]) -> None:
        self._completes.copy(source_key, object_key, size, keep_alive)

    def abort(self, ref: MultipartRef) -> None:
        if single := self._single(ref):
            single.delete(ref)
            return
        # a create whose answer was lost left an upload that no row names: all of the key's are aborted
        self._calls.abort_all(ref.object_key)

    def abort_strays(self, ref: MultipartRef) -> bool:
        return self._calls.abort_strays(ref.object_key, ref.multipart_id)

    def list_uploads(self) -> Iterator[str]:
        for key, _ in self._calls.open_uploads(f"{self._prefix()}/"):
            yield key.rpartition("/")[2]

    # -- for operators

    @property
    def place(self) -> str:
        return f"{self._settings.endpoint} bucket {self._bucket}"

    def init(self, origins: Sequence[str]) -> Iterator[str]:
        return s3_admin.prepare(self._whole_bucket(), self._prefix(), origins)

    def checks(self, origins: Sequence[str]) -> Iterator[Finding]:
        return Examination(self, self._whole_bucket(), self._settings, self._prefix(), self._now).run(origins)

    def _whole_bucket(self) -> Bucket:
        return Bucket(self._settings, self._credentials, self._now)


def _judge(ref: MultipartRef, head: Mapping[str, str]) -> Completed:
    """A small object is what the edge's fixed list of headers made it: right size, in the clear, with no encoding."""
    strange = [name for name in _STRANGE if head.get(name)]
    if int(head["content-length"]) != ref.size or strange:
        raise StorageError(f"the object has {head['content-length']} bytes and {strange}")
    return Completed(verified=ref.binds_hash, sha256=None)


class _Nothing:
    """No bytes."""

    def read(self, size: int = -1, /) -> bytes:
        return b""

    def close(self) -> None:
        """Nothing is held."""
