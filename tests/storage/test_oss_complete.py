"""Complete and the lists it uses: whatever OSS does wrong, nothing is lost and nothing is invented."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from api.core.errors import StorageError, StorageUnavailable, UploadGone
from api.storage.base import Completed
from api.storage.oss.answers import parse_parts
from api.storage.oss.storage import OSSStorage
from tests.storage.contract import PART, PREFIX, Content, nothing, read
from tests.storage.oss_bucket import Stored
from tests.storage.oss_client import MakeOSS, opened, send
from tests.storage.oss_standin import Standin


class TestComplete:
    @pytest.mark.parametrize("kind", ["drop", "lost", "503", "callback", "cut", "garbage"])
    def test_whatever_happens_to_its_answer_the_object_decides(
        self, storage: OSSStorage, sent: Content, standin: Standin, kind: str
    ) -> None:
        standin.fail("complete", kind)
        assert not storage.complete(sent.ref, sent.hashes, nothing).verified
        assert read(storage, sent.ref.object_key) == sent.data
        assert standin.count("complete") == (2 if kind in ("drop", "503") else 1)
        assert not storage.complete(sent.ref, sent.hashes, nothing).verified

    def test_one_that_continues_after_a_lost_connection_is_not_taken_for_gone(
        self, storage: OSSStorage, sent: Content, standin: Standin
    ) -> None:
        standin.fail("complete", "late")
        with pytest.raises(StorageUnavailable):
            storage.complete(sent.ref, sent.hashes, nothing)
        standin.finish()
        storage.complete(sent.ref, sent.hashes, nothing)
        assert read(storage, sent.ref.object_key) == sent.data

    def test_the_next_worker_waits_for_one_that_continues_and_gives_up_at_last(
        self, storage: OSSStorage, sent: Content, standin: Standin
    ) -> None:
        """The upload is gone, and the object is not there yet: a counted try may still be running."""
        standin.fail("complete", "late")
        with pytest.raises(StorageUnavailable):
            storage.complete(sent.ref, sent.hashes, nothing)
        asked = standin.count("complete")
        for completes in (1, 2, 9):
            with pytest.raises(StorageUnavailable):
                storage.complete(replace(sent.ref, completes_sent=completes), sent.hashes, nothing)
        with pytest.raises(UploadGone):
            storage.complete(replace(sent.ref, completes_sent=10), sent.hashes, nothing)
        assert standin.count("complete") == asked
        standin.finish()
        storage.complete(replace(sent.ref, completes_sent=9), sent.hashes, nothing)
        assert read(storage, sent.ref.object_key) == sent.data

    def test_an_abort_frees_no_byte_of_an_object_whose_complete_was_not_answered(
        self, storage: OSSStorage, sent: Content, standin: Standin
    ) -> None:
        """By the documentation no operation is allowed with the id of a completed upload."""
        standin.fail("complete", "lost", times=3)
        storage.complete(sent.ref, sent.hashes, nothing)
        storage.abort(sent.ref)
        assert read(storage, sent.ref.object_key) == sent.data

    @pytest.mark.parametrize(("kind", "tries"), [("503", 3), ("drop", 3), ("403", 1)])
    def test_one_that_fails_permanently_leaves_the_parts(
        self, storage: OSSStorage, sent: Content, standin: Standin, pauses: list[float], kind: str, tries: int
    ) -> None:
        standin.fail("complete", kind, times=tries)
        with pytest.raises(StorageUnavailable):
            storage.complete(sent.ref, sent.hashes, nothing)
        assert standin.count("complete") == tries
        assert len(pauses) == tries - 1
        assert len(storage.list_parts(sent.ref)) == 3
        storage.complete(sent.ref, sent.hashes, nothing)

    def test_a_storage_that_goes_away_in_it_does_not_make_the_upload_gone(
        self, storage: OSSStorage, sent: Content, standin: Standin
    ) -> None:
        standin.fail("complete", "lost")
        standin.fail("head", "503", times=3)
        with pytest.raises(StorageUnavailable):
            storage.complete(sent.ref, sent.hashes, nothing)
        storage.complete(sent.ref, sent.hashes, nothing)

    @pytest.mark.parametrize("action", ["head", "list_parts"])
    def test_another_crc64_than_the_parts_is_noticed_and_left_to_reading_back(
        self, storage: OSSStorage, sent: Content, standin: Standin, action: str
    ) -> None:
        standin.fail(action, "wrong crc")
        with pytest.raises(StorageError, match="CRC64"):
            storage.complete(sent.ref, sent.hashes, nothing)
        assert not storage.complete(sent.ref, sent.hashes, nothing).verified

    def test_parts_without_a_crc64_are_assembled_too(
        self, storage: OSSStorage, sent: Content, standin: Standin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answer = standin.bucket._list_parts

        def without(*args: Any) -> Any:
            made = answer(*args)
            made.body = made.body.replace(b"<HashCrc64ecma>", b"<Unknown>").replace(b"</HashCrc64ecma>", b"</Unknown>")
            return made

        monkeypatch.setattr(standin.bucket, "_list_parts", without)
        storage.complete(sent.ref, sent.hashes, nothing)
        assert read(storage, sent.ref.object_key) == sent.data

    def test_the_object_must_be_from_the_apis_create_call(self, storage: OSSStorage, standin: Standin) -> None:
        encoded, longer = (opened(storage, 9) for _ in range(2))
        for what in (encoded, longer):
            assert send(storage, what.ref, 1, what.part(1))
            storage.complete(what.ref, what.hashes, nothing)
        standin.bucket.objects[encoded.ref.object_key].headers = {"Content-Encoding": "gzip"}
        standin.bucket.objects[longer.ref.object_key].data += b"x"
        for what in (encoded, longer):
            with pytest.raises(StorageError, match="bytes"):
                storage.complete(what.ref, what.hashes, nothing)

    def test_nothing_is_overwritten(self, storage: OSSStorage, sent: Content, standin: Standin) -> None:
        ref = replace(sent.ref, multipart_id=storage.create(sent.ref))  # its response was lost, and it was repeated
        storage.complete(sent.ref, sent.hashes, nothing)
        assert all(send(storage, ref, number, os.urandom(len(sent.part(number)))) for number in sent.numbers)
        with pytest.raises(StorageError, match="CRC64"):
            storage.complete(ref, sent.hashes, nothing)
        assert read(storage, sent.ref.object_key) == sent.data
        with pytest.raises(StorageError):
            storage.create(sent.ref)

    def test_a_part_that_changes_meanwhile_is_not_put_in(
        self, storage: OSSStorage, sent: Content, standin: Standin
    ) -> None:
        other, replaced = os.urandom(PART), []

        def replace_it() -> None:
            replaced.append(send(storage, sent.ref, 1, other))

        upload = storage._listed(sent.ref)
        replace_it()
        with pytest.raises(StorageError):
            storage._complete_once(sent.ref, [upload[number] for number in sent.numbers])
        assert replaced == [True]
        assert standin.bucket.objects == {}

    def test_parts_too_small_for_oss_are_reported(self, make_oss: MakeOSS, standin: Standin) -> None:
        standin.bucket.min_part = 100 * 1024
        storage = make_oss()
        what = opened(storage)
        assert all(send(storage, what.ref, number, what.part(number)) for number in what.numbers)
        with pytest.raises(StorageUnavailable, match="EntityTooSmall"):
            storage.complete(what.ref, what.hashes, nothing)

    def test_what_keep_alive_raises_stops_it_before_it_begins(
        self, storage: OSSStorage, sent: Content, standin: Standin
    ) -> None:
        def stop() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            storage.complete(sent.ref, sent.hashes, stop)
        assert standin.count("complete") == 0

    def test_of_several_concurrent_ones_each_finds_the_object(self, storage: OSSStorage, sent: Content) -> None:
        barrier = threading.Barrier(4)
        outcomes: list[Completed | StorageError] = []

        def run() -> None:
            barrier.wait()
            try:
                outcomes.append(storage.complete(sent.ref, sent.hashes, nothing))
            except StorageError as ex:
                outcomes.append(ex)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == [Completed(verified=False, sha256=None)] * 4
        assert read(storage, sent.ref.object_key) == sent.data


class TestLists:
    def test_parts_are_listed_over_several_pages(self, storage: OSSStorage, standin: Standin) -> None:
        standin.bucket.page = 2
        what = opened(storage, 4 * PART + 1)
        assert all(send(storage, what.ref, number, what.part(number)) for number in what.numbers)
        assert storage.list_parts(what.ref) == dict.fromkeys(range(1, 5), PART) | {5: 1}
        assert standin.count("list_parts") == 3
        storage.complete(what.ref, what.hashes, nothing)
        assert read(storage, what.ref.object_key) == what.data

    def test_objects_are_listed_over_several_pages(self, storage: OSSStorage, standin: Standin) -> None:
        standin.bucket.page = 2
        keys = [f"{PREFIX}/{n:02x}/{n:032x}" for n in range(5)]
        standin.bucket.objects |= {key: Stored(b"x", "E") for key in (*keys, "other/00/00")}
        assert list(storage.list_objects()) == keys
        assert standin.count("list_objects") == 3
        standin.fail("list_objects", "503")
        assert list(storage.list_objects(keys[1])) == keys[2:]

    def test_a_list_that_goes_back_is_an_error(self, storage: OSSStorage, standin: Standin) -> None:
        key = f"{PREFIX}/00/{0:032x}"
        standin.bucket.objects[key] = Stored(b"x", "E")
        standin.bucket._list_objects = partial(standin.bucket._list_objects, marked=False)  # type: ignore[method-assign]
        with pytest.raises(StorageUnavailable):
            list(storage.list_objects(key))

    def test_uploads_are_listed_over_several_pages_and_of_this_deployment_alone(
        self, storage: OSSStorage, standin: Standin, make_oss: MakeOSS
    ) -> None:
        standin.bucket.page = 2
        ours = {opened(storage, 1).ref.upload_id for _ in range(5)}
        foreign = Content(b"x")
        foreign.ref = replace(foreign.ref, object_key=foreign.ref.object_key.replace(PREFIX, "0therone"))
        foreign.open(storage)
        assert set(storage.list_uploads()) == ours

    def test_a_create_whose_answer_was_lost_leaves_nothing_after_abort(
        self, storage: OSSStorage, standin: Standin
    ) -> None:
        standin.fail("create", "lost")
        what = opened(storage, 1)
        assert len(standin.bucket.uploads) == 2
        storage.abort(what.ref)
        assert standin.bucket.uploads == {}

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<html><p>Please sign in</html>",
            b"<ListPartsResult></ListPartsResult>",
            b"<R><IsTruncated>false</IsTruncated><Part><PartNumber>1</PartNumber></Part></R>",
            b"<R><IsTruncated>true</IsTruncated><NextPartNumberMarker>7</NextPartNumberMarker></R>",
        ],
    )
    def test_a_list_that_is_none_is_not_taken_for_an_empty_one(self, body: bytes) -> None:
        with pytest.raises((ValueError, SyntaxError)):
            parse_parts(body, 7)

    @pytest.mark.parametrize("kind", ["garbage", "cut"])
    def test_one_that_arrives_broken_is_asked_for_again(
        self, storage: OSSStorage, sent: Content, standin: Standin, kind: str
    ) -> None:
        standin.fail("list_parts", kind, times=2)
        assert len(storage.list_parts(sent.ref)) == 3
        standin.fail("list_parts", kind, times=3)
        with pytest.raises(StorageUnavailable):
            storage.list_parts(sent.ref)
