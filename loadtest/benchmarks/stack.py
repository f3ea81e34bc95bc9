"""The bench's private stack: `scripts/run` with its defaults, on a free port, in a temporary folder."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pymysql

from loadtest.benchmarks.measure import family

ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 120
# One user and one address send more than the defaults allow. Every limit is checked, and none is reached.
_UNMET = {
    "SLUICE_TIERS": "default:calls=0,api=1000000/1000000,part=1000000/1000000,download=1000000/1000000",
    "SLUICE_ADDRESS_RATE": "1000000",
    "SLUICE_ADDRESS_CONNECTIONS": "65535",
    "SLUICE_SIGNIN_RATE": "1000000",
    "SLUICE_SIGNUP_RATE": "1000000",
}


def free_port() -> int:
    """A free port on the loopback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def scratch(name: str, below: Path) -> Iterator[Path]:
    """A folder that every user may enter, removed at the block's end.

    SIGTERM ends the block like Ctrl-C, so that all started processes end with it; the exit code is 130 then.
    """

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the servers get their time to stop
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    folder = Path(tempfile.mkdtemp(prefix=f"sluice-{name}-", dir=below))
    folder.chmod(0o755)
    try:
        yield folder
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def end(process: subprocess.Popen[Any], seconds: float) -> None:
    """Asks a process to end, and kills it if it does not end in time."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def many_files() -> None:
    """Raises this process's limit of open files to its maximum; a running stack keeps its limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Stack:
    """`scripts/run`, from its start to its end. Use it as a context manager.

    Args:
        folder: an empty folder that every user may enter; data and output go there.
        options: further options of `scripts/run`.
        settings: SLUICE_… of this stack.
    """

    def __init__(self, folder: Path, *options: str, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        self._options = options
        self._settings = settings
        self.data = folder / "stack"
        self.port = free_port()
        self._output = folder / "stack.log"

    def __enter__(self) -> Stack:
        arguments = ["--host", "127.0.0.1", "--port", str(self.port), "--data", str(self.data), *self._options]
        # the defaults are measured, not settings of the user's shell
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")} | _UNMET
        environment |= self._settings
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "--", str(ROOT / "scripts" / "run"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        try:
            self._await_start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _await_start(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while "\n  settings " not in self._output.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the stack did not start:\n" + self._output.read_text())
            time.sleep(0.1)  # a poll: a file sends no event

    def __exit__(self, *_: object) -> None:
        end(self._process, 60)  # even if it was killed, the servers die with their parent

    # -- processes

    def _pid(self, service: str) -> int:
        return int((self.data / "run" / "pids" / service).read_text().split()[0])

    @property
    def edge(self) -> list[int]:
        """nginx's workers, without the cache loader, which ends after a minute."""
        children = family(self._pid("nginx"))[1:]
        return [pid for pid in children if b"worker process" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    @property
    def edge_master(self) -> int:
        return self._pid("nginx")

    @property
    def api(self) -> list[int]:
        """gunicorn and its workers."""
        return family(self._pid("api"))

    @property
    def worker(self) -> list[int]:
        return family(self._pid("worker"))

    @property
    def database_server(self) -> list[int]:
        return [self._pid("mariadb")]

    @property
    def cache(self) -> list[int]:
        return [self._pid("redis")]

    @property
    def own(self) -> list[int]:
        """All Sluice processes: edge, API, worker, MariaDB, Redis; not the storage's."""
        return [*self.edge, *self.api, *self.worker, *self.database_server, *self.cache]

    @property
    def ceph(self) -> list[int]:
        """mon, osd and radosgw."""
        return [self._pid(name) for name in ("ceph-mon", "ceph-osd", "radosgw")]

    # -- places

    @property
    def objects(self) -> Path:
        """The folder of finished files' objects."""
        return self.data / "storage" / "objects"

    @property
    def edge_log(self) -> Path:
        return self.data / "log" / "edge.log"

    def database(self) -> pymysql.Connection[pymysql.cursors.Cursor]:
        """A connection with the API's account; reading the counters needs no more rights."""
        return pymysql.connect(
            user="sluice", database="sluice", unix_socket=str(self.data / "run" / "mariadb.sock"), autocommit=True
        )
