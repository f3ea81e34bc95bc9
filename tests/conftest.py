"""Real MariaDB, Redis and Ceph for every test that needs them, started once, in private folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.core.config import S3Config
from scripts.stack.services import MariaDB, Redis, server_folder, started
from tests.storage.ceph import Ceph, installed, running


@dataclass(frozen=True)
class Servers:
    """The addresses of the run's servers.

    Attributes:
        folder: readable by the servers' user.
    """

    folder: Path
    database_url: str
    redis_url: str


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """MariaDB (without fsync) and Redis."""
    with (
        server_folder() as folder,
        started(MariaDB(folder, durable=False, databases="sluice%")) as database,
        started(Redis(folder)) as redis,
    ):
        yield Servers(folder, database.url, redis.url)


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """A running Ceph with an empty bucket."""
    import boto3  # takes 0.3 s, so only tests that need it import it
    from botocore.config import Config as BotoConfig

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
    """The bucket's address and keys."""
    settings = ceph.settings
    return S3Config(
        single_put_max=8 * 1024**2,
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
