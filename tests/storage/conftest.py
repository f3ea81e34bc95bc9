"""A stand-in for OSS for each test of storage oss. tests/conftest.py has the real Ceph for storage s3."""

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
    """A separate OSS, which accepts parts as small as the contract's."""
    with oss_standin.running(ACCOUNT, Bucket(min_part=PART)) as made:
        yield made


@pytest.fixture
def pauses() -> list[float]:
    """The seconds of each pause between two tries."""
    return []


@pytest.fixture
def make_oss(standin: Standin, pauses: list[float]) -> MakeOSS:
    """Makes a storage that records pauses instead of sleeping."""
    return lambda **changes: OSSStorage(standin.settings(**changes), lambda: PREFIX, sleep=pauses.append)


@pytest.fixture
def storage(make_oss: MakeOSS) -> OSSStorage:
    """Storage oss; test files about another storage define another one."""
    return make_oss()


@pytest.fixture
def sent(storage: OSSStorage) -> Content:
    """An open upload with all of its parts."""
    return sent_parts(storage)
