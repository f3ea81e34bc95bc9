"""A disk that is full to the last byte, and stays so while servers are killed: what still works, and the recovery."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from scripts.stack.services import server_folder
from tests.disks import Filler, small_disk
from tests.e2e.client import Client, Json
from tests.e2e.gateway import SERVICES, Gateway
from tests.e2e.sources import MIB, Sources
from tests.run.running import processes_of

RECOVERY_SECONDS = 15


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A gateway whose data is on a separate disk."""
    with server_folder() as data, small_disk(data, 700):
        gateway = Gateway(data, {"SLUICE_MIN_FREE": str(32 * MIB)})
        try:
            yield gateway
            gateway.await_nothing_lost()
            gateway.stop()
        finally:
            gateway.close()


@pytest.fixture
def files(user: Client, sources: Sources) -> list[Json]:
    """A few files that are stored."""
    return [user.upload(sources.make(100_000, os.urandom(4).hex())) for _ in range(3)]


@pytest.fixture
def filler(gateway: Gateway, files: list[Json]) -> Iterator[Filler]:
    """The disk is full from here on."""
    filler = Filler(gateway.data / "filler")
    yield filler
    filler.remove()


def works_but_for_uploads(user: Client, files: list[Json], sources: Sources) -> None:
    """Reads, deletes and sign-ins work; an upload gets the right error."""
    user.another_machine()
    listed = {file["id"] for file in user.want(200, "GET", "/files")["items"]}
    assert {file["id"] for file in files} <= listed
    assert user.fetch(user.link(files[0])).status_code == 200
    user.want(204, "DELETE", f"/files/{files[-1]['id']}")
    user.want(200, "POST", f"/files/{files[-1]['id']}/restore")
    source = sources.make(100_000, os.urandom(4).hex())
    answer = user.call("POST", "/uploads", {"name": "x", "size": source.size, "digest": source.digest})
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "STORAGE_FULL")


def await_uploads(user: Client, sources: Sources) -> None:
    """Waits until an upload succeeds; the edge learns of the free space a moment after the API."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while True:
        try:
            user.upload(sources.make(100_000, os.urandom(4).hex()))
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)  # before the next try
        else:
            return


def test_only_uploads_stop_and_no_process_ends(
    gateway: Gateway, user: Client, files: list[Json], filler: Filler, sources: Sources
) -> None:
    before = {service: gateway.pids(service) for service in SERVICES}
    for _ in range(20):
        works_but_for_uploads(user, files, sources)
    assert {service: gateway.pids(service) for service in SERVICES} == before
    filler.remove()
    await_uploads(user, sources)


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_server_comes_back_while_the_disk_is_full(
    gateway: Gateway, user: Client, files: list[Json], filler: Filler, sources: Sources, service: str
) -> None:
    gateway.kill(service)()
    works_but_for_uploads(user, files, sources)
    if len(gateway.pids(service)) > 1:
        gateway.kill(service, child=True)()
        works_but_for_uploads(user, files, sources)
    filler.remove()
    await_uploads(user, sources)


def test_a_killed_supervisor_can_be_started_again_while_the_disk_is_full(
    gateway: Gateway, user: Client, files: list[Json], filler: Filler, sources: Sources
) -> None:
    api = gateway.stack.pid("api")
    os.kill(api, signal.SIGSTOP)  # its supervisor's death sends it a signal, which it cannot handle while it is stopped
    gateway.stack.process.kill()
    begun = time.monotonic()
    gateway.restart_after_kill()
    assert time.monotonic() - begun < 30
    assert api not in processes_of(gateway.data)
    works_but_for_uploads(user, files, sources)
    filler.remove()
    await_uploads(user, sources)
