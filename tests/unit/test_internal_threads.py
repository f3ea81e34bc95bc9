"""gunicorn's second listener: the edge's internal calls are answered while all other threads are busy."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import await_true

CODE = Path(__file__).parents[2]
DEADLINE = 20.0
WAITING = 12
"""Concurrent calls: more than the only process has threads (1) and connections (4)."""


def app(environ: Any, start_response: Any) -> list[bytes]:
    """Notes a call to /slow in a folder, and answers it once a file exists. Answers all other calls immediately."""
    folder = Path(os.environ["TEST_FOLDER"])
    if environ["PATH_INFO"] == "/slow":
        (folder / f"began-{threading.get_ident()}-{time.monotonic_ns()}").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)  # polls in the server: a file sends no event
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


class OverSocket(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=DEADLINE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(os.fspath(self._path))


def ask(connection: http.client.HTTPConnection, path: str) -> bytes:
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    except OSError:
        return b""
    finally:
        connection.close()


def start(folder: Path, bind: str, *options: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "SLUICE_API_BIND": bind, "TEST_FOLDER": str(folder)}
    environment |= {"SLUICE_API_WORKERS": "1", "SLUICE_API_THREADS": "1"}
    command = [sys.executable, "-m", "gunicorn", "-c", "api/gunicorn_conf.py", *options]
    return subprocess.Popen([*command, "tests.unit.test_internal_threads:app"], cwd=CODE, env=environment)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    """One process with one thread and four connections. Yields the path of its socket."""
    path = tmp_path / "s"
    with start(tmp_path, f"unix:{path}", "--worker-connections", "4") as process:
        try:
            await_true(lambda: ask(OverSocket(path), "/") == b"ok")
            yield path
        finally:
            (tmp_path / "go").touch()
            process.terminate()
            assert process.wait(DEADLINE) == 0


def test_the_edges_questions_are_answered_while_every_other_thread_is_busy(server: Path, tmp_path: Path) -> None:
    answers: list[bytes] = []
    calls = [
        threading.Thread(target=lambda: answers.append(ask(OverSocket(server), "/slow")), daemon=True)
        for _ in range(WAITING)
    ]
    for call in calls:
        call.start()
    await_true(lambda: list(tmp_path.glob("began-*")))
    own = Path(f"{server}.internal")
    for _ in range(20):
        assert ask(OverSocket(own), "/") == b"ok"
    assert len(list(tmp_path.glob("began-*"))) == 1, "one thread, one call"
    assert answers == []
    (tmp_path / "go").touch()
    for call in calls:
        call.join(DEADLINE)
    assert answers == [b"ok"] * WAITING
    assert ask(OverSocket(own), "/") == b"ok"
    assert ask(OverSocket(server), "/") == b"ok"


def test_by_tcp_it_is_the_next_port(tmp_path: Path) -> None:
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
                break
            except OSError:
                continue
    with start(tmp_path, f"127.0.0.1:{port}") as process:
        try:
            await_true(lambda: ask(http.client.HTTPConnection("127.0.0.1", port + 1), "/") == b"ok")
            assert ask(http.client.HTTPConnection("127.0.0.1", port), "/") == b"ok"
        finally:
            process.terminate()
            assert process.wait(DEADLINE) == 0


def test_what_is_no_address_is_named_in_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "SLUICE_API_BIND": "here"}
    command = [sys.executable, "-m", "gunicorn", "-c", "api/gunicorn_conf.py", "tests.unit.test_internal_threads:app"]
    result = subprocess.run(command, cwd=CODE, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "SLUICE_API_BIND is HOST:PORT or unix:PATH\n")
