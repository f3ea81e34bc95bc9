"""Parts through a real nginx into a real Ceph: the storage fulfils its contract, and only signed parts are stored."""

import hashlib
import os
import time
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from api.core.config import S3Config
from api.core.errors import StorageError, UploadGone
from api.core.tokens import Tokens
from api.storage.base import MultipartRef
from api.storage.s3.storage import S3Storage
from api.uploads import part_urls
from tests.nginx.edge import Edge, Reply
from tests.storage.contract import PART, PREFIX, Content, MultipartContract, Put, nothing, read
from tests.vectors import make_tokens

TOKENS = Tokens(make_tokens.KEYS)


@pytest.fixture
def config(s3_config: S3Config) -> S3Config:
    """A bucket whose public endpoint cannot be reached."""
    return replace(s3_config, via_edge=True, public_endpoint="http://127.0.0.1:9")


@pytest.fixture
def storage(config: S3Config, edge: Edge) -> S3Storage:
    return S3Storage(
        config, lambda: PREFIX, part_url=part_urls.through_edge(TOKENS, f"http://127.0.0.1:{edge.port}", "main")
    )


def sign(storage: S3Storage, ref: MultipartRef, number: int, data: bytes, life: int = 60) -> str:
    signed = storage.presign_part(ref, number, hashlib.sha256(data).hexdigest(), int(time.time()) + life)
    assert signed.headers == {}
    return urlsplit(signed.url).path


class TestThroughTheEdge(MultipartContract):
    binds_hash = True

    @pytest.fixture
    def storage(self, storage: S3Storage) -> S3Storage:
        return storage

    @pytest.fixture
    def put(self, storage: S3Storage, edge: Edge) -> Put:
        def send(ref: MultipartRef, number: int, data: bytes) -> bool:
            try:
                return edge.ask("PUT", sign(storage, ref, number, data), body=data).status == 200
            except UploadGone:
                return False

        return send


class TestThroughTheEdgeWithoutBoundHashes(TestThroughTheEdge):
    binds_hash = False


@pytest.fixture
def upload(storage: S3Storage) -> Content:
    """An open upload of two parts."""
    content = Content(os.urandom(PART + 10), binds_hash=True)
    content.open(storage)
    return content


def put(
    edge: Edge, storage: S3Storage, upload: Content, number: int = 1, body: bytes | None = None, **options: int
) -> Reply:
    path = sign(storage, upload.ref, number, upload.part(number), **options)
    return edge.ask("PUT", path, body=upload.part(number) if body is None else body)


def test_enforcement_is_probed_at_the_internal_endpoint(storage: S3Storage) -> None:
    assert storage.enforces_sha256


def test_the_token_holds_the_internal_url(storage: S3Storage, upload: Content, config: S3Config) -> None:
    claims = TOKENS.unseal(sign(storage, upload.ref, 2, upload.part(2)).removeprefix("/p/"))
    to = claims.url
    assert to.startswith(f"{config.endpoint}/{config.bucket}/{PREFIX}/")
    assert f"uploadId={upload.ref.multipart_id}&partNumber=2&" in to
    assert claims.exp > time.time()
    told: dict[str, Any] = msgspec.to_builtins(claims)
    assert (told.pop("to"), told.pop("exp")) == (to, claims.exp)
    assert told == {
        "upload": upload.ref.upload_id, "part": 2, "size": 10, "sub": upload.ref.user_id, "sid": "0" * 32, "gen": 0,
        "tier": "default", "storage": "main", "sha256": hashlib.sha256(upload.part(2)).hexdigest(),
    }  # fmt: skip


def test_tries_are_counted_so_signings_are_not(storage: S3Storage, s3_config: S3Config) -> None:
    assert not storage.leaks_resent_parts
    assert S3Storage(s3_config, lambda: PREFIX).leaks_resent_parts


def test_a_url_that_does_not_fit_into_a_token_is_reported(config: S3Config) -> None:
    part_url = part_urls.through_edge(TOKENS, "http://127.0.0.1", "main")
    storage = S3Storage(replace(config, session_token="t" * 4000), lambda: PREFIX, part_url=part_url)
    with pytest.raises(StorageError, match="too long"):
        storage.presign_part(replace(Content(b"x").ref, multipart_id="x"), 1, "0" * 64, int(time.time()) + 60)


def test_another_body_is_refused_and_the_upload_goes_on(edge: Edge, storage: S3Storage, upload: Content) -> None:
    reply = put(edge, storage, upload, body=os.urandom(PART))
    assert (reply.status, reply.code) == (400, "PART_HASH_MISMATCH")
    assert storage.list_parts(upload.ref) == {}
    assert put(edge, storage, upload).status == 200
    assert put(edge, storage, upload, 2).status == 200
    assert storage.list_parts(upload.ref) == {1: PART, 2: 10}
    assert storage.complete(upload.ref, upload.hashes, nothing).verified
    assert read(storage, upload.ref.object_key) == upload.data


@pytest.mark.parametrize("length", [0, 1, PART - 1, PART + 1])
def test_another_length_is_refused(edge: Edge, storage: S3Storage, upload: Content, length: int) -> None:
    reply = put(edge, storage, upload, body=(upload.part(1) + b"x")[:length])
    assert reply.status in (400, 411)
    assert storage.list_parts(upload.ref) == {}


@pytest.mark.parametrize("size", [1, 2**23])
def test_a_part_of_an_upload_that_is_gone(edge: Edge, storage: S3Storage, size: int) -> None:
    content = Content(os.urandom(size), binds_hash=True)
    content.ref = replace(content.ref, part_size=size, part_count=1)
    content.ref = replace(content.ref, multipart_id=storage.create(content.ref))
    path = sign(storage, content.ref, 1, content.data)
    storage.abort(content.ref)
    reply = edge.ask("PUT", path, body=content.data)
    assert (reply.status, reply.code) == (409, "UPLOAD_NOT_OPEN")


def test_a_url_is_dead_after_complete(edge: Edge, storage: S3Storage, upload: Content) -> None:
    path = sign(storage, upload.ref, 1, upload.part(1))
    assert put(edge, storage, upload).status == put(edge, storage, upload, 2).status == 200
    storage.complete(upload.ref, upload.hashes, nothing)
    reply = edge.ask("PUT", path, body=upload.part(1))
    assert (reply.status, reply.code) == (409, "UPLOAD_NOT_OPEN")
    assert read(storage, upload.ref.object_key) == upload.data


def test_a_client_cannot_reach_what_was_not_signed(edge: Edge, storage: S3Storage, upload: Content) -> None:
    path = sign(storage, upload.ref, 1, upload.part(1))
    for tail in ("?uploads", "?acl", "/../other", "?uploadId=x&partNumber=2"):
        edge.ask("PUT", path + tail, body=upload.part(1))
        assert storage.list_parts(upload.ref) in ({}, {1: PART})
    for method in ("GET", "DELETE", "POST"):
        assert edge.ask(method, path).status == 405


def test_unsigned_headers_do_not_reach_the_storage(
    edge: Edge, storage: S3Storage, upload: Content, config: S3Config
) -> None:
    victim = Content(os.urandom(PART), binds_hash=True)
    victim.open(storage)
    assert put(edge, storage, victim).status == 200
    storage.complete(victim.ref, victim.hashes, nothing)
    for headers in (
        {"x-amz-copy-source": f"/{config.bucket}/{victim.ref.object_key}"},
        {"x-amz-acl": "public-read"},
        {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"},
        {"Authorization": "AWS4-HMAC-SHA256 x"},
        {"Content-Encoding": "aws-chunked"},
    ):
        path = sign(storage, upload.ref, 1, upload.part(1))
        assert edge.ask("PUT", path, body=upload.part(1), headers=headers).status == 200
    assert put(edge, storage, upload, 2).status == 200
    storage.complete(upload.ref, upload.hashes, nothing)
    assert read(storage, upload.ref.object_key) == upload.data
