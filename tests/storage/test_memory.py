"""Storage ``memory`` fulfils the contract."""

from __future__ import annotations

import pytest

from api.core.errors import CompleteDoubtful, UploadGone
from api.storage.base import MultipartRef
from api.storage.memory import MemoryStorage
from api.storage.wholeness import is_whole
from tests.storage.contract import PREFIX, ComparingContract, Put, nothing, read, settle


class TestMemoryStorage(ComparingContract):
    """It compares every part, as local storage does."""

    @pytest.fixture
    def storage(self) -> MemoryStorage:
        return MemoryStorage(prefix=lambda: PREFIX)

    @pytest.fixture
    def put(self, storage: MemoryStorage) -> Put:
        def send(ref: MultipartRef, number: int, data: bytes) -> bool:
            try:
                storage.put_part(ref, number, data)
            except UploadGone:
                return False
            return True

        return send


class TestDoubtfulMemoryStorage(TestMemoryStorage):
    """It doubts completes that were sent before, as storage s3 does."""

    @pytest.fixture
    def storage(self) -> MemoryStorage:
        return MemoryStorage(prefix=lambda: PREFIX, doubtful=True)

    @pytest.mark.parametrize("cut", ["unmade", "open", "closed"])
    def test_a_complete_that_is_cut_off_loses_nothing_behind_the_recipe(
        self, storage: MemoryStorage, put: Put, cut: str
    ) -> None:
        what = self.send(storage, put, self.content())
        storage.cut = cut
        with pytest.raises(CompleteDoubtful):
            storage.complete(what.ref, what.hashes, nothing)
        storage.cut = ""
        key = settle(storage, what)[1]
        storage.abort(what.ref)
        assert read(storage, key) == what.data
        assert is_whole(storage, key, what.ref.size)

    def test_an_abort_takes_the_bytes_of_an_object_whose_upload_is_open(self, storage: MemoryStorage, put: Put) -> None:
        what = self.send(storage, put, self.content())
        storage.cut = "open"
        with pytest.raises(CompleteDoubtful):
            storage.complete(what.ref, what.hashes, nothing)
        assert read(storage, what.ref.object_key) == what.data
        storage.abort(what.ref)
        assert storage.stat(what.ref.object_key) == what.ref.size
        assert not is_whole(storage, what.ref.object_key, what.ref.size)
