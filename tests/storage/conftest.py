"""A stand-in for OSS for each test of storage oss. The real Ceph for storage s3 is in tests/conftest.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.storage.oss.storage import OSSStorage
from tests.storage import oss_standin
from tests.storage.contract import PART, PREFIX, Content
from tests.storage.oss_bucket import Bucket
from tests.storage.oss_client import MakeOSS, sent_parts
from tests.storage.oss_standin import ACCOUNT, Standin


@pytest.fixture
def standin() -> Iterator[Standin]:
    """An OSS of its own, which takes parts as small as the contract's."""
    with oss_standin.running(ACCOUNT, Bucket(min_part=PART)) as made:
        yield made


@pytest.fixture
def pauses() -> list[float]:
    """Seconds of each pause between two tries."""
    return []


@pytest.fixture
def make_oss(standin: Standin, pauses: list[float]) -> MakeOSS:
    """Makes a storage that does not really pause."""
    return lambda **changes: OSSStorage(standin.settings(**changes), lambda: PREFIX, sleep=pauses.append)


@pytest.fixture
def storage(make_oss: MakeOSS) -> OSSStorage:
    """Storage oss; a file about another storage has its own."""
    return make_oss()


@pytest.fixture
def sent(storage: OSSStorage) -> Content:
    """An upload to it with every part there."""
    return sent_parts(storage)
