"""Fixtures of the tests of `scripts/run`."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.stack.services import server_folder
from tests.run.running import RunningStack

Start = Callable[..., RunningStack]


@pytest.fixture
def data() -> Iterator[Path]:
    """An empty data folder that the servers' user may use."""
    with server_folder() as folder:
        yield folder


@pytest.fixture
def start(data: Path) -> Iterator[Start]:
    """Starts stacks, by default on this test's data folder, and ends them."""
    stacks: list[RunningStack] = []

    def start_one(folder: Path | None = data, **options: object) -> RunningStack:
        stacks.append(RunningStack(folder, **options))  # type: ignore[arg-type]
        return stacks[-1]

    yield start_one
    for stack in stacks:
        stack.close()


@pytest.fixture(scope="module")
def stack() -> Iterator[RunningStack]:
    """One running stack for a whole module."""
    with server_folder() as folder:
        running = RunningStack(folder)
        try:
            yield running.ready()
        finally:
            running.close()


@pytest.fixture
def root_only() -> None:
    """Skips tests that only root can run."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
