"""Real MariaDB and Redis for every test that needs them, started once, in a folder of the run's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.stack.services import MariaDB, Redis, server_folder, started


@dataclass(frozen=True)
class Servers:
    """Where the run's servers are.

    Attributes:
        folder: can be entered by the servers' user.
    """

    folder: Path
    database_url: str
    redis_url: str


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """MariaDB (without waiting for the disk) and Redis."""
    with (
        server_folder() as folder,
        started(MariaDB(folder, durable=False, databases="sluice%")) as database,
        started(Redis(folder)) as redis,
    ):
        yield Servers(folder, database.url, redis.url)
