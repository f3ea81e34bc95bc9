"""Both kinds of queue, started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scripts.stack.services import server_folder, started
from tests.conftest import Servers
from tests.jobs.rabbitmq import RabbitMQ


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A RabbitMQ node."""
    with server_folder() as folder, started(RabbitMQ(folder)) as server:
        yield server


@pytest.fixture(params=["redis", "rabbitmq"])
def queue_url(request: pytest.FixtureRequest, servers: Servers) -> str:
    """The queue's URL. Tests that use this run with both kinds."""
    if request.param == "redis":
        return servers.redis_url
    return str(request.getfixturevalue("rabbitmq").url)
