"""Storage ``s3`` fulfils the contract on a real Ceph, and its URLs accept only what was signed."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import replace
from typing import Any

import pytest

from api.core.config import S3Config
from api.core.errors import CompleteDoubtful, ObjectNotFound, PartMismatch, StorageError, StorageUnavailable, UploadGone
from api.core.models import SINGLE_PUT
from api.storage.base import MultipartRef
from api.storage.s3 import storage as s3
from api.storage.s3.calls import TooLarge
from api.storage.s3.storage import S3Storage
from tests.storage.contract import PART, PREFIX, Content, MultipartContract, Put, nothing, read, settle
from tests.storage.signed import request


@pytest.fixture(scope="session")
def storage(s3_config: S3Config) -> S3Storage:
    return S3Storage(s3_config, lambda: PREFIX)


def send(storage: S3Storage, ref: MultipartRef, number: int, data: bytes) -> bool:
    """Signs a part with its hash, and sends it."""
    try:
        signed = storage.presign_part(ref, number, hashlib.sha256(data).hexdigest(), int(time.time()) + 60)
    except UploadGone:
        return False
    return request("PUT", signed.url, signed.headers, data)[0] == 200


class TestS3Storage(MultipartContract):
    binds_hash = True

    @pytest.fixture
    def storage(self, storage: S3Storage) -> S3Storage:
        return storage

    @pytest.fixture
    def put(self, storage: S3Storage) -> Put:
        return lambda ref, number, data: send(storage, ref, number, data)


def test_objects_are_listed_over_several_pages(
    storage: S3Storage, s3_config: S3Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = S3Storage(s3_config, lambda: "0badcafd")
    made = [Content(os.urandom(1), binds_hash=True) for _ in range(5)]
    for what in made:
        what.ref = replace(what.ref, object_key=what.ref.object_key.replace(PREFIX, "0badcafd"))
        what.open(ours)
        assert send(ours, what.ref, 1, what.data)
        ours.complete(what.ref, what.hashes, nothing)
    keys = sorted(what.ref.object_key for what in made)
    monkeypatch.setattr(s3, "_PAGE", 2)
    assert list(ours.list_objects()) == keys
    assert list(ours.list_objects(keys[2])) == keys[3:]
    assert not set(keys) & set(storage.list_objects())


class TestWithoutBoundHashes(TestS3Storage):
    binds_hash = False


@pytest.fixture
def upload(storage: S3Storage) -> Content:
    """An open upload of two parts."""
    content = Content(os.urandom(PART + 10), binds_hash=True)
    content.open(storage)
    return content


class TestPartURL:
    def sign(self, storage: S3Storage, upload: Content, number: int = 1, life: int = 60) -> tuple[str, dict[str, str]]:
        sha256 = hashlib.sha256(upload.part(number)).hexdigest()
        signed = storage.presign_part(upload.ref, number, sha256, int(time.time()) + life)
        return signed.url, dict(signed.headers)

    def test_rgw_is_found_to_enforce_the_hash(self, storage: S3Storage) -> None:
        assert storage.enforces_sha256

    def test_another_body_of_the_same_length_is_refused_and_the_upload_continues(
        self, storage: S3Storage, upload: Content
    ) -> None:
        url, headers = self.sign(storage, upload)
        assert request("PUT", url, headers, os.urandom(PART))[0] == 400
        assert storage.list_parts(upload.ref) == {}
        assert request("PUT", url, headers, upload.part(1))[0] == 200
        assert storage.list_parts(upload.ref) == {1: PART}

    @pytest.mark.parametrize("length", [0, 1, PART - 1, PART + 1])
    def test_another_length_is_refused(self, storage: S3Storage, upload: Content, length: int) -> None:
        url, headers = self.sign(storage, upload)
        assert request("PUT", url, headers, (upload.part(1) + b"x")[:length])[0] in (400, 403)
        assert storage.list_parts(upload.ref) == {}

    def test_a_header_left_out_is_refused(self, storage: S3Storage, upload: Content) -> None:
        url, _ = self.sign(storage, upload)
        assert request("PUT", url, {}, upload.part(1))[0] == 403

    @pytest.mark.parametrize("method", ["GET", "DELETE", "POST", "HEAD"])
    def test_another_method_is_refused(self, storage: S3Storage, upload: Content, method: str) -> None:
        url, headers = self.sign(storage, upload)
        assert request(method, url, headers, upload.part(1) if method == "POST" else b"")[0] in (400, 403, 405)

    def test_another_part_is_refused(self, storage: S3Storage, upload: Content) -> None:
        url, headers = self.sign(storage, upload)
        assert request("PUT", url.replace("partNumber=1", "partNumber=2"), headers, upload.part(1))[0] == 403

    def test_an_expired_url_is_refused(self, upload: Content, s3_config: S3Config) -> None:
        past = S3Storage(s3_config, lambda: PREFIX, now=lambda: time.time() - 120)
        signed = past.presign_part(upload.ref, 1, hashlib.sha256(upload.part(1)).hexdigest(), int(time.time()) - 60)
        assert request("PUT", signed.url, signed.headers, upload.part(1))[0] == 403

    def test_unsigned_headers_change_nothing(self, storage: S3Storage, upload: Content) -> None:
        url, headers = self.sign(storage, upload)
        request("PUT", url, headers | {"x-amz-acl": "public-read"}, upload.part(1))
        storage.list_parts(upload.ref)
        assert send(storage, upload.ref, 1, upload.part(1))
        assert send(storage, upload.ref, 2, upload.part(2))
        storage.complete(upload.ref, upload.hashes, nothing)
        public = storage.internal_uri(upload.ref.object_key).partition("?")[0]
        assert request("GET", public, {})[0] == 403

    def test_another_object_cannot_be_copied_in(self, storage: S3Storage, upload: Content, s3_config: S3Config) -> None:
        victim = Content(os.urandom(PART), binds_hash=True)
        victim.open(storage)
        assert send(storage, victim.ref, 1, victim.part(1))
        storage.complete(victim.ref, victim.hashes, nothing)
        url, headers = self.sign(storage, upload)
        source = {"x-amz-copy-source": f"/{s3_config.bucket}/{victim.ref.object_key}"}
        for body in (b"", upload.part(1)):
            request("PUT", url, headers | source, body)
            assert storage.list_parts(upload.ref).get(1, PART) == PART
        send(storage, upload.ref, 1, upload.part(1))
        send(storage, upload.ref, 2, upload.part(2))
        storage.complete(upload.ref, upload.hashes, nothing)
        assert read(storage, upload.ref.object_key) == upload.data


class TestEdgeTarget:
    def test_the_signed_get_is_good_for_the_object_alone(self, storage: S3Storage, upload: Content) -> None:
        for number in upload.numbers:
            assert send(storage, upload.ref, number, upload.part(number))
        storage.complete(upload.ref, upload.hashes, nothing)
        url = storage.internal_uri(upload.ref.object_key)
        assert request("GET", url, {}) == (200, upload.data)
        assert request("DELETE", url, {})[0] == 403
        other = url.replace(upload.ref.object_key, f"{PREFIX}/aa/bb")
        assert request("GET", other, {})[0] == 403

    def test_it_stays_the_same_for_hours(self, s3_config: S3Config) -> None:
        moment = 1_800_000_000
        urls = {
            S3Storage(s3_config, lambda: PREFIX, now=lambda m=m: m).internal_uri("a/b/c")  # type: ignore[misc]
            for m in (moment, moment + 60, moment + 3600)
        }
        assert len(urls) <= 2


class TestFaults:
    def test_a_complete_that_was_sent_before_is_not_sent_again(self, storage: S3Storage, upload: Content) -> None:
        for number in upload.numbers:
            assert send(storage, upload.ref, number, upload.part(number))
        with pytest.raises(CompleteDoubtful):
            storage.complete(replace(upload.ref, completes_sent=1), upload.hashes, nothing)
        with pytest.raises(ObjectNotFound):
            storage.stat(upload.ref.object_key)

    def test_an_object_that_is_too_large_for_one_copy_is_copied_in_parts(
        self, storage: S3Storage, upload: Content, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As AWS requires above 5 GB."""
        for number in upload.numbers:
            assert send(storage, upload.ref, number, upload.part(number))
        storage.complete(upload.ref, upload.hashes, nothing)

        def refuse(source: str, key: str) -> None:
            raise TooLarge("InvalidRequest")

        monkeypatch.setattr(storage._calls, "copy", refuse)
        monkeypatch.setattr(storage._completes, "copy_part", PART)
        completed, key = settle(storage, upload)
        assert completed.verified
        storage.delete(upload.ref.object_key)
        assert read(storage, key) == upload.data
        assert key.rpartition("/")[2] not in set(storage.list_uploads())

    def test_a_create_whose_answer_was_lost_leaves_nothing_after_abort(self, storage: S3Storage) -> None:
        content = Content(b"x")
        for _ in range(3):
            storage.create(content.ref)
        assert content.ref.upload_id in set(storage.list_uploads())
        storage.abort(content.ref)
        assert content.ref.upload_id not in set(storage.list_uploads())

    def test_a_create_whose_answer_was_lost_goes_without_the_upload_that_counts(self, storage: S3Storage) -> None:
        content = Content(b"x", binds_hash=True)
        for _ in range(2):
            storage.create(content.ref)
        content.open(storage)
        assert storage.abort_strays(content.ref)
        assert storage.list_parts(content.ref) == {}
        assert list(storage.list_uploads()).count(content.ref.upload_id) == 1
        storage.create(content.ref)
        assert send(storage, content.ref, 1, content.data)
        storage.complete(content.ref, content.hashes, nothing)
        assert not storage.abort_strays(content.ref)
        assert read(storage, content.ref.object_key) == content.data
        assert content.ref.upload_id not in set(storage.list_uploads())

    def test_an_upload_that_lifecycle_aborted_is_gone(self, storage: S3Storage, upload: Content) -> None:
        storage._client.abort_multipart_upload(
            Bucket=storage._bucket, Key=upload.ref.object_key, UploadId=upload.ref.multipart_id
        )
        with pytest.raises(UploadGone):
            storage.list_parts(upload.ref)
        with pytest.raises(UploadGone):
            storage.complete(upload.ref, upload.hashes, nothing)

    @pytest.mark.parametrize(
        "change",
        [
            {"secret_key": "wrong"},
            {"access_key": "nobody"},
            {"bucket": "missing"},
            {"endpoint": "http://127.0.0.1:9"},
        ],
    )
    def test_a_storage_that_cannot_be_used_says_so(self, s3_config: S3Config, change: dict[str, Any]) -> None:
        broken = S3Storage(replace(s3_config, **change), lambda: PREFIX)
        with pytest.raises(StorageError) as caught:
            broken.check()
        assert "Signature" not in str(caught.value)
        with pytest.raises(StorageError):
            broken.create(Content(b"x").ref)

    def test_enforcement_that_cannot_be_probed_is_not_assumed(self, s3_config: S3Config) -> None:
        away = S3Storage(replace(s3_config, public_endpoint="http://127.0.0.1:9"), lambda: PREFIX)
        assert not away.enforces_sha256
        with pytest.raises(StorageUnavailable):
            away.probe()


class TestETags:
    """Complete with a client's ETags: if right, no list is needed; if wrong, the parts are listed.

    Afterwards the parts are always listed once: the upload is gone, which proves that the object stays.
    """

    @pytest.fixture
    def sent(self, storage: S3Storage, upload: Content) -> Content:
        assert all(send(storage, upload.ref, number, upload.part(number)) for number in upload.numbers)
        return upload

    @pytest.fixture
    def lists(self, storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The uploads whose parts are listed."""
        asked: list[str] = []
        real = storage._calls.list_parts

        def list_parts(object_key: str, upload_id: str) -> dict[int, tuple[int, str]]:
            asked.append(upload_id)
            return real(object_key, upload_id)

        monkeypatch.setattr(storage._calls, "list_parts", list_parts)
        return asked

    @staticmethod
    def etags(content: Content) -> dict[int, str]:
        """A PUT's response."""
        return {n: f'"{hashlib.md5(content.part(n), usedforsecurity=False).hexdigest()}"' for n in content.numbers}

    @staticmethod
    def is_whole(storage: S3Storage, content: Content) -> bool:
        completed = storage.complete(content.ref, content.hashes, nothing)
        return completed.verified and read(storage, content.ref.object_key) == content.data

    @pytest.mark.parametrize("quotes", ['"', ""])
    def test_right_ones_spare_the_list(self, storage: S3Storage, sent: Content, lists: list[str], quotes: str) -> None:
        told = {number: etag.replace('"', quotes) for number, etag in self.etags(sent).items()}
        assert storage.believe(sent.ref, told)
        assert self.is_whole(storage, sent)
        assert lists == [sent.ref.multipart_id]

    @pytest.mark.parametrize(
        "told",
        [
            {1: '"' + "0" * 32 + '"', 2: '"' + "f" * 32 + '"'},
            {1: "x", 2: "x"},
            {1: "", 2: ""},
            {1: "&amp;", 2: "&quot;"},
            {1: '"><Part>', 2: "]]><!--"},
            {1: "</ETag></Part></CompleteMultipartUpload>", 2: "x"},
            {1: "x</ETag></Part><Part><PartNumber>3</PartNumber><ETag>x", 2: "x"},
        ],
    )
    def test_wrong_ones_change_nothing(
        self, storage: S3Storage, sent: Content, lists: list[str], told: dict[int, str]
    ) -> None:
        assert storage.believe(sent.ref, told)
        assert self.is_whole(storage, sent)
        assert lists == [sent.ref.multipart_id] * 2

    def test_markup_in_them_is_text(self, storage: S3Storage, sent: Content, lists: list[str]) -> None:
        """Parsed as markup, these would be the right list."""
        told = self.etags(sent)
        told[1] += "</ETag></Part><!--"
        told[2] = f"--><Part><PartNumber>2</PartNumber><ETag>{told[2]}"
        assert storage.believe(sent.ref, told)
        assert self.is_whole(storage, sent)
        assert lists == [sent.ref.multipart_id] * 2

    def test_those_of_another_upload_or_another_part_change_nothing(
        self, storage: S3Storage, sent: Content, lists: list[str]
    ) -> None:
        other = Content(os.urandom(PART + 10), binds_hash=True)
        other.open(storage)
        assert all(send(storage, other.ref, number, other.part(number)) for number in other.numbers)
        assert storage.believe(sent.ref, self.etags(other))
        assert self.is_whole(storage, sent)
        swapped = self.etags(other)
        assert storage.believe(other.ref, {1: swapped[2], 2: swapped[1]})
        assert self.is_whole(storage, other)
        assert len(lists) == 4

    def test_a_part_that_was_never_sent_is_named(self, storage: S3Storage, upload: Content) -> None:
        assert send(storage, upload.ref, 1, upload.part(1))
        assert storage.believe(upload.ref, self.etags(upload))
        with pytest.raises(PartMismatch) as caught:
            storage.complete(upload.ref, upload.hashes, nothing)
        assert caught.value.parts == (2,)
        with pytest.raises(ObjectNotFound):
            storage.stat(upload.ref.object_key)
        assert send(storage, upload.ref, 2, upload.part(2))
        assert storage.believe(upload.ref, self.etags(upload))
        assert self.is_whole(storage, upload)

    def test_a_part_that_was_sent_twice_is_the_same_part(
        self, storage: S3Storage, sent: Content, lists: list[str]
    ) -> None:
        assert send(storage, sent.ref, 1, sent.part(1))
        assert storage.believe(sent.ref, self.etags(sent))
        assert self.is_whole(storage, sent)
        assert lists == [sent.ref.multipart_id]

    def test_an_aborted_upload_stays_gone(self, storage: S3Storage, sent: Content) -> None:
        storage.abort(sent.ref)
        assert storage.believe(sent.ref, self.etags(sent))
        with pytest.raises(CompleteDoubtful):  # RGW reports that another complete is in progress
            storage.complete(sent.ref, sent.hashes, nothing)
        with pytest.raises(UploadGone):
            settle(storage, sent)

    def test_only_all_parts_of_an_upload_that_binds_its_hashes_are_believed(
        self, storage: S3Storage, sent: Content
    ) -> None:
        told = self.etags(sent)
        for others in ({1: told[1]}, told | {3: told[1]}, {2: told[2], 3: told[1]}, {}):
            assert not storage.believe(sent.ref, others)
        assert not storage.believe(replace(sent.ref, binds_hash=False), told)
        assert not storage.believe(replace(sent.ref, multipart_id=SINGLE_PUT, part_count=1), {1: told[1]})
