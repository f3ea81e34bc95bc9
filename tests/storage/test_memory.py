"""Storage ``memory`` keeps the contract."""

from __future__ import annotations

import pytest

from api.core.errors import UploadGone
from api.storage.base import MultipartRef
from api.storage.memory import MemoryStorage
from tests.storage.contract import PREFIX, ComparingContract, Put


class TestMemoryStorage(ComparingContract):
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
