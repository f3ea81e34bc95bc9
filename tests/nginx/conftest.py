"""Fixtures: one nginx for tests that leave no traces, and a new one for those that do."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.nginx import stub_storage
from tests.nginx.edge import Edge
from tests.nginx.stub_api import Answer
from tests.nginx.stub_dns import StubDNS
from tests.nginx.stub_storage import StubStorage


@pytest.fixture(scope="session")
def shared_edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    edge = Edge(tmp_path_factory.mktemp("edge"))
    yield edge
    edge.stop()


@pytest.fixture
def edge(shared_edge: Edge) -> Edge:
    """The nginx that most tests share, with an API without any state."""
    shared_edge.api.seen.clear()
    shared_edge.api.answer = lambda seen: Answer()
    return shared_edge


@pytest.fixture
def make_edge(tmp_path: Path) -> Iterator[Callable[..., Edge]]:
    """Starts an nginx for this test only."""
    edges: list[Edge] = []

    def make(**options: Any) -> Edge:
        edges.append(Edge(tmp_path / str(len(edges)), **options))
        return edges[-1]

    yield make
    for edge in edges:
        edge.stop()


@pytest.fixture
def storage() -> Iterator[StubStorage]:
    """A proxied storage for this test only."""
    with stub_storage.running() as made:
        yield made


@pytest.fixture
def dns() -> Iterator[StubDNS]:
    made = StubDNS()
    yield made
    made.socket.close()
