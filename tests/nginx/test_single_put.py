"""A whole object by one PUT, through a real nginx into a real Ceph: only what was signed is stored.

Clients can reach the endpoint here, like a bucket with a public endpoint, and may try everything that they have seen.
"""

import hashlib
import os
import time
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from api.core.claims import PartClaims
from api.core.config import S3Config
from api.core.errors import ObjectNotFound, PartMismatch, UploadGone
from api.core.models import SINGLE_PUT
from api.core.tokens import Tokens
from api.storage.base import MultipartRef
from api.storage.http import Answer, ask
from api.storage.s3.storage import S3Storage
from api.uploads import part_urls
from tests.nginx.edge import Edge, Reply
from tests.storage.contract import PREFIX, nothing, read
from tests.vectors import make_tokens

SIZES = [1, 64 * 1024, 8 * 1024**2]
TOKENS = Tokens(make_tokens.KEYS)


@pytest.fixture(params=[False, True], ids=["open", "via_edge"])
def storage(s3_config: S3Config, edge: Edge, request: pytest.FixtureRequest) -> S3Storage:
    config = replace(s3_config, via_edge=request.param)
    return S3Storage(
        config, lambda: PREFIX, part_url=part_urls.through_edge(TOKENS, f"http://127.0.0.1:{edge.port}", "main")
    )


class Object:
    """One upload by one PUT: its bytes, its names, and its URL."""

    def __init__(self, storage: S3Storage, edge: Edge, size: int = 64 * 1024, life: int = 60) -> None:
        self.storage, self.edge = storage, edge
        self.data = os.urandom(size)
        upload = os.urandom(16).hex()
        key = f"{PREFIX}/{upload[-2:]}/{upload}"
        self.ref = MultipartRef(upload, key, SINGLE_PUT, size, 8 * 1024**2, 1, "0" * 32, 0, binds_hash=True)
        sha256 = hashlib.sha256(self.data).hexdigest()
        self.signed = storage.presign_part(self.ref, 1, sha256, int(time.time()) + life)
        self.path = urlsplit(self.signed.url).path

    def put(self, body: bytes | None = None, headers: Mapping[str, str] | None = None, method: str = "PUT") -> Reply:
        return self.edge.ask(method, self.path, body=self.data if body is None else body, headers=headers or {})

    @property
    def claims(self) -> PartClaims:
        return TOKENS.unseal(self.path.removeprefix("/p/"))

    def is_there(self) -> bool:
        try:
            return self.storage.stat(self.ref.object_key) >= 0
        except ObjectNotFound:
            return False

    def directly(self, tail: str = "", headers: Mapping[str, str] | None = None) -> Answer:
        """Attempts of a client at the storage itself, with all that its token reveals."""
        to, sha256 = self.claims.url, self.claims.sha256
        given = {"x-amz-content-sha256": sha256, "if-none-match": "*", "content-type": "application/octet-stream"}
        return ask("PUT", to + tail, {**given, **(headers or {})}, self.data)


@pytest.fixture
def thing(storage: S3Storage, edge: Edge) -> Object:
    return Object(storage, edge)


def test_the_storage_was_found_to_keep_what_is_signed(storage: S3Storage) -> None:
    assert storage.single_put_max == 8 * 1024**2


def test_nothing_is_offered_if_it_is_turned_off(s3_config: S3Config) -> None:
    part_url = part_urls.through_edge(TOKENS, "http://127.0.0.1", "main")
    assert S3Storage(replace(s3_config, single_put_max=0), lambda: PREFIX, part_url=part_url).single_put_max == 0
    assert S3Storage(s3_config, lambda: PREFIX).single_put_max == 0


def test_nothing_is_offered_if_the_storage_compares_nothing(
    s3_config: S3Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage that accepts any body, and one that replaces objects."""
    part_url = part_urls.through_edge(TOKENS, "http://127.0.0.1", "main")
    for answers in ([200, 200, 412], [400, 200, 200], [400, 501, 501]):
        storage = S3Storage(s3_config, lambda: PREFIX, part_url=part_url)
        left = list(answers)

        def fake(method: str, url: str, headers: Any, body: bytes, left: list[int] = left) -> Answer:
            return Answer(left.pop(0), {}, b"")

        monkeypatch.setattr("api.storage.s3.single.ask", fake)
        assert storage.enforces_sha256
        assert storage.single_put_max == 0
        assert not left


@pytest.mark.parametrize("size", SIZES)
def test_an_object_is_stored_and_completed(storage: S3Storage, edge: Edge, size: int) -> None:
    thing = Object(storage, edge, size)
    assert thing.signed.headers == {}
    assert storage.list_parts(thing.ref) == {}
    with pytest.raises(PartMismatch):
        storage.complete(thing.ref, b"", nothing)
    reply = thing.put()
    assert reply.status == 200
    assert reply.headers["ETag"] == f'"{hashlib.md5(thing.data).hexdigest()}"'  # noqa: S324 - what S3 calls it
    assert storage.list_parts(thing.ref) == {1: size}
    for _ in range(2):
        assert storage.complete(thing.ref, hashlib.sha256(thing.data).digest(), nothing).verified
    assert read(storage, thing.ref.object_key) == thing.data


@pytest.mark.parametrize("size", SIZES)
def test_a_lost_answer_is_given_again(storage: S3Storage, edge: Edge, size: int) -> None:
    thing = Object(storage, edge, size)
    assert thing.put().status == 200
    for _ in range(2):
        again = thing.put()
        assert (again.status, again.body) == (200, b"")
    assert storage.complete(thing.ref, b"", nothing).verified
    assert thing.put().status == 200
    assert read(storage, thing.ref.object_key) == thing.data


def test_tries_are_counted(thing: Object) -> None:
    for _ in range(5):
        assert thing.put().status == 200
    assert (thing.put().status, thing.put().code) == (429, "PART_TRIES_LIMITED")


@pytest.mark.parametrize("size", SIZES[1:])
def test_another_body_is_refused(storage: S3Storage, edge: Edge, size: int) -> None:
    thing = Object(storage, edge, size)
    reply = thing.put(os.urandom(size))
    assert (reply.status, reply.code) == (400, "PART_HASH_MISMATCH")
    assert not thing.is_there()
    assert thing.put().status == 200
    reply = thing.put(os.urandom(size))
    assert reply.status in (200, 400)
    assert read(storage, thing.ref.object_key) == thing.data


@pytest.mark.parametrize("change", [-1, 1, -65536])
def test_another_length_is_refused(thing: Object, change: int) -> None:
    reply = thing.put((thing.data + b"x")[: len(thing.data) + change])
    assert reply.status in (400, 411)
    assert not thing.is_there()


def test_a_body_in_chunks_is_refused(thing: Object) -> None:
    head = f"PUT {thing.path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    answer = thing.edge.raw(head.encode() + b"10000\r\n" + thing.data + b"\r\n0\r\n\r\n")
    assert b" 411 " in answer.split(b"\r\n")[0]
    assert not thing.is_there()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "PATCH"])
def test_other_methods_are_refused(thing: Object, method: str) -> None:
    assert thing.put(method=method).status == 405
    assert not thing.is_there()


HOSTILE = [
    {"x-amz-acl": "public-read"},
    {"x-amz-grant-read": 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'},
    {"x-amz-meta-a": "b"},
    {"Content-Type": "text/html"},
    {"Content-Encoding": "aws-chunked"},
    {"Content-Encoding": "gzip"},
    {"If-None-Match": "no"},
    {"If-Match": "*"},
    {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"},
    {"x-amz-copy-source": "/bucket/key"},
    {"x-amz-website-redirect-location": "https://evil.example/"},
    {"Authorization": "AWS4-HMAC-SHA256 x"},
    {
        "x-amz-server-side-encryption-customer-algorithm": "AES256",
        "x-amz-server-side-encryption-customer-key": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        "x-amz-server-side-encryption-customer-key-md5": "hRasmdxgYDKV3nvbahU1MA==",
    },
]


@pytest.mark.parametrize("headers", HOSTILE, ids=lambda headers: next(iter(headers)))
def test_headers_of_the_clients_do_not_reach_the_storage(
    thing: Object, s3_config: S3Config, headers: dict[str, str]
) -> None:
    assert thing.put(headers=headers).status == 200
    head = thing.storage._calls.head(thing.ref.object_key)
    assert head["content-type"] == "application/octet-stream"
    assert int(head["content-length"]) == len(thing.data)
    assert not [name for name in head if name.startswith(("x-amz-meta", "x-amz-server-side", "content-encoding"))]
    assert ask("GET", f"{s3_config.endpoint}/{s3_config.bucket}/{thing.ref.object_key}").status == 403
    assert read(thing.storage, thing.ref.object_key) == thing.data


class TestTokens:
    """The token contains a URL that the storage would accept with any header. A client cannot read it."""

    def test_say_nothing(self, thing: Object, s3_config: S3Config) -> None:
        token = thing.path.removeprefix("/p/")
        seen = token.encode() + urlsafe_b64decode(token + "=" * (-len(token) % 4))
        claims = thing.claims
        for secret in (
            s3_config.bucket,
            s3_config.access_key,
            thing.ref.object_key,
            claims.url[-64:],
            claims.sha256,
        ):
            assert secret.encode() not in seen

    def test_two_of_the_same_part_have_nothing_in_common(self, thing: Object) -> None:
        one, other = (urlsafe_b64decode(TOKENS.seal(thing.claims) + "==") for _ in range(2))
        assert len(one) == len(other)
        assert sum(a == b for a, b in zip(one, other, strict=True)) < len(one) / 16

    def test_that_were_changed_anywhere_are_none(self, thing: Object) -> None:
        token = thing.path.removeprefix("/p/")
        for at in (0, 15, 16, len(token) // 2, len(token) - 23, len(token) - 2):
            changed = token[:at] + ("B" if token[at] == "A" else "A") + token[at + 1 :]
            reply = thing.edge.ask("PUT", f"/p/{changed}", body=thing.data)
            assert (reply.status, reply.code) == (403, "PART_URL_INVALID")
        assert not thing.is_there()

    def test_of_an_older_key_are_opened_with_it(self, storage: S3Storage, edge: Edge, s3_config: S3Config) -> None:
        older = Tokens(make_tokens.KEYS[:1])
        part_url = part_urls.through_edge(older, f"http://127.0.0.1:{edge.port}", "main")
        thing = Object(S3Storage(s3_config, lambda: PREFIX, part_url=part_url), edge)
        assert thing.put().status == 200
        assert thing.is_there()

    def test_are_over_when_they_expire(self, storage: S3Storage, edge: Edge) -> None:
        thing = Object(storage, edge)
        expired = TOKENS.seal(msgspec.structs.replace(thing.claims, exp=int(time.time()) - 1))
        reply = edge.ask("PUT", f"/p/{expired}", body=thing.data)
        assert (reply.status, reply.code) == (403, "PART_URL_EXPIRED")

    def test_of_another_upload_store_nothing_here(self, storage: S3Storage, edge: Edge) -> None:
        one, other = Object(storage, edge), Object(storage, edge)
        assert edge.ask("PUT", other.path, body=one.data).status == 400
        assert not one.is_there()
        assert not other.is_there()


def test_abort_deletes_it(thing: Object) -> None:
    assert thing.put().status == 200
    for _ in range(2):
        thing.storage.abort(thing.ref)
        assert not thing.is_there()
    assert thing.storage.list_parts(thing.ref) == {}


def test_a_url_that_binds_no_hash_is_not_signed(thing: Object) -> None:
    with pytest.raises(UploadGone):
        thing.storage.presign_part(replace(thing.ref, binds_hash=False), 1, "0" * 64, int(time.time()) + 60)
    with pytest.raises(UploadGone):
        thing.storage.presign_at_storage(thing.ref, 1, "0" * 64, int(time.time()) + 60)


def test_no_log_holds_its_signature(thing: Object) -> None:
    assert thing.put().status == 200
    assert thing.put(os.urandom(len(thing.data))).status in (200, 400)
    for path in thing.edge.folder.rglob("*.log"):
        text = path.read_text(errors="replace")
        assert "X-Amz-" not in text
        assert thing.claims.url not in text
        assert thing.path not in text
