"""Peers from registries: the paths of their programs, and their servers while they are measured."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from loadtest.benchmarks.measure import LeftOut, family
from loadtest.benchmarks.stack import ROOT, end

FOLDER = ROOT / "var" / "peers"
_wanted: list[frozenset[str]] = []


def only(names: Iterable[str]) -> None:
    """Leaves out every peer that is not named."""
    _wanted[:] = [frozenset(names)]


def need(*names: str) -> Path:
    """The folder of the peers, with these installed.

    Raises:
        LeftOut: one cannot be installed here, or is not wanted.
    """
    if _wanted and (others := set(names) - _wanted[0]):
        raise LeftOut(f"{', '.join(sorted(others))}: not among --peers")
    result = subprocess.run(
        [ROOT / "loadtest" / "peers" / "install", *names], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise LeftOut(result.stderr.strip().splitlines()[-1] if result.stderr.strip() else "cannot be installed")
    return FOLDER


def node() -> str:
    """The path of Node. Raises LeftOut."""
    found = shutil.which("node")
    if found is None:
        raise LeftOut("there is no node on this machine")
    return found


@contextmanager
def serving(
    command: Sequence[str | Path],
    port: int | None,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    ready: Callable[[], bool] | None = None,
    patient: bool = False,
) -> Iterator[Server]:
    """Runs a server while the block runs; its output goes to a file in `folder`.

    Args:
        ready: whether it serves; by default, whether its port answers.
        patient: for servers whose workers start long after the port answers.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "AWS_"))}
    environ |= environment or {}
    with (folder / f"server-{port}.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=environ)
        try:
            _await(process, ready or (lambda: _listens(port or 0)), Path(log.name))
            if patient:
                time.sleep(3)  # it listens before it can serve
            yield Server(process.pid)
        finally:
            end(process, 10)


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def _await(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        if ready():
            return
        time.sleep(0.05)  # a poll: other processes send no event
    raise LeftOut(f"the server did not start: {' '.join(log.read_text(errors='replace').split())[-300:]}")


class Server:
    """A peer's server."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    @property
    def pids(self) -> list[int]:
        """The process and its children."""
        return family(self._pid)
