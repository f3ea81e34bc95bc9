"""Servers that hang, or that cannot do all of their work at the start: reactions and messages."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.stack.services import server_folder
from tests.run.conftest import Start
from tests.run.running import RunningStack, processes_of
from tests.servers import free_port
from tests.waiting import await_true

HANG_SECONDS = 3
SECOND_STORAGE = {
    "SLUICE_STORAGES": "main:local,away:s3",
    "SLUICE_S3_AWAY_BUCKET": "bucket",
    "SLUICE_S3_AWAY_ACCESS_KEY": "key",
    "SLUICE_S3_AWAY_SECRET_KEY": "secret",
}


@pytest.fixture(scope="module")
def stack() -> Iterator[RunningStack]:
    """A stack whose servers may hang for a few seconds only."""
    with server_folder() as folder:
        running = RunningStack(folder, environment={"STACK_HANG_SECONDS": str(HANG_SECONDS)})
        try:
            yield running.ready()
        finally:
            running.close()


@pytest.mark.parametrize("service", ["nginx", "api", "worker", "redis", "mariadb"])
def test_a_server_that_hangs_is_started_again(stack: RunningStack, service: str) -> None:
    assert stack.data
    first = stack.pid(service)
    group = [pid for pid in processes_of(stack.data) if os.getsid(pid) == first]
    for pid in group:
        os.kill(pid, signal.SIGSTOP)
    stack.read_until(rf"{service} gave no answer for \d+ s: it is killed\n", 30)
    stack.read_until(rf"{service} was killed by SIGKILL; starting it again\n")
    await_true(lambda: stack.pid(service) != first)
    await_true(lambda: stack.get("/readyz") == 200)
    assert not set(group) & set(processes_of(stack.data))


def test_an_api_whose_threads_for_clients_all_stand_still_is_started_again(stack: RunningStack) -> None:
    assert stack.data
    await_true(lambda: stack.get("/readyz") == 200)
    first = stack.pid("api")
    with contextlib.ExitStack() as open_connections:
        for _ in range(64):  # more than there are threads: each waits for the rest of a request
            connection = open_connections.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(stack.data / "run" / "api.sock"))
            connection.sendall(b"GET /heal")
        stack.read_until(r"api gave no answer for \d+ s: it is killed\n", 60)
        await_true(lambda: stack.pid("api") != first)
    await_true(lambda: stack.get("/readyz") == 200)


def test_a_stack_that_stood_still_kills_no_server(stack: RunningStack) -> None:
    services = ("nginx", "api", "worker", "redis", "mariadb")
    await_true(lambda: stack.get("/readyz") == 200)
    before = {service: stack.pid(service) for service in services}
    os.kill(stack.process.pid, signal.SIGSTOP)
    time.sleep(HANG_SECONDS * 2)  # checks that nothing happens during this time
    os.kill(stack.process.pid, signal.SIGCONT)
    time.sleep(HANG_SECONDS)  # as above
    assert {service: stack.pid(service) for service in services} == before


def test_an_edge_that_is_not_ready_stops_nothing(start: Start, data: Path) -> None:
    settings = {"STACK_READY_SECONDS": "3", "SLUICE_STORAGES": "away:s3,main:local"}
    settings.update({k: v for k, v in SECOND_STORAGE.items() if k != "SLUICE_STORAGES"})
    settings["SLUICE_S3_AWAY_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
    stack = start(environment=settings)
    stack.read_until(r"nginx is not ready after 3 s: storage:away: .+; startup continues\n")
    stack.ready()
    assert stack.get("/healthz") == 200
    assert stack.get("/readyz") == 503
    stack.read_until("not well: storage:away: ")
    assert stack.stop() == 0


def test_a_second_storage_that_is_away_is_named_and_holds_up_nothing(start: Start) -> None:
    settings = {**SECOND_STORAGE, "SLUICE_S3_AWAY_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    begun = time.monotonic()
    stack = start(environment=settings).ready()
    assert "not ready" not in stack.output
    assert time.monotonic() - begun < 60
    assert stack.get("/readyz") == 200
    stack.read_until("not well: storage:away: ")
    assert stack.stop() == 0
