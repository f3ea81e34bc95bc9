"""Running gateways, checked for orphans and leaked secrets when a module has finished."""

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
    """A gateway in a temporary folder. At its end no log may contain a secret, and it must stop in order."""
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
    """The shared gateway, or a separate one with the module's SETTINGS.

    After the module nothing may be orphaned.
    """
    with contextlib.ExitStack() as stack:
        settings: dict[str, str] | None = getattr(request.module, "SETTINGS", None)
        found: Gateway = (
            request.getfixturevalue("shared_gateway") if settings is None else stack.enter_context(running(settings))
        )
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
    """A file of one whole part and a short one, with unique content."""
    return sources.make(PART + 1000, os.urandom(4).hex())


@pytest.fixture
def upload(user: Client, source: Source) -> Json:
    """A new upload of that file."""
    return user.create(source)
