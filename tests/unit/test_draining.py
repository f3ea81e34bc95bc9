"""gunicorn with Sluice's settings: after SIGTERM it keeps serving for a while and reports that it stops."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from api.operations import draining
from tests.waiting import await_true

CODE = Path(__file__).parents[2]
DEADLINE = 30.0


def app(environ: object, start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    """The application that gunicorn runs here: returns the worker's state."""
    start_response("200 OK", [("Content-Length", "1")])
    return [b"1" if draining.begun() else b"0"]


def ask(path: Path) -> bytes:
    """Its response; empty if there is none."""
    connection = http.client.HTTPConnection("localhost", timeout=5)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(os.fspath(path))
        connection.request("GET", "/")
        return connection.getresponse().read()
    except OSError:
        return b""
    finally:
        connection.close()


def wait_for(path: Path, answer: bytes) -> None:
    await_true(lambda: ask(path) == answer, DEADLINE)


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    path = tmp_path / "s"
    environment = {**os.environ, "SLUICE_API_BIND": f"unix:{path}", "SLUICE_API_DRAIN": request.param}
    command = [sys.executable, "-m", "gunicorn", "-c", "api/gunicorn_conf.py", "tests.unit.test_draining:app"]
    with subprocess.Popen(command, cwd=CODE, env=environment) as process:
        try:
            wait_for(path, b"0")
            yield process, path
        finally:
            process.kill()


@pytest.mark.parametrize("server", ["1"], indirect=True)
def test_it_serves_on_for_a_while_and_says_so(server: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, path = server
    process.send_signal(signal.SIGTERM)
    wait_for(path, b"1")
    assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize("server", ["600"], indirect=True)
def test_a_second_sigterm_does_not_wait(server: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, path = server
    process.send_signal(signal.SIGTERM)
    wait_for(path, b"1")
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize("server", ["0"], indirect=True)
def test_by_default_it_stops_immediately(server: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, _ = server
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize("name", ["SLUICE_API_DRAIN", "SLUICE_API_WORKERS", "SLUICE_API_THREADS"])
def test_a_number_that_is_none_is_named_in_one_line(name: str) -> None:
    command = [sys.executable, "-m", "gunicorn", "-c", "api/gunicorn_conf.py", "tests.unit.test_draining:app"]
    environment = {**os.environ, name: "two"}
    result = subprocess.run(command, cwd=CODE, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, f"{name} is a whole number\n")
