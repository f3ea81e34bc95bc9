"""One real Ceph for all tests of storage s3, and a stand-in for OSS for each of storage oss."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.config import Config as BotoConfig

from api.config import S3Config
from api.storage.oss import OSSStorage
from tests.storage import oss_standin
from tests.storage.ceph import Ceph, installed, running
from tests.storage.contract import PART, PREFIX
from tests.storage.oss_bucket import Bucket
from tests.storage.oss_client import MakeOSS
from tests.storage.oss_standin import ACCOUNT, Standin


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """A running Ceph with an empty bucket."""
    if not installed():
        pytest.fail("Ceph is not installed: scripts/install --dev brings it")
    with running(Path(tmp_path_factory.mktemp("ceph")) / "ceph") as made:
        settings = made.settings
        boto3.client(
            "s3",
            endpoint_url=settings["SLUICE_S3_ENDPOINT"],
            aws_access_key_id=settings["SLUICE_S3_ACCESS_KEY"],
            aws_secret_access_key=settings["SLUICE_S3_SECRET_KEY"],
            region_name="us-east-1",
            config=BotoConfig(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        ).create_bucket(Bucket=settings["SLUICE_S3_BUCKET"])
        yield made


@pytest.fixture(scope="session")
def s3_config(ceph: Ceph) -> S3Config:
    """How to reach its bucket."""
    settings = ceph.settings
    return S3Config(
        endpoint=settings["SLUICE_S3_ENDPOINT"],
        public_endpoint="",
        bucket=settings["SLUICE_S3_BUCKET"],
        access_key=settings["SLUICE_S3_ACCESS_KEY"],
        secret_key=settings["SLUICE_S3_SECRET_KEY"],
        session_token="",
        region="us-east-1",
        virtual_hosted=False,
        via_edge=False,
    )


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
