"""A running stack: its output, its secrets, and that a killed server comes back."""

import os
import re
import signal
import stat
from pathlib import Path

import pytest

from scripts.stack.services import MariaDB, Redis
from tests.run.conftest import Start
from tests.run.running import RunningStack, processes_of, sign_in
from tests.waiting import await_true


def children(stack: RunningStack, service: str) -> list[int]:
    """The running children of a server's first process."""
    assert stack.data
    parent = str(stack.pid(service))
    return [
        pid
        for pid in processes_of(stack.data)
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] == parent
    ]


def test_the_first_start_says_where_it_runs_and_shows_a_password_that_works(stack: RunningStack) -> None:
    password = stack.read_until(r"sign in as admin with the password (\S+) \(shown this once\)").group(1)
    assert f"Sluice answers at http://127.0.0.1:{stack.port} " in stack.output
    assert f"data      {stack.data}, as user " in stack.output
    assert sign_in(stack.port, password) == "Bearer"


def test_secrets_are_their_owners_alone(stack: RunningStack) -> None:
    assert stack.data
    folder = stack.data / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"token_keys": 0o600, "edge_key": 0o600, "admin": 0o600}
    assert re.fullmatch(r"[0-9a-f]{64}\n", (folder / "token_keys").read_text())
    assert (folder / "admin").read_text() == "", "the shown password is not stored"


def test_no_server_runs_as_root(stack: RunningStack) -> None:
    for service in ("mariadb", "redis", "api", "worker", "nginx"):
        for pid in (stack.pid(service), *children(stack, service)):
            assert os.stat(f"/proc/{pid}").st_uid != 0, service


def test_a_second_run_on_the_same_data_is_refused(stack: RunningStack, start: Start) -> None:
    second = start(stack.data)
    assert second.end() == 1
    assert f"already running, pid {stack.process.pid}\n" in second.output
    assert stack.get("/readyz") == 200


def test_a_port_in_use_is_one_line_and_nothing_is_started(stack: RunningStack, start: Start, data: Path) -> None:
    second = start(port=stack.port)
    assert second.end() == 1
    assert second.output.splitlines()[-1] == f"sluice: port {stack.port} is in use"
    assert not (data / "mariadb").exists()
    assert stack.get("/readyz") == 200


@pytest.mark.parametrize("service", ["nginx", "api", "worker", "redis", "mariadb"])
def test_a_killed_server_is_started_again(stack: RunningStack, service: str) -> None:
    killed = stack.pid(service)
    os.kill(killed, signal.SIGKILL)
    stack.read_until(rf"sluice: {service} was killed by SIGKILL; starting it again\n")
    assert stack.data
    server = {"redis": Redis, "mariadb": MariaDB}.get(service)
    await_true(lambda: stack.pid(service) != killed)
    await_true(lambda: server is None or server(stack.data).ready())
    await_true(lambda: stack.get("/readyz") == 200)


@pytest.mark.parametrize("service", ["nginx", "api"])
def test_a_killed_worker_process_is_replaced(stack: RunningStack, service: str) -> None:
    killed = children(stack, service)
    assert killed
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    await_true(lambda: bool(set(children(stack, service)) - set(killed)))
    await_true(lambda: stack.get("/readyz") == 200)
