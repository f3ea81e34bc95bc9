"""Storage ``oss`` fulfils the contract with a strict stand-in for OSS, and its URLs accept only what was signed."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from api.core.errors import PartMismatch, UploadGone
from api.storage.oss import storage as oss
from api.storage.oss.storage import OSSStorage
from tests.storage.contract import PART, PREFIX, Content, MultipartContract, Put, nothing, read
from tests.storage.oss_bucket import Bucket
from tests.storage.oss_client import MakeOSS, opened, send
from tests.storage.oss_standin import ACCOUNT, Standin, running
from tests.storage.signed import request


class TestOSSStorage(MultipartContract):
    @pytest.fixture
    def storage(self, storage: OSSStorage) -> OSSStorage:
        return storage

    @pytest.fixture
    def put(self, storage: OSSStorage) -> Put:
        return lambda ref, number, data: send(storage, ref, number, data)


class TestSignatureV1(TestOSSStorage):
    @pytest.fixture
    def storage(self, make_oss: MakeOSS) -> OSSStorage:
        return make_oss(signature="v1")


class TestTemporaryKeys(TestOSSStorage):
    @pytest.fixture
    def standin(self) -> Iterator[Standin]:
        with running(replace(ACCOUNT, token="CAIS+token/=="), Bucket(min_part=PART)) as made:
            yield made


class TestTemporaryKeysV1(TestTemporaryKeys):
    @pytest.fixture
    def storage(self, make_oss: MakeOSS) -> OSSStorage:
        return make_oss(signature="v1")


class TestBucketInTheHost(TestOSSStorage):
    """As with OSS itself; only IP addresses and localhost have the bucket in the path."""

    @pytest.fixture
    def storage(self, make_oss: MakeOSS, standin: Standin, monkeypatch: pytest.MonkeyPatch) -> OSSStorage:
        port, ask = standin.url.rpartition(":")[2], socket.getaddrinfo

        def here(host: str, *args: Any, **options: Any) -> Any:
            return ask("127.0.0.1" if host.endswith(".test") else host, *args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", here)
        return make_oss(endpoint=f"http://oss-internal.test:{port}", public_endpoint=f"http://oss.test:{port}")

    def test_clients_and_calls_use_endpoints_of_their_own(self, storage: OSSStorage, standin: Standin) -> None:
        what = self.content()
        self.send(storage, lambda ref, number, data: send(storage, ref, number, data), what)
        hosts = {name: seen.headers["host"].partition(":")[0] for name, seen in standin.seen}
        bucket = ACCOUNT.bucket
        assert hosts == {"create": f"{bucket}.oss-internal.test", "upload_part": f"{bucket}.oss.test"}
        assert storage.internal_uri("a/b/c").startswith(f"http://{bucket}.oss-internal.test:")


class TestPartURL:
    def sign(self, storage: OSSStorage, what: Content, number: int = 1, life: int = 60) -> str:
        signed = storage.presign_part(what.ref, number, "0" * 64, int(time.time()) + life)
        assert signed.headers == {}
        return signed.url

    @pytest.mark.parametrize("length", [0, 1, PART - 1, PART + 1])
    def test_another_length_is_refused(self, storage: OSSStorage, length: int) -> None:
        what = opened(storage)
        assert request("PUT", self.sign(storage, what), {}, (what.part(1) + b"x")[:length])[0] == 403
        assert storage.list_parts(what.ref) == {}

    def test_no_length_is_refused(self, storage: OSSStorage) -> None:
        what = opened(storage)
        url = self.sign(storage, what)
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (PART, what.part(1))
        assert request("PUT", url, {"Content-Length": "0", "Transfer-Encoding": "chunked"}, body)[0] in (403, 411)
        assert storage.list_parts(what.ref) == {}

    @pytest.mark.parametrize("signature", ["v4", "v1"])
    @pytest.mark.parametrize(
        "headers",
        [
            {"Content-Type": "application/octet-stream"},
            {"Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="},
            {"x-oss-copy-source": f"/{ACCOUNT.bucket}/{PREFIX}/ab/victim"},
            {"x-oss-object-acl": "public-read"},
            {"x-oss-server-side-encryption": "AES256"},
        ],
    )
    def test_a_header_that_was_not_signed_is_refused(
        self, make_oss: MakeOSS, signature: str, headers: dict[str, str]
    ) -> None:
        storage = make_oss(signature=signature)
        what = opened(storage)
        assert request("PUT", self.sign(storage, what), headers, what.part(1))[0] == 403
        assert storage.list_parts(what.ref) == {}

    @pytest.mark.parametrize("signature", ["v4", "v1"])
    def test_another_part_or_upload_or_method_is_refused(self, make_oss: MakeOSS, signature: str) -> None:
        storage = make_oss(signature=signature)
        what, other = opened(storage), opened(storage)
        url = self.sign(storage, what)
        for changed in (
            url.replace("partNumber=1", "partNumber=2"),
            url.replace(what.ref.multipart_id, other.ref.multipart_id),
            url.replace(what.ref.object_key, other.ref.object_key),
        ):
            assert request("PUT", changed, {}, what.part(1))[0] == 403
        for method in ("GET", "HEAD", "POST", "DELETE"):
            assert request(method, url, {})[0] == 403
        assert request("PUT", url, {}, what.part(1))[0] == 200

    @pytest.mark.parametrize("signature", ["v4", "v1"])
    def test_it_is_dead_after_its_time(self, make_oss: MakeOSS, standin: Standin, signature: str) -> None:
        storage = make_oss(signature=signature)
        what = opened(storage)
        url = self.sign(storage, what)
        standin.clock_offset = 62
        assert request("PUT", url, {}, what.part(1))[0] == 403
        standin.clock_offset = 0
        assert request("PUT", url, {}, what.part(1))[0] == 200

    @pytest.mark.parametrize("signature", ["v4", "v1"])
    def test_it_lives_no_longer_than_oss_allows(self, make_oss: MakeOSS, signature: str) -> None:
        storage = make_oss(signature=signature)
        what = opened(storage)
        assert request("PUT", self.sign(storage, what, life=10**7), {}, what.part(1))[0] == 200
        with pytest.raises(ValueError, match="604800"):
            self.sign(storage, what, life=-1)

    def test_an_upload_that_was_not_opened_gets_none(self, storage: OSSStorage) -> None:
        with pytest.raises(UploadGone):  # it would be a plain PUT of the object
            storage.presign_part(Content(b"x").ref, 1, "0" * 64, 2_000_000_000)

    def test_v1_binds_no_length_and_complete_names_the_part(self, make_oss: MakeOSS) -> None:
        storage = make_oss(signature="v1")
        what = opened(storage)
        for number in what.numbers:
            assert send(storage, what.ref, number, what.part(number) + b"x" * (number == 2))
        with pytest.raises(PartMismatch) as caught:
            storage.complete(what.ref, what.hashes, nothing)
        assert caught.value.parts == (2,)
        assert send(storage, what.ref, 2, what.part(2))
        storage.complete(what.ref, what.hashes, nothing)
        assert read(storage, what.ref.object_key) == what.data


class TestEdgeTarget:
    @pytest.fixture(params=["v4", "v1"])
    def storage(self, make_oss: MakeOSS, request: pytest.FixtureRequest) -> OSSStorage:
        return make_oss(signature=request.param, public_endpoint="http://public.test")

    @pytest.fixture
    def what(self, standin: Standin, make_oss: MakeOSS) -> Content:
        storage = make_oss()
        what = opened(storage)
        assert all(send(storage, what.ref, number, what.part(number)) for number in what.numbers)
        storage.complete(what.ref, what.hashes, nothing)
        return what

    def test_it_is_taken_with_its_headers_alone(self, storage: OSSStorage, what: Content) -> None:
        url = storage.internal_uri(what.ref.object_key)
        assert request("GET", url, oss.TARGET_HEADERS) == (200, what.data)
        assert request("GET", url, {})[0] == 403
        for method in ("HEAD", "PUT", "DELETE"):
            assert request(method, url, oss.TARGET_HEADERS)[0] == 403
        assert request("GET", url.replace(what.ref.object_key, "a/b/c"), oss.TARGET_HEADERS)[0] == 403

    def test_a_range_past_the_end_is_clipped_or_refused(self, storage: OSSStorage, what: Content) -> None:
        url, size = storage.internal_uri(what.ref.object_key), len(what.data)
        ranges = {f"bytes=9-{size + 9}": (206, what.data[9:]), "bytes=9-19": (206, what.data[9:20])}
        for name, expected in ranges.items():
            assert request("GET", url, {**oss.TARGET_HEADERS, "Range": name}) == expected
        assert request("GET", url, {**oss.TARGET_HEADERS, "Range": f"bytes={size}-"})[0] == 416

    def test_it_lives_for_hours(self, storage: OSSStorage, what: Content, standin: Standin) -> None:
        url = storage.internal_uri(what.ref.object_key)
        standin.clock_offset = oss.TARGET_LIFE * 3 // 4 - 60
        assert request("GET", url, oss.TARGET_HEADERS)[0] == 200
        standin.clock_offset = oss.TARGET_LIFE + 60
        assert request("GET", url, oss.TARGET_HEADERS)[0] == 403

    def test_it_stays_the_same_for_a_quarter_of_its_life(self, standin: Standin) -> None:
        start = 1_800_014_400
        assert start % (oss.TARGET_LIFE // 4) == 0
        first, last, following = (
            OSSStorage(standin.settings(), lambda: PREFIX, now=lambda moment=moment: moment).internal_uri("a/b/c")  # type: ignore[misc]
            for moment in (start, start + oss.TARGET_LIFE // 4 - 1, start + oss.TARGET_LIFE // 4)
        )
        assert first == last != following
