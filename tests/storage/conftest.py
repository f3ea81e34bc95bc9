"""One real Ceph for all tests of storage s3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.config import Config as BotoConfig

from api.config import S3Config
from tests.storage.ceph import Ceph, installed, running


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
