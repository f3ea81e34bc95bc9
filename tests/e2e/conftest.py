"""Running gateways, looked through when a module is done with them."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.stack.services import server_folder
from tests.e2e.client import Client, Json
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART, Source, Sources


@contextlib.contextmanager
def running(settings: dict[str, str]) -> Iterator[Gateway]:
    """A gateway in a temporary folder. At its end no secret may stand in a log, and it must stop orderly."""
    with server_folder() as data:
        gateway = Gateway(data, settings)
        try:
            yield gateway
            gateway.stop()
            assert gateway.leaks() == []
        finally:
            gateway.close()


@pytest.fixture(scope="session")
def shared_gateway() -> Iterator[Gateway]:
    """The gateway of every module that breaks none of its servers."""
    with running({}) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """The shared gateway, or one of the module's own with the settings that it names in SETTINGS.

    When the module is done nothing may be orphaned.
    """
    with contextlib.ExitStack() as stack:
        settings = getattr(request.module, "SETTINGS", None)
        shared = settings is None
        found = request.getfixturevalue("shared_gateway") if shared else stack.enter_context(running(settings))
        yield found
        found.await_nothing_lost()


@pytest.fixture(scope="module")
def user(gateway: Gateway) -> Client:
    """A user of the module's gateway."""
    return gateway.user()


@pytest.fixture(scope="module")
def other(gateway: Gateway) -> Client:
    """Another user."""
    return gateway.user()


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """Files to upload."""
    return Sources(tmp_path)


@pytest.fixture
def source(sources: Sources) -> Source:
    """A file of one whole part and a short one, unlike any other."""
    return sources.make(PART + 1000, os.urandom(4).hex())


@pytest.fixture
def upload(user: Client, source: Source) -> Json:
    """An upload of that file that has just begun."""
    return user.create(source)
