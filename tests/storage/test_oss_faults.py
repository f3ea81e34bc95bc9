"""An OSS that fails, refuses, lies or gives no answer: which requests are repeated, and the resulting errors."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
from oss2 import exceptions

from api.core.errors import ConfigError, ObjectNotFound, PartMismatch, StorageUnavailable, UploadGone
from api.storage.oss import storage as oss
from api.storage.oss.answers import Body
from api.storage.oss.errors import ERRORS, Passing, translate
from api.storage.oss.storage import OSSStorage
from tests.storage.contract import PART, Content, nothing, read
from tests.storage.oss_client import MakeOSS, opened, send
from tests.storage.oss_standin import ACCOUNT, Standin


class TestReads:
    @pytest.fixture
    def what(self, storage: OSSStorage, sent: Content) -> Content:
        storage.complete(sent.ref, sent.hashes, nothing)
        return sent

    @pytest.mark.parametrize("kind", ["flip", "wrong crc"])
    def test_a_whole_object_is_compared_with_its_crc64(
        self, storage: OSSStorage, what: Content, standin: Standin, kind: str
    ) -> None:
        standin.fail("get", kind)
        with pytest.raises(StorageUnavailable, match="CRC64"):
            read(storage, what.ref.object_key)
        assert read(storage, what.ref.object_key) == what.data

    @pytest.mark.parametrize("where", [(), (7,), (7, PART)])
    def test_a_body_that_breaks_off_is_not_taken_for_the_end(
        self, storage: OSSStorage, what: Content, standin: Standin, where: tuple[int, ...]
    ) -> None:
        for size in (-1, 10_007, 10**9):
            standin.fail("get", "cut")
            reader = storage.open(what.ref.object_key, *where)
            with pytest.raises(StorageUnavailable):
                list(iter(partial(reader.read, size), b""))
            reader.close()

    @pytest.mark.parametrize(("size", "length"), [(-1, 5), (2, 5), (9, 5), (-1, 2), (9, 2)])
    def test_a_body_of_another_length_is_noticed_whatever_the_sdk_says(self, size: int, length: int) -> None:
        sdk = mock.Mock(read=io.BytesIO(b"abc").read)
        with pytest.raises(StorageUnavailable, match="as long"):
            list(iter(partial(Body(sdk, length, None).read, size), b""))

    def test_a_range_that_is_answered_with_the_whole_object_is_noticed(
        self, storage: OSSStorage, what: Content, standin: Standin
    ) -> None:
        standin.fail("get", "whole")
        with pytest.raises(StorageUnavailable, match="range"):
            storage.open(what.ref.object_key, 7, 9)

    def test_everything_can_be_read_at_once(self, storage: OSSStorage, what: Content) -> None:
        reader = storage.open(what.ref.object_key)
        assert (reader.read(0), reader.read(), reader.read()) == (b"", what.data, b"")
        reader.close()

    def test_nothing_of_an_object_that_is_not_there_is_still_missing(self, storage: OSSStorage) -> None:
        with pytest.raises(ObjectNotFound):
            storage.open("a/b/c", 0, 0)


def calls(storage: OSSStorage, what: Content) -> dict[str, Callable[[], object]]:
    """Every call that may be repeated, by the stand-in's action."""
    key = what.ref.object_key
    return {
        "create": lambda: storage.create(Content(b"x").ref),
        "list_parts": lambda: storage.list_parts(opened(storage).ref),
        "abort": lambda: storage.abort(opened(storage).ref),
        "list_uploads": lambda: list(storage.list_uploads()),
        "head": lambda: storage.stat(key),
        "get": lambda: storage.open(key).close(),
        "delete": lambda: storage.delete(key),
    }


ACTIONS = ("create", "list_parts", "abort", "list_uploads", "head", "get", "delete")


class TestRetries:
    @pytest.fixture
    def what(self, storage: OSSStorage, sent: Content, standin: Standin) -> Content:
        storage.complete(sent.ref, sent.hashes, nothing)
        standin.seen.clear()
        return sent

    @pytest.mark.parametrize("kind", ["503", "drop"])
    @pytest.mark.parametrize("action", ACTIONS)
    def test_a_call_is_tried_three_times(
        self, storage: OSSStorage, what: Content, standin: Standin, pauses: list[float], action: str, kind: str
    ) -> None:
        standin.fail(action, kind, times=2)
        calls(storage, what)[action]()
        assert standin.count(action) == 3
        assert len(pauses) == 2
        standin.fail(action, kind, times=3)
        with pytest.raises(StorageUnavailable):
            calls(storage, what)[action]()
        assert standin.count(action) == 6

    @pytest.mark.parametrize("action", ACTIONS)
    def test_a_refusal_is_not_tried_again(
        self, storage: OSSStorage, what: Content, standin: Standin, pauses: list[float], action: str
    ) -> None:
        standin.fail(action, "403")
        with pytest.raises(StorageUnavailable):
            calls(storage, what)[action]()
        assert standin.count(action) == 1
        assert pauses == []

    def test_pauses_are_random_and_grow(self, storage: OSSStorage, pauses: list[float]) -> None:
        for _ in range(50):
            storage._pause(1)
            storage._pause(2)
        assert len(set(pauses)) == 100
        assert min(pauses) >= 0
        assert max(pauses[::2]) <= 0.2
        assert 0.2 < max(pauses[1::2]) <= 0.4

    @pytest.mark.parametrize("kind", ["lost", "503"])
    def test_a_repeated_abort_or_delete_is_done(
        self, storage: OSSStorage, what: Content, standin: Standin, kind: str
    ) -> None:
        standin.fail("abort", kind)
        storage.abort(opened(storage).ref)
        standin.fail("delete", kind)
        storage.delete(what.ref.object_key)
        assert standin.bucket.uploads == {}
        assert standin.bucket.objects == {}

    def test_a_storage_that_says_nothing_is_given_up(
        self, make_oss: MakeOSS, standin: Standin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(oss, "TIMEOUTS_SECONDS", (5, 0.2))
        storage = make_oss()
        started = time.monotonic()
        standin.fail("head", "hang", times=3)
        with pytest.raises(StorageUnavailable):
            storage.stat("a/b/c")
        standin.fail("list_uploads", "hang", times=3)
        with pytest.raises(StorageUnavailable):
            storage.check()
        assert time.monotonic() - started < 8
        assert standin.count("list_uploads") < 2  # a health check wants a result now


def walk(kind: type[Exception]) -> Iterator[str]:
    yield kind.__name__
    for child in kind.__subclasses__():
        yield from walk(child)


class TestErrors:
    def test_every_error_of_the_sdk_is_one_of_ours(self) -> None:
        assert set(walk(exceptions.OssError)) - {"OssError"} == set(ERRORS)

    @pytest.mark.parametrize(
        "change",
        [
            {"secret_key": "wrong"},
            {"access_key": "nobody"},
            {"bucket": "another-bucket"},
            {"region": "cn-shanghai"},
            {"session_token": "unknown"},
            {"endpoint": "http://127.0.0.1:9"},
        ],
    )
    @pytest.mark.parametrize("signature", ["v4", "v1"])
    def test_a_storage_that_cannot_be_used_says_why_and_tells_no_secret(
        self, make_oss: MakeOSS, signature: str, change: dict[str, str]
    ) -> None:
        storage = make_oss(signature=signature, **change)
        if signature == "v1" and "region" in change:
            storage.check()  # V1 knows no region
            return
        for call in (storage.check, *calls(storage, Content(b"x")).values()):
            with pytest.raises(StorageUnavailable) as caught:
                call()
            shown = str(caught.value)
            assert shown
            assert not any(word in shown for word in (ACCOUNT.secret_key, ACCOUNT.access_key, "Signature=", "http"))

    @pytest.mark.parametrize("offset", [-1200, 1200])
    def test_a_wrong_clock_is_reported(self, storage: OSSStorage, standin: Standin, offset: float) -> None:
        standin.clock_offset = offset
        with pytest.raises(StorageUnavailable, match="RequestTimeTooSkewed"):
            storage.check()

    def test_a_missing_bucket_is_never_a_missing_object(self, make_oss: MakeOSS, standin: Standin) -> None:
        storage = make_oss(bucket="another-bucket")
        for _ in range(2):
            with pytest.raises(StorageUnavailable):
                storage.stat("a/b/c")
            standin.fail("head", "silent")

    def test_head_without_a_reason_is_a_missing_object_where_the_bucket_is_there(
        self, storage: OSSStorage, standin: Standin
    ) -> None:
        standin.fail("head", "silent")
        with pytest.raises(ObjectNotFound):
            storage.stat("a/b/c")
        assert standin.count("list_uploads") == 1

    def test_an_upload_that_lifecycle_aborted_is_gone(
        self, storage: OSSStorage, sent: Content, standin: Standin
    ) -> None:
        standin.bucket.uploads.clear()
        with pytest.raises(UploadGone):
            storage.list_parts(sent.ref)
        with pytest.raises(UploadGone):
            storage.complete(sent.ref, sent.hashes, nothing)
        assert not send(storage, sent.ref, 1, sent.part(1))

    def test_what_may_pass_is_told_from_what_may_not(self) -> None:
        for status, kind in ((500, Passing), (503, Passing), (429, Passing), (400, StorageUnavailable)):
            assert type(translate("ServerError", status, "Code", "id")) is kind


class TestSettings:
    @pytest.mark.parametrize(
        "change",
        [
            {"region": "oss-cn-hangzhou"},
            {"region": ""},
            {"bucket": "Not_A_Bucket"},
            {"endpoint": "http://under score.test"},
        ],
    )
    def test_what_oss_would_not_take_is_refused_at_start(self, make_oss: MakeOSS, change: dict[str, str]) -> None:
        with pytest.raises(ConfigError):
            make_oss(**change)

    def test_a_netrc_does_not_sign_in_our_place(
        self, storage: OSSStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "netrc").write_text("default login somebody password else\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        storage.check()

    def test_no_signature_is_logged(
        self, storage: OSSStorage, sent: Content, standin: Standin, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        standin.fail("complete", "lost")
        storage.complete(sent.ref, sent.hashes, nothing)
        storage.internal_uri(sent.ref.object_key)
        assert "checking the object" in caplog.text
        for word in ("authorization", "signature=", "OSS4", ACCOUNT.access_key):
            assert word.lower() not in caplog.text.lower()

    def test_it_enforces_no_hash(self, storage: OSSStorage) -> None:
        assert storage.enforces_sha256 is False


class TestWrittenParts:
    @pytest.fixture
    def what(self, storage: OSSStorage) -> Content:
        return opened(storage)

    def write(self, storage: OSSStorage, what: Content) -> None:
        storage.write_part(what.ref, 1, [what.part(1)[:7], what.part(1)[7:]], "")

    @pytest.mark.parametrize("kind", ["damage", "wrong crc"])
    def test_a_part_that_was_damaged_on_its_way_must_be_sent_again(
        self, storage: OSSStorage, what: Content, standin: Standin, kind: str
    ) -> None:
        standin.fail("upload_part", kind)
        with pytest.raises(PartMismatch) as caught:
            self.write(storage, what)
        assert caught.value.parts == (1,)
        self.write(storage, what)
        assert storage.list_parts(what.ref) == {1: PART}

    @pytest.mark.parametrize("kind", ["503", "403", "drop", "lost"])
    def test_whether_a_part_is_there_is_said_by_the_list(
        self, storage: OSSStorage, what: Content, standin: Standin, kind: str
    ) -> None:
        standin.fail("upload_part", kind)
        with pytest.raises(StorageUnavailable):
            self.write(storage, what)
        assert standin.count("upload_part") == 1  # the body can be read only once
        assert storage.list_parts(what.ref) == ({1: PART} if kind == "lost" else {})
