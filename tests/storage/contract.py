"""The contract of every storage that takes parts; a backend's test file provides fixtures and inherits the classes."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from api.core import digests
from api.core.errors import CompleteDoubtful, ObjectNotFound, PartMismatch, StorageError, StorageUnavailable, UploadGone
from api.storage.base import Completed, MultipartRef, MultipartStorage
from api.storage.wholeness import is_whole

PART: Final = 64 * 1024
"""The size of a part here: the contract allows any, and small ones are fast."""

PREFIX: Final = "0badcafe"
"""The deployment's id, with which the keys begin."""

Put = Callable[[MultipartRef, int, bytes], bool]
"""Sends a part to its URL. Returns False if the URL is dead."""


@dataclass
class Content:
    """Some bytes, and the upload for them."""

    data: bytes
    binds_hash: bool = False
    ref: MultipartRef = field(init=False)

    def __post_init__(self) -> None:
        upload_id = os.urandom(16).hex()
        key = f"{PREFIX}/{upload_id[-2:]}/{upload_id}"
        count = -(-len(self.data) // PART)
        self.ref = MultipartRef(upload_id, key, "", len(self.data), PART, count, "0" * 32, 0, self.binds_hash)

    def open(self, storage: MultipartStorage) -> None:
        """Opens the upload. If repeated, it stays the first one."""
        multipart_id = storage.create(self.ref)
        assert multipart_id
        if not self.ref.multipart_id:
            self.ref = replace(self.ref, multipart_id=multipart_id)

    def part(self, number: int) -> bytes:
        return self.data[(number - 1) * PART : number * PART]

    @property
    def numbers(self) -> range:
        return range(1, self.ref.part_count + 1)

    @property
    def hashes(self) -> bytes:
        return b"".join(hashlib.sha256(self.part(n)).digest() for n in self.numbers)

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(self.data).digest()


def nothing() -> None:
    """A `keep_alive` that never stops the work."""


def settle(storage: MultipartStorage, what: Content, sent: int = 1) -> tuple[Completed, str]:
    """Completes as the finalizer does after ``sent`` completes. Returns the object and the key that counts."""
    ref = replace(what.ref, completes_sent=sent)
    try:
        return storage.complete(ref, what.hashes, nothing), ref.object_key
    except CompleteDoubtful:
        key = Content(what.data).ref.object_key
        return storage.copy_completed(ref, key, nothing), key


def read(storage: MultipartStorage, key: str, *where: int) -> bytes:
    """Bytes of an object, in reads of odd sizes."""
    with closing(storage.open(key, *where)) as reader:
        return b"".join(iter(lambda: reader.read(10_007), b""))


class MultipartContract:
    """Inherit this, and define the fixtures ``storage`` and ``put``."""

    @pytest.fixture
    def storage(self) -> MultipartStorage:
        raise NotImplementedError

    @pytest.fixture
    def put(self, storage: Any) -> Put:
        raise NotImplementedError

    compares = False
    """Complete compares every byte."""

    binds_hash = False
    """The uploads' URLs bind the parts' hashes."""

    def content(self, size: int = 3 * PART - 7) -> Content:
        """Bytes that no other test uses."""
        return Content(os.urandom(size), self.binds_hash)

    @staticmethod
    def send(storage: MultipartStorage, put: Put, what: Content) -> Content:
        """Opens an upload and sends every part."""
        what.open(storage)
        assert all(put(what.ref, n, what.part(n)) for n in what.numbers)
        return what

    # -- taking parts

    def test_create_names_the_upload_and_can_be_repeated(self, storage: MultipartStorage, put: Put) -> None:
        what = self.content()
        what.open(storage)
        assert put(what.ref, 1, what.part(1))
        what.open(storage)
        assert storage.list_parts(what.ref) == {1: PART}  # a repeated create loses nothing

    def test_parts_are_listed_with_their_lengths(self, storage: MultipartStorage, put: Put) -> None:
        what = self.content()
        what.open(storage)
        assert storage.list_parts(what.ref) == {}
        for number in (3, 1):
            assert put(what.ref, number, what.part(number))
        assert storage.list_parts(what.ref) == {1: PART, 3: PART - 7}

    def test_an_upload_that_never_was_has_no_parts(self, storage: MultipartStorage, put: Put) -> None:
        what = self.content()
        with pytest.raises(UploadGone):
            storage.list_parts(what.ref)
        with pytest.raises(UploadGone):
            storage.complete(what.ref, what.hashes, nothing)
        assert not put(what.ref, 1, what.part(1))

    def test_each_part_has_its_url(self, storage: MultipartStorage) -> None:
        what = self.content()
        what.open(storage)
        signed = [storage.presign_part(what.ref, n, "0" * 64, 2_000_000_000) for n in what.numbers]
        assert len({part.url for part in signed}) == 3

    def test_uploads_are_listed_until_they_end(self, storage: MultipartStorage, put: Put) -> None:
        one, two, three = (self.send(storage, put, self.content()) for _ in range(3))
        ids = {what.ref.upload_id for what in (one, two, three)}
        assert ids <= set(storage.list_uploads())
        storage.complete(one.ref, one.hashes, nothing)
        storage.abort(two.ref)
        assert ids & set(storage.list_uploads()) == {three.ref.upload_id}

    # -- parts written by Sluice itself

    @staticmethod
    def write(storage: MultipartStorage, what: Content, number: int, pieces: Iterable[bytes] | None = None) -> None:
        """Writes a part, in pieces of odd sizes."""
        part = what.part(number)
        whole = (part[at : at + 10_007] for at in range(0, len(part), 10_007))
        storage.write_part(what.ref, number, pieces or whole, hashlib.sha256(part).hexdigest())

    def test_written_parts_are_parts(self, storage: MultipartStorage) -> None:
        what = self.content()
        what.open(storage)
        for number in (3, 1, 2):
            self.write(storage, what, number)
        assert storage.list_parts(what.ref) == {1: PART, 2: PART, 3: PART - 7}
        completed = storage.complete(what.ref, what.hashes, nothing)
        assert completed.verified == (self.compares or self.binds_hash)
        assert read(storage, what.ref.object_key) == what.data

    def test_a_part_written_again_replaces_itself(self, storage: MultipartStorage, put: Put) -> None:
        what = self.content()
        what.open(storage)
        for number in (1, 2, 3, 2):
            self.write(storage, what, number)
        storage.complete(what.ref, what.hashes, nothing)
        assert read(storage, what.ref.object_key) == what.data

    def test_what_the_body_raises_goes_through_and_nothing_is_stored(self, storage: MultipartStorage) -> None:
        class Stop(Exception):
            pass

        def pieces(length: int) -> Iterator[bytes]:
            yield what.part(1)[:length]
            raise Stop

        what = self.content()
        what.open(storage)
        for length in (1, PART // 2, PART - 1):
            with pytest.raises(Stop):
                self.write(storage, what, 1, pieces(length))
        assert storage.list_parts(what.ref) == {}
        for number in what.numbers:
            self.write(storage, what, number)
        storage.complete(what.ref, what.hashes, nothing)
        assert read(storage, what.ref.object_key) == what.data

    def test_a_body_that_is_too_short_is_not_stored(self, storage: MultipartStorage) -> None:
        what = self.content()
        what.open(storage)
        with pytest.raises(StorageUnavailable):
            self.write(storage, what, 1, [what.part(1)[:-1]])
        assert storage.list_parts(what.ref) == {}

    def test_a_bound_hash_is_compared(self, storage: MultipartStorage) -> None:
        what = self.content()
        what.open(storage)
        if self.binds_hash:
            with pytest.raises(StorageUnavailable):
                self.write(storage, what, 1, [os.urandom(PART)])
            assert storage.list_parts(what.ref) == {}

    def test_no_part_is_written_into_an_upload_that_is_not_open(self, storage: MultipartStorage, put: Put) -> None:
        never, done, gone = self.content(), self.send(storage, put, self.content()), self.content()
        gone.open(storage)
        storage.complete(done.ref, done.hashes, nothing)
        storage.abort(gone.ref)
        for what in (never, done, gone):
            with pytest.raises(UploadGone):
                self.write(storage, what, 1)
        assert read(storage, done.ref.object_key) == done.data

    # -- complete

    @pytest.mark.parametrize("size", [1, PART - 1, PART, PART + 1, 2 * PART, 5 * PART + 1])
    def test_complete_makes_the_object_of_the_parts(self, storage: MultipartStorage, put: Put, size: int) -> None:
        what = self.send(storage, put, self.content(size))
        completed = storage.complete(what.ref, what.hashes, nothing)
        assert completed.verified == (self.compares or self.binds_hash)
        assert completed.sha256 in (what.sha256, None)
        assert storage.stat(what.ref.object_key) == size
        assert read(storage, what.ref.object_key) == what.data

    def test_complete_repeated_finds_the_work_done(self, storage: MultipartStorage, put: Put) -> None:
        what = self.send(storage, put, self.content())
        first = storage.complete(what.ref, what.hashes, nothing)
        for sent in (1, 2):
            completed, key = settle(storage, what, sent)
            assert completed == first
            assert read(storage, key) == what.data

    @pytest.mark.parametrize("size", [1, 3 * PART - 7])
    def test_what_is_settled_outlives_its_first_key(self, storage: MultipartStorage, put: Put, size: int) -> None:
        """A complete may have been sent, but was not: the object is made, and unused keys are retired."""
        what = self.send(storage, put, self.content(size))
        completed, key = settle(storage, what)
        assert completed.verified == (self.compares or self.binds_hash)
        if key != what.ref.object_key:
            storage.abort(what.ref)
            storage.delete(what.ref.object_key)
        assert read(storage, key) == what.data
        assert what.ref.upload_id not in set(storage.list_uploads())
        storage.delete(key)
        assert not {key, what.ref.object_key} & set(storage.list_objects())

    def test_where_neither_object_nor_parts_are_there_the_upload_is_gone(
        self, storage: MultipartStorage, put: Put
    ) -> None:
        what = self.send(storage, put, self.content())
        storage.abort(what.ref)
        with pytest.raises(UploadGone):
            settle(storage, what, 100)

    def test_parts_that_are_missing_are_named_behind_a_complete_as_well(
        self, storage: MultipartStorage, put: Put
    ) -> None:
        what = self.content()
        what.open(storage)
        assert put(what.ref, 2, what.part(2))
        with pytest.raises(PartMismatch) as caught:
            settle(storage, what)
        assert caught.value.parts == (1, 3)
        for number in (1, 3):
            assert put(what.ref, number, what.part(number))
        assert read(storage, settle(storage, what)[1]) == what.data

    def test_missing_parts_are_named_and_taken_afterwards(self, storage: MultipartStorage, put: Put) -> None:
        what = self.content(5 * PART)
        what.open(storage)
        for number in (1, 2, 5):
            assert put(what.ref, number, what.part(number))
        with pytest.raises(PartMismatch) as caught:
            storage.complete(what.ref, what.hashes, nothing)
        assert caught.value.parts == (3, 4)
        for number in (3, 4):
            assert put(what.ref, number, what.part(number))
        storage.complete(what.ref, what.hashes, nothing)
        assert read(storage, what.ref.object_key) == what.data

    def test_every_url_is_dead_after_complete(self, storage: MultipartStorage, put: Put) -> None:
        what = self.send(storage, put, self.content())
        storage.complete(what.ref, what.hashes, nothing)
        assert not put(what.ref, 1, what.part(1))
        assert read(storage, what.ref.object_key) == what.data

    # -- abort

    def test_abort_frees_the_parts_and_can_be_repeated(self, storage: MultipartStorage, put: Put) -> None:
        what = self.send(storage, put, self.content())
        storage.abort(what.ref)
        storage.abort(what.ref)
        with pytest.raises(UploadGone):
            storage.list_parts(what.ref)
        with pytest.raises(UploadGone):
            storage.complete(what.ref, what.hashes, nothing)
        assert not put(what.ref, 1, what.part(1))

    def test_aborting_an_upload_that_never_existed_succeeds(self, storage: MultipartStorage) -> None:
        storage.abort(self.content().ref)

    def test_abort_after_complete_leaves_the_object(self, storage: MultipartStorage, put: Put) -> None:
        what = self.send(storage, put, self.content())
        storage.complete(what.ref, what.hashes, nothing)
        storage.abort(what.ref)
        assert read(storage, what.ref.object_key) == what.data

    # -- objects

    @pytest.mark.parametrize(
        ("offset", "length"),
        [(0, None), (0, 0), (0, 1), (1, None), (PART - 1, 2), (2 * PART, PART), (5, 10 * PART), (10 * PART, 1)],
    )
    def test_any_range_is_read(self, storage: MultipartStorage, put: Put, offset: int, length: int | None) -> None:
        what = self.send(storage, put, self.content())
        storage.complete(what.ref, what.hashes, nothing)
        where = (offset,) if length is None else (offset, length)
        expected = what.data[offset:] if length is None else what.data[offset : offset + length]
        assert read(storage, what.ref.object_key, *where) == expected

    def test_an_object_that_does_not_exist_is_reported_as_missing(self, storage: MultipartStorage) -> None:
        key = self.content().ref.object_key
        with pytest.raises(ObjectNotFound):
            storage.stat(key)
        with pytest.raises(ObjectNotFound):
            storage.open(key)
        storage.delete(key)

    @pytest.mark.parametrize("size", [1, 2, PART + 1])
    def test_an_object_is_whole_if_its_first_and_last_byte_are_there(
        self, storage: MultipartStorage, put: Put, size: int
    ) -> None:
        what = self.send(storage, put, self.content(size))
        key = what.ref.object_key
        assert not is_whole(storage, key, size)
        storage.complete(what.ref, what.hashes, nothing)
        assert is_whole(storage, key, size)
        assert not is_whole(storage, key, size + 1)
        assert size == 1 or not is_whole(storage, key, size - 1)

    def test_delete_takes_the_object_alone_and_can_be_repeated(self, storage: MultipartStorage, put: Put) -> None:
        one, two = (self.send(storage, put, self.content()) for _ in range(2))
        for what in (one, two):
            storage.complete(what.ref, what.hashes, nothing)
        storage.delete(one.ref.object_key)
        storage.delete(one.ref.object_key)
        with pytest.raises(ObjectNotFound):
            storage.stat(one.ref.object_key)
        assert read(storage, two.ref.object_key) == two.data

    def test_objects_are_listed_in_order_and_after_any_key(self, storage: MultipartStorage, put: Put) -> None:
        made = [self.send(storage, put, self.content(1)) for _ in range(5)]
        unfinished = self.send(storage, put, self.content(1))
        for what in made:
            storage.complete(what.ref, what.hashes, nothing)
        keys = sorted(what.ref.object_key for what in made)
        mine = {*keys, unfinished.ref.object_key}

        def listed(after: str = "") -> list[str]:
            found = list(storage.list_objects(after))
            assert found == sorted(set(found))
            assert all(key > after for key in found)
            return [key for key in found if key in mine]

        assert listed() == keys
        for place, key in enumerate(keys):
            assert listed(key) == keys[place + 1 :]
            assert listed(key[:-1]) == keys[place:]
        storage.delete(keys[2])
        assert listed() == keys[:2] + keys[3:]

    def test_objects_of_others_are_not_listed(self, storage: MultipartStorage, put: Put) -> None:
        ours, theirs = self.content(1), self.content(1)
        theirs.ref = replace(theirs.ref, object_key=theirs.ref.object_key.replace(PREFIX, "0badcaff"))
        longer = self.content(1)
        longer.ref = replace(longer.ref, object_key=longer.ref.object_key.replace(PREFIX, f"{PREFIX}0"))
        for what in (ours, theirs, longer):
            self.send(storage, put, what)
            storage.complete(what.ref, what.hashes, nothing)
        found = set(storage.list_objects())
        assert ours.ref.object_key in found
        assert not {theirs.ref.object_key, longer.ref.object_key} & found

    def test_the_edge_gets_the_place_of_an_object(self, storage: MultipartStorage) -> None:
        key = self.content().ref.object_key
        assert key in storage.internal_uri(key)

    def test_a_storage_that_works_says_so_and_has_room_for_little(self, storage: MultipartStorage) -> None:
        storage.check()
        storage.check_room(digests.MIN_PART_SIZE, 1)


class ComparingContract(MultipartContract):
    """The contract for storages whose complete compares every byte, because nothing was compared before."""

    compares = True

    def test_a_part_sent_again_replaces_itself(self, storage: MultipartStorage, put: Put) -> None:
        what = self.content()
        what.open(storage)
        assert put(what.ref, 1, b"other")
        self.send(storage, put, what)
        storage.complete(what.ref, what.hashes, nothing)
        assert read(storage, what.ref.object_key) == what.data

    def test_no_part_is_taken_once_complete_has_begun(self, storage: MultipartStorage, put: Put) -> None:
        what = self.send(storage, put, self.content())
        seen: list[bool] = []
        storage.complete(what.ref, what.hashes, lambda: seen.append(True))
        assert seen  # long work can be stopped
        assert not put(what.ref, 1, b"x" * PART)
        assert read(storage, what.ref.object_key) == what.data

    def test_wrong_and_missing_parts_are_named_and_gone_and_taken_again(
        self, storage: MultipartStorage, put: Put
    ) -> None:
        what = self.content(5 * PART)
        what.open(storage)
        for number in (1, 2, 5):
            put(what.ref, number, what.part(number))
        put(what.ref, 3, b"x" * PART)
        with pytest.raises(PartMismatch) as caught:
            storage.complete(what.ref, what.hashes, nothing)
        named = set(caught.value.parts)
        assert named <= {3, 4}  # a backend may check lengths first, and bytes in the next try
        assert named
        assert set(storage.list_parts(what.ref)) == {1, 2, 3, 5} - named
        with pytest.raises(ObjectNotFound):
            storage.stat(what.ref.object_key)
        for number in (3, 4):
            assert put(what.ref, number, what.part(number))
        storage.complete(what.ref, what.hashes, nothing)
        assert read(storage, what.ref.object_key) == what.data

    @pytest.mark.parametrize("wrong", [[1], [2], [5], [1, 3, 5], [1, 2, 3, 4, 5]])
    def test_every_part_of_wrong_bytes_is_named_in_one_error(
        self, storage: MultipartStorage, put: Put, wrong: list[int]
    ) -> None:
        what = self.send(storage, put, self.content(4 * PART + 9))
        for number in wrong:
            put(what.ref, number, os.urandom(len(what.part(number))))
        with pytest.raises(PartMismatch) as caught:
            storage.complete(what.ref, what.hashes, nothing)
        assert list(caught.value.parts) == wrong
        assert set(storage.list_parts(what.ref)) == set(what.numbers) - set(wrong)

    @pytest.mark.parametrize("size", [PART, 2 * PART])
    @pytest.mark.parametrize("length", [0, 1, PART - 1, PART + 1])
    def test_a_part_of_another_length_is_wrong(
        self, storage: MultipartStorage, put: Put, size: int, length: int
    ) -> None:
        what = self.send(storage, put, self.content(size))
        put(what.ref, 1, (what.part(1) + b"x")[:length])
        with pytest.raises(PartMismatch) as caught:
            storage.complete(what.ref, what.hashes, nothing)
        assert caught.value.parts == (1,)

    def test_an_error_of_keep_alive_stops_the_work_and_a_repeat_continues(
        self, storage: MultipartStorage, put: Put
    ) -> None:
        class Stop(Exception):
            pass

        def stop() -> None:
            raise Stop

        for size in (PART, 9 * PART):
            what = self.send(storage, put, self.content(size))
            with pytest.raises(Stop):
                storage.complete(what.ref, what.hashes, stop)
            with pytest.raises(ObjectNotFound):
                storage.stat(what.ref.object_key)
            storage.complete(what.ref, what.hashes, nothing)
            assert read(storage, what.ref.object_key) == what.data

    def test_of_two_concurrent_completes_one_makes_the_object_and_none_breaks_it(
        self, storage: MultipartStorage, put: Put
    ) -> None:
        what = self.send(storage, put, self.content(20 * PART))
        barrier = threading.Barrier(4)
        outcomes: list[bytes | type[StorageError] | None] = []

        def run() -> None:
            barrier.wait()
            try:
                outcomes.append(storage.complete(what.ref, what.hashes, nothing).sha256)
            except (StorageUnavailable, ObjectNotFound) as ex:  # retryable
                outcomes.append(type(ex))

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert what.sha256 in outcomes
        assert len(outcomes) == 4
        assert storage.complete(what.ref, what.hashes, nothing).sha256 == what.sha256
        assert read(storage, what.ref.object_key) == what.data
        assert what.ref.upload_id not in set(storage.list_uploads())
