"""The engine, the images and a running project: for `scripts/test-compose`; a plain pytest leaves these tests out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.compose import figures
from tests.compose.engine import CannotStart, engine, make_base, make_standins
from tests.compose.stack import Stack, running
from tests.e2e.client import Client
from tests.e2e.leaks import Secrets
from tests.e2e.sources import Source

FOLDER = os.environ.get("TEST_ENGINE_FOLDER")
if not FOLDER:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An engine with every image; DOCKER_HOST names it."""
    assert FOLDER
    folder = Path(FOLDER)
    given = os.environ.get("DOCKER_HOST")
    with ExitStack() as ends:
        try:
            os.environ["DOCKER_HOST"] = ends.enter_context(engine(folder))
        except CannotStart as ex:
            pytest.skip(f"LEFT OUT: NO CONTAINER ENGINE CAN BE STARTED HERE: {ex}")
        if not given:
            make_base(folder)
            make_standins("mariadb", "redis", "rabbitmq")
        os.environ.update(COMPOSE_DOCKER_CLI_BUILD="0", DOCKER_BUILDKIT="0")
        builder = Stack("sluice-build", tmp_path_factory.mktemp("build"), {"COMPOSE_PROFILES": "ceph"})
        builder.compose("build")
        figures.note_images()
        yield
        if not given:
            del os.environ["DOCKER_HOST"]


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if lines := figures.lines():
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def stack(docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The project that most tests share, up from nothing."""
    with running("sluice-test", tmp_path_factory.mktemp("stack")) as made:
        began = time.monotonic()
        made.up()
        made.wait_until_ready()
        figures.note("`up` from built images to a ready edge", f"{time.monotonic() - began:.0f} s")
        yield made


@pytest.fixture(scope="session")
def secrets() -> Secrets:
    """Every secret that the clients of this run saw."""
    return Secrets()


@pytest.fixture
def client(stack: Stack, secrets: Secrets) -> Iterator[Client]:
    made = Client(stack.address, secrets).sign_up()
    yield made
    made.close()


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Three parts of content that nobody has."""
    return make_source(tmp_path / "content", 20_000_000)


def make_source(path: Path, size: int) -> Source:
    path.write_bytes(os.urandom(size))
    return Source(path, size)
