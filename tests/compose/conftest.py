"""A running project, for `scripts/test-compose` with its engine and images; a plain pytest skips these tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose import figures
from tests.compose.stack import Stack, running
from tests.e2e.client import Client
from tests.e2e.leaks import Secrets
from tests.e2e.sources import Source

if "TEST_FIGURES" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The project that most tests share, started from nothing."""
    with running("sluice-test", tmp_path_factory.mktemp("stack")) as made:
        figures.note("`up` from built images to a ready edge", f"{made.seconds_until_ready():.0f} s")
        made.wait_until_ready()
        yield made


@pytest.fixture(scope="session")
def secrets() -> Secrets:
    """Every secret that the clients of this run used."""
    return Secrets()


@pytest.fixture
def client(stack: Stack, secrets: Secrets) -> Iterator[Client]:
    made = Client(stack.address, secrets).sign_up()
    yield made
    made.close()


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Three parts of content that no other user has."""
    return make_source(tmp_path / "content", 20_000_000)


def make_source(path: Path, size: int) -> Source:
    path.write_bytes(os.urandom(size))
    return Source(path, size)
