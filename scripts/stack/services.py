"""Configuration and start of MariaDB and Redis. Tests also use it to start only one of them.

    with server_folder() as folder, started(MariaDB(folder)) as database:
        connect(database.url)

Both listen on a unix socket in a private folder. Only users who can enter the folder can connect, so the
accounts need no passwords.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from scripts.stack.paths import Paths
from scripts.stack.process import ServiceError, describe_end, end_group, make_folder, remember, spawn, stop
from scripts.stack.room import reserve

HANG_SECONDS = float(os.environ.get("STACK_HANG_SECONDS", "30"))
"""Seconds. A server that gives no answer for longer is killed and started again; tests set less."""
READY_SECONDS = float(os.environ.get("STACK_READY_SECONDS", "30"))
"""Seconds that a server may take until it is ready; tests set less."""
Pause = Callable[[float], None]
_COMMON_OPTIONS = (
    "--innodb-log-file-size=48M",  # the default of 96 MB only makes the first start slower
    "--skip-name-resolve",
)


class Service:
    """One server: its command, its readiness check, and how to stop it.

    Attributes:
        name: also names the log and the record of its process id.
        stop_signal: asks for an orderly end; the server is killed after `stop_seconds`.
        ready_seconds: how long it may take until `ready()`.
    """

    name: str
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10
    ready_seconds: float = READY_SECONDS

    def __init__(self, folder: Path | Paths) -> None:
        self.paths = folder if isinstance(folder, Paths) else Paths.of(folder)

    @property
    def log(self) -> Path:
        return self.paths.log / f"{self.name}.log"

    def prepare(self, pause: Pause) -> None:
        """Make the files that the server needs. Can be repeated."""

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Environment variables to add to those of this process."""
        return {}

    def ready(self) -> bool:
        """Whether it can do its work."""
        raise NotImplementedError

    def alive(self) -> bool:
        """Whether it answers at all, even if busy or impaired. If it does not for long, it is started again."""
        return self.ready()

    def trouble(self) -> str:
        """Why it cannot do all of its work; empty if it can."""
        return ""

    def tend(self) -> None:
        """Called once per minute while it runs. Reserves log space, so that errors of a full disk are logged."""
        reserve([(self.log, 1 << 20)])

    def spawn(self, command: Sequence[str] | None = None) -> "subprocess.Popen[bytes]":
        """Start the server, or another command instead."""
        self.paths.make_memory()
        process = spawn(command or self.command(), log=self.log, folder=self.paths.data, environment=self.environment())
        remember(self.paths.pids / self.name, process)
        return process

    def run(self, command: Sequence[str], pause: Pause) -> None:
        """Run one of the server's commands until it ends.

        Raises:
            ServiceError: the command failed.
        """
        process = self.spawn(command)
        try:
            while process.poll() is None:
                pause(0.05)
        finally:
            end_group(process)
        if process.returncode:
            what = next(word for word in reversed(command) if not word.startswith("-"))
            raise ServiceError(f"{self.name}: {what} {describe_end(process.returncode)}", self.log)

    def await_ready(self, process: "subprocess.Popen[bytes]", pause: Pause) -> None:
        """Wait until the server answers.

        Raises:
            ServiceError: it ended, or gave no answer in time.
        """
        deadline = time.monotonic() + self.ready_seconds
        while not self.ready():
            if process.poll() is not None:
                raise ServiceError(f"{self.name} {describe_end(process.returncode)} at its start", self.log)
            if time.monotonic() > deadline:
                raise ServiceError(f"{self.name} gave no answer for {self.ready_seconds:.0f} s", self.log)
            pause(0.05)


class MariaDB(Service):
    """MariaDB with a database `sluice` and an account `sluice` that has rights on this database only.

    Args:
        folder: the data folder.
        durable: whether a commit survives a power cut. Tests set False (a killed process loses nothing either way).
        databases: LIKE pattern of the databases that the account may make and use; tests use several.
    """

    name = "mariadb"
    stop_seconds = 60
    ready_seconds = 600  # recovery after a power cut may take minutes

    def __init__(self, folder: Path | Paths, durable: bool = True, databases: str = "sluice") -> None:
        super().__init__(folder)
        self.durable = durable
        self.databases = databases
        self.datadir = self.paths.data / "mariadb"
        self.socket = self.paths.run / "mariadb.sock"

    @property
    def url(self) -> str:
        return f"mysql://sluice@localhost/sluice?unix_socket={self.socket}"

    def prepare(self, pause: Pause) -> None:
        """Make system tables and account in another folder and rename it: `mariadb` is complete or absent."""
        make_folder(self.paths.data / "mariadb-tmp")
        if self.datadir.exists():
            return
        unfinished = self.datadir.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        make_folder(unfinished)
        accounts = self.paths.data / "mariadb-accounts.sql"
        accounts.write_text(
            "FLUSH PRIVILEGES;\n"
            "CREATE DATABASE sluice CHARACTER SET utf8mb4;\n"
            "CREATE USER sluice@localhost;\n"
            f"GRANT ALL ON `{self.databases}`.* TO sluice@localhost;\n"
        )
        accounts.chmod(0o644)
        # mariadb-install-db splits paths at spaces, so both are relative: the working folder's, and the new folder's.
        options = ["--no-defaults", f"--datadir=./{unfinished.name}", "--tmpdir=../mariadb-tmp", *_COMMON_OPTIONS]
        # The database's root is the machine's root. The stack does not use it.
        options += ["--auth-root-authentication-method=socket", "--auth-root-socket-user=root"]
        self.run(["mariadb-install-db", *options, "--skip-test-db", f"--extra-file=./{accounts.name}"], pause)
        accounts.unlink()
        os.sync()
        unfinished.rename(self.datadir)

    def command(self) -> Sequence[str]:
        options = [
            "--no-defaults",  # the system's own configuration is never read
            f"--datadir={self.datadir}",
            f"--tmpdir={self.paths.data / 'mariadb-tmp'}",
            *_COMMON_OPTIONS,
            f"--socket={self.socket}",
            f"--pid-file={self.paths.memory / 'mariadbd.pid'}",
            "--skip-networking",
            "--local-infile=OFF",
            "--log-warnings=1",  # logs no line for a connection that only reads the greeting
            "--character-set-server=utf8mb4",
            "--default-time-zone=+00:00",
            "--transaction-isolation=READ-COMMITTED",
            "--max-connections=200",
            "--innodb-buffer-pool-size=128M",
            f"--innodb-flush-log-at-trx-commit={1 if self.durable else 2}",
        ]
        if self.paths.in_memory:
            # 12 MiB that are written at each start, which would fail on a full disk
            temporary = self.paths.memory / "ibtmp1"
            options += ["--innodb-data-home-dir=", f"--innodb-temp-data-file-path={temporary}:12M:autoextend"]
            if not (self.datadir / "ddl_recovery.log").exists() and self._disk_is_full():
                # Made again after an orderly end, when nothing is left to recover. No table is changed on a full disk.
                options.append(f"--log-ddl-recovery={self.paths.memory / 'ddl_recovery.log'}")
        return [shutil.which("mariadbd") or "/usr/sbin/mariadbd", *options]  # the PATH of ordinary users has no sbin

    def _disk_is_full(self) -> bool:
        return self.datadir.exists() and shutil.disk_usage(self.datadir).free < 1 << 20

    def alive(self) -> bool:
        return bool(_exchange(self.socket, b""))  # "too many connections" counts as an answer

    def tend(self) -> None:
        """Reserve space for the tables to grow.

        On a full disk MariaDB refuses a row if it can roll back, but a rollback needs space as well: without any,
        MariaDB aborts. With reserved space, thousands of sign-ins and deletions still work on a full disk.
        """
        super().tend()
        system, tables = self.datadir / "mysql", self.datadir / "sluice"
        reserve(
            [
                (self.datadir / "ibdata1", 8 << 20),  # contains the undo logs
                *((path, 2 << 20) for path in tables.glob("*.ibd")),
                *((path, 1 << 20) for path in self.datadir.glob("aria_log.*")),
                *((path, 1 << 16) for path in [*system.glob("*.ibd"), *system.glob("*.MA?")]),
                (self.datadir / "ddl_recovery.log", 1 << 16),
            ]
        )

    def ready(self) -> bool:
        """Whether it sends a greeting (protocol version 10). It does so after recovery and the init file."""
        greeting = _exchange(self.socket, b"")
        return len(greeting) > 4 and greeting[4] == 10


class Redis(Service):
    """Redis without persistence: it holds only data that may be lost at any moment."""

    name = "redis"

    def __init__(self, folder: Path | Paths) -> None:
        super().__init__(folder)
        self.socket = self.paths.run / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def command(self) -> Sequence[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.paths.run),
            "save": "",
            "appendonly": "no",
            "maxmemory": "128mb",
            "maxmemory-policy": "allkeys-lru",
            "daemonize": "no",
        }
        arguments = [text for key, value in options.items() for text in (f"--{key}", value)]
        if server := shutil.which("redis-server"):
            return [server, *arguments]
        # Debian's redis-tools contains the server under another name, without the systemd unit that would start it.
        return ["bash", "-c", 'exec -a redis-server redis-check-rdb "$@"', "redis-server", *arguments]

    def ready(self) -> bool:
        return _exchange(self.socket, b"PING\r\n").startswith(b"+PONG")

    def alive(self) -> bool:
        return bool(_exchange(self.socket, b"PING\r\n"))


def _exchange(path: Path, request: bytes) -> bytes:
    """The bytes that a server's socket returns within a second; empty if there are none."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        try:
            connection.connect(os.fspath(path))
            connection.sendall(request)
            return connection.recv(512)
        except OSError:
            return b""


@contextmanager
def server_folder() -> Iterator[Path]:
    """A temporary folder that the servers' user can enter (only root can enter pytest's folders)."""
    folder = make_folder(Path(tempfile.mkdtemp(prefix="sluice-")))
    try:
        yield folder
    finally:
        Paths.of(folder).free_memory()
        shutil.rmtree(folder, ignore_errors=True)


S = TypeVar("S", bound=Service)


@contextmanager
def started(service: S) -> Iterator[S]:
    """A server that runs inside the `with` block, for tests."""
    for folder in (service.paths.data, service.paths.run, service.paths.log, service.paths.pids):
        make_folder(folder)
    service.prepare(time.sleep)
    process = service.spawn()
    try:
        service.await_ready(process, time.sleep)
        yield service
    finally:
        stop(process, service.stop_signal, service.stop_seconds)
