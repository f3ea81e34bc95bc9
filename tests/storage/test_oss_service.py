"""Assumptions about OSS, tested against the stand-in and, if an account is available, against the real one.

The real one is used if SLUICE_TEST_OSS_ENDPOINT, _BUCKET, _REGION, _ACCESS_KEY, _SECRET_KEY and, with temporary
keys, _SESSION_TOKEN are set. Everything is made below a private prefix and deleted again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from api.core.config import OSSConfig
from api.core.errors import ObjectNotFound, PartMismatch, StorageError, StorageUnavailable, UploadGone
from api.storage.base import MultipartRef
from api.storage.oss.storage import TARGET_HEADERS, OSSStorage
from tests.storage.contract import nothing, read
from tests.storage.oss_bucket import Bucket
from tests.storage.oss_client import send
from tests.storage.oss_standin import ACCOUNT, running
from tests.storage.signed import request

PART = 100 * 1024
"""The smallest size that OSS accepts."""

NAMES = ("ENDPOINT", "BUCKET", "REGION", "ACCESS_KEY", "SECRET_KEY")


def live_settings() -> OSSConfig:
    """The settings of the real one; skips if there are none."""
    given = {name.lower(): os.environ.get(f"SLUICE_TEST_OSS_{name}", "") for name in (*NAMES, "SESSION_TOKEN")}
    missing = [f"SLUICE_TEST_OSS_{name}" for name in NAMES if not given[name.lower()]]
    if missing:
        pytest.skip(f"NOT RUN AGAINST REAL OSS: {', '.join(missing)} not set")
    return OSSConfig(**given, public_endpoint="", signature="v4")


@pytest.fixture(params=["stand-in", "real"])
def config(request: pytest.FixtureRequest) -> Iterator[OSSConfig]:
    if request.param == "real":
        yield live_settings()
    else:
        with running(ACCOUNT, Bucket()) as standin:
            yield standin.settings()


@pytest.fixture
def storage(config: OSSConfig) -> OSSStorage:
    return OSSStorage(config, lambda: "sluice-test")


@dataclass
class Upload:
    """Three parts, the last of them short."""

    data: bytes
    ref: MultipartRef

    def part(self, number: int) -> bytes:
        return self.data[(number - 1) * PART : number * PART]

    def send(self, storage: OSSStorage, *numbers: int) -> None:
        assert all(send(storage, self.ref, number, self.part(number)) for number in numbers)


@pytest.fixture
def upload(storage: OSSStorage) -> Iterator[Upload]:
    """An open upload, aborted afterwards."""
    upload_id, data = os.urandom(16).hex(), os.urandom(2 * PART + 9)
    key = f"sluice-test/{upload_id[-2:]}/{upload_id}"
    ref = MultipartRef(upload_id, key, "", len(data), PART, 3, "0" * 32, 0)
    try:
        yield Upload(data, replace(ref, multipart_id=storage.create(ref)))
    finally:
        storage.abort(ref)
        storage.delete(key)


@pytest.fixture
def done(storage: OSSStorage, upload: Upload) -> Upload:
    """A completed upload."""
    upload.send(storage, 1, 2, 3)
    storage.complete(upload.ref, b"", nothing)
    return upload


def part_url(storage: OSSStorage, upload: Upload) -> str:
    return storage.presign_part(upload.ref, 1, "0" * 64, int(time.time()) + 60).url


def test_parts_become_the_object_and_a_repeated_complete_finds_it(storage: OSSStorage, upload: Upload) -> None:
    storage.check()
    assert storage.list_parts(upload.ref) == {}
    upload.send(storage, 3, 1)
    assert storage.list_parts(upload.ref) == {1: PART, 3: 9}
    assert upload.ref.upload_id in set(storage.list_uploads())
    with pytest.raises(PartMismatch):
        storage.complete(upload.ref, b"", nothing)
    upload.send(storage, 2)
    assert {part.crc is not None for part in storage._listed(upload.ref).values()} == {True}
    for _ in range(2):
        assert not storage.complete(upload.ref, b"", nothing).verified
    assert storage.stat(upload.ref.object_key) == len(upload.data)
    assert upload.ref.upload_id not in set(storage.list_uploads())
    assert not send(storage, upload.ref, 1, upload.part(1))


def test_a_part_url_takes_that_part_alone(storage: OSSStorage, upload: Upload) -> None:
    url, part = part_url(storage, upload), upload.part(1)
    for body in (b"", part[:-1], part + b"x"):
        assert request("PUT", url, {}, body)[0] == 403
    for headers in (
        {"Content-Type": "text/html"},
        {"Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="},
        {"x-oss-object-acl": "public-read"},
        {"x-oss-copy-source": f"/bucket/{upload.ref.object_key}"},
    ):
        assert request("PUT", url, headers, part)[0] == 403
    assert request("PUT", url.replace("partNumber=1", "partNumber=2"), {}, part)[0] == 403
    assert request("GET", url, {})[0] == 403
    assert storage.list_parts(upload.ref) == {}
    assert request("PUT", url, {}, part)[0] == 200


def test_an_aborted_upload_is_gone(storage: OSSStorage, upload: Upload) -> None:
    upload.send(storage, 1)
    url = part_url(storage, upload)
    for _ in range(2):
        storage.abort(upload.ref)
    assert request("PUT", url, {}, upload.part(1))[0] == 404
    with pytest.raises(UploadGone):
        storage.list_parts(upload.ref)
    with pytest.raises(UploadGone):
        storage.complete(upload.ref, b"", nothing)


def test_parts_below_the_least_size_are_refused_at_complete(storage: OSSStorage, upload: Upload) -> None:
    small = Upload(upload.data[:20], replace(upload.ref, size=20, part_size=10, part_count=2))
    for number in (1, 2):
        assert send(storage, small.ref, number, small.data[:10])
    with pytest.raises(StorageUnavailable, match="EntityTooSmall"):
        storage.complete(small.ref, b"", nothing)


def test_an_object_is_not_overwritten(storage: OSSStorage, done: Upload) -> None:
    with pytest.raises(StorageError, match="FileAlreadyExists"):
        storage.create(done.ref)


def test_any_range_is_read(storage: OSSStorage, done: Upload) -> None:
    size, key = len(done.data), done.ref.object_key
    assert read(storage, key) == done.data
    for offset, length in ((0, 1), (PART - 1, 2), (5, size), (size - 1, 1), (size, 1), (2 * size, 5), (3, 0)):
        assert read(storage, key, offset, length) == done.data[offset : offset + length]
    assert read(storage, key, 7) == done.data[7:]


def test_the_edges_get_needs_its_header_and_clips_ranges(storage: OSSStorage, done: Upload) -> None:
    url, size = storage.internal_uri(done.ref.object_key), len(done.data)
    assert request("GET", url, TARGET_HEADERS) == (200, done.data)
    assert request("GET", url, {})[0] == 403
    assert request("HEAD", url, TARGET_HEADERS)[0] == 403
    assert request("GET", url, {**TARGET_HEADERS, "Range": f"bytes=9-{size}"}) == (206, done.data[9:])
    assert request("GET", url, {**TARGET_HEADERS, "Range": f"bytes={size}-"})[0] == 416


def test_a_deleted_object_is_not_there(storage: OSSStorage, done: Upload) -> None:
    for _ in range(2):
        storage.delete(done.ref.object_key)
    with pytest.raises(ObjectNotFound):
        storage.stat(done.ref.object_key)
    with pytest.raises(ObjectNotFound):
        storage.open(done.ref.object_key)


@pytest.mark.parametrize("signature", ["v4", "v1"])
def test_a_wrong_secret_is_refused(config: OSSConfig, signature: str) -> None:
    wrong = replace(config, secret_key="wrong", signature=signature)
    with pytest.raises(StorageUnavailable, match="SignatureDoesNotMatch"):
        OSSStorage(wrong, lambda: "sluice-test").check()
