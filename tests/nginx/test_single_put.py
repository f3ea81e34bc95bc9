"""A whole object by one PUT, through a real nginx into a real Ceph: what was signed is stored, and nothing else.

The endpoint is open to clients here, as a bucket with a public endpoint is: what a client has seen, it may try there.
"""

import hashlib
import json
import os
import time
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from api.app import proxied_part_url
from api.core.config import S3Config
from api.core.errors import ObjectNotFound, PartMismatch, UploadGone
from api.core.models import SINGLE_PUT
from api.core.tokens import Tokens, seal_message
from api.storage.base import MultipartRef
from api.storage.http import Answer, ask
from api.storage.s3.storage import S3Storage
from tests.nginx.edge import Edge, Reply
from tests.storage.contract import PREFIX, nothing, read
from tests.vectors import make_tokens

SIZES = [1, 64 * 1024, 8 * 1024**2]
TOKENS = Tokens(make_tokens.KEYS)


@pytest.fixture(params=[False, True], ids=["open", "via_edge"])
def storage(s3_config: S3Config, edge: Edge, request: pytest.FixtureRequest) -> S3Storage:
    config = replace(s3_config, via_edge=request.param)
    return S3Storage(config, lambda: PREFIX, part_url=proxied_part_url(TOKENS, f"http://127.0.0.1:{edge.port}", "main"))


class Object:
    """One upload of one PUT: its bytes, what names it, and its URL."""

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
    def claims(self) -> dict[str, Any]:
        value = self.path.removeprefix("/p/").partition(".")[0]
        found: dict[str, Any] = json.loads(urlsafe_b64decode(value + "=="))
        return found

    def is_there(self) -> bool:
        try:
            return self.storage.stat(self.ref.object_key) >= 0
        except ObjectNotFound:
            return False

    def directly(self, tail: str = "", headers: Mapping[str, str] | None = None) -> Answer:
        """What a client can try at the storage itself, with all that its token tells."""
        to, sha256 = self.claims["to"], self.claims["sha256"]
        given = {"x-amz-content-sha256": sha256, "if-none-match": "*", "content-type": "application/octet-stream"}
        return ask("PUT", to + tail, {**given, **(headers or {})}, self.data)


@pytest.fixture
def thing(storage: S3Storage, edge: Edge) -> Object:
    return Object(storage, edge)


def test_the_storage_was_found_to_keep_what_is_signed(storage: S3Storage) -> None:
    assert storage.single_put_max == 8 * 1024**2


def test_nothing_is_offered_where_it_is_turned_off(s3_config: S3Config) -> None:
    part_url = proxied_part_url(TOKENS, "http://127.0.0.1", "main")
    assert S3Storage(replace(s3_config, single_put_max=0), lambda: PREFIX, part_url=part_url).single_put_max == 0
    assert S3Storage(s3_config, lambda: PREFIX).single_put_max == 0


def test_nothing_is_offered_where_the_storage_compares_nothing(
    s3_config: S3Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a storage that takes any body, and one that replaces objects."""
    part_url = proxied_part_url(TOKENS, "http://127.0.0.1", "main")
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


class TestAtTheStorageItself:
    """Nothing that a client has seen is of any use there."""

    def test_no_signature_is_in_the_token(self, thing: Object) -> None:
        claims = thing.claims
        real = thing.storage._singles.presign_at_storage(thing.ref, claims["sha256"], claims["exp"])  # type: ignore[union-attr]
        to, _, signature = real.url.partition("&X-Amz-Signature=")
        assert "Signature=" not in claims["to"]
        assert len(signature) == len(claims["seal"]) == 64
        if to == claims["to"]:  # signed within the same second
            assert signature != claims["seal"]

    def test_the_real_signature_would_be_taken(self, thing: Object) -> None:
        """Or the attacks below would prove nothing."""
        claims = thing.claims
        real = thing.storage._singles.presign_at_storage(thing.ref, claims["sha256"], int(time.time()) + 60)  # type: ignore[union-attr]
        assert ask("PUT", real.url, {**real.headers, "x-amz-acl": "public-read"}, thing.data).status == 200

    @pytest.mark.parametrize("tail", ["", "&X-Amz-Signature=", "&X-Amz-Signature={seal}", "&X-Amz-Signature={zero}"])
    def test_its_url_is_refused(self, thing: Object, tail: str) -> None:
        tail = tail.format(seal=thing.claims["seal"], zero="0" * 64)
        for headers in ({}, {"x-amz-acl": "public-read"}):
            assert thing.directly(tail, headers).status in (400, 403)
        assert not thing.is_there()

    def test_two_tokens_together_tell_nothing(self, storage: S3Storage, edge: Edge) -> None:
        """Pads differ, and are not the XOR of anything that both show."""
        one, other = Object(storage, edge), Object(storage, edge)
        mixed = "".join(
            f"{int(a, 16) ^ int(b, 16):x}" for a, b in zip(one.claims["seal"], other.claims["seal"], strict=True)
        )
        for thing in (one, other):
            for tail in (one.claims["seal"], other.claims["seal"], mixed):
                assert thing.directly(f"&X-Amz-Signature={tail}").status == 403
        assert not one.is_there()
        assert not other.is_there()


class TestTokens:
    def test_a_changed_seal_is_no_token(self, thing: Object) -> None:
        value, stamp, signature = thing.path.removeprefix("/p/").split(".")
        text = urlsafe_b64decode(value + "==").replace(thing.claims["seal"].encode(), b"0" * 64)
        from base64 import urlsafe_b64encode

        forged = urlsafe_b64encode(text).decode().rstrip("=")
        reply = thing.edge.ask("PUT", f"/p/{forged}.{stamp}.{signature}", body=thing.data)
        assert (reply.status, reply.code) == (403, "PART_URL_INVALID")

    def test_a_seal_of_another_key_is_of_no_use(self, thing: Object) -> None:
        """Whoever could sign tokens but not seal: the storage refuses."""
        token = TOKENS.sign("part", {**thing.claims, "seal": "0" * 64})
        assert thing.edge.ask("PUT", f"/p/{token}", body=thing.data).status >= 400
        assert not thing.is_there()

    @pytest.mark.parametrize("seal", ["", "0" * 63, "g" * 64, 5, None, ["0" * 64]])
    def test_a_malformed_seal(self, thing: Object, seal: object) -> None:
        token = TOKENS.sign("part", {**thing.claims, "seal": seal})
        assert thing.edge.ask("PUT", f"/p/{token}", body=thing.data).status >= 400
        assert not thing.is_there()

    def test_every_signature_has_a_pad_of_its_own(self, thing: Object) -> None:
        claims = {name: value for name, value in thing.claims.items() if name != "seal"}
        for name, value in (("to", claims["to"] + "x"), ("sha256", "0" * 64), ("size", 5)):
            assert seal_message({**claims, name: value}) != seal_message(claims)

    def test_of_an_older_key_are_opened_with_it(self, storage: S3Storage, edge: Edge, s3_config: S3Config) -> None:
        older = Tokens(make_tokens.KEYS[:1])
        part_url = proxied_part_url(older, f"http://127.0.0.1:{edge.port}", "main")
        thing = Object(S3Storage(s3_config, lambda: PREFIX, part_url=part_url), edge)
        assert thing.put().status == 200
        assert thing.is_there()

    def test_are_over_when_they_expire(self, storage: S3Storage, edge: Edge) -> None:
        thing = Object(storage, edge)
        expired = TOKENS.sign("part", {**thing.claims, "exp": int(time.time()) - 1})
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


def test_no_log_holds_its_signature_or_seal(thing: Object) -> None:
    assert thing.put().status == 200
    assert thing.put(os.urandom(len(thing.data))).status in (200, 400)
    for path in thing.edge.folder.rglob("*.log"):
        text = path.read_text(errors="replace")
        assert "X-Amz-" not in text
        assert thing.claims["seal"] not in text
        assert thing.path not in text
