"""How each server is configured and started; also used by tests that need just one of them.

    with server_folder() as folder, started(MariaDB(folder)) as database:
        connect(database.url)

Every server listens on a unix socket in a private folder: who cannot enter the folder cannot reach it, so
MariaDB's and Redis' accounts need no passwords.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from scripts.stack.paths import Paths

SERVER_USER = "sluice"


class ServiceError(Exception):
    """A server could not be made ready; the text is one line for a person."""


class Service:
    """One server: what to run, when it is ready, how it is asked to stop.

    Attributes:
        name: also names the log and the pid file.
        stop_signal: asks for an orderly end; after `stop_seconds` it is killed.
        ready_seconds: how long it may take until `ready()`.
    """

    name: str
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10
    ready_seconds: float = 30

    def __init__(self, folder: Path | Paths) -> None:
        self.paths = folder if isinstance(folder, Paths) else Paths.of(folder)

    @property
    def log(self) -> Path:
        return self.paths.log / f"{self.name}.log"

    def prepare(self) -> None:
        """Make what the server needs on disk; repeatable."""

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Variables beyond the supervisor's own."""
        return {}

    def ready(self) -> bool:
        raise NotImplementedError


class MariaDB(Service):
    """MariaDB with a database `sluice` and an account of that name that has rights on it alone.

    Args:
        folder: the data folder.
        durable: a commit survives a power cut; tests do without (a killed process loses nothing either way).
        databases: a LIKE pattern of the databases the account may use and create, for tests.
    """

    name = "mariadb"
    stop_seconds = 60
    ready_seconds = 120  # crash recovery after a power cut takes a while

    def __init__(self, folder: Path | Paths, durable: bool = True, databases: str = "sluice") -> None:
        super().__init__(folder)
        self.durable = durable
        self.databases = databases
        self.datadir = self.paths.data / "mariadb"
        self.socket = self.paths.run / "mariadb.sock"

    @property
    def url(self) -> str:
        return f"mysql://sluice@localhost/sluice?unix_socket={self.socket}"

    def prepare(self) -> None:
        """Make the system tables, elsewhere first: a `mariadb` folder is there complete or not at all."""
        self._write_init_file()
        if self.datadir.exists():
            return
        unfinished = self.datadir.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        make_folder(unfinished)
        command = [
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={unfinished}",
            f"--tmpdir={self._tmpdir()}",
            f"--innodb-log-file-size={_REDO_LOG}",
            "--skip-test-db",
            "--skip-name-resolve",
            # the database's root is the machine's root; the stack itself needs none (see _write_init_file)
            "--auth-root-authentication-method=socket",
            "--auth-root-socket-user=root",
        ]
        with self.log.open("ab") as log:
            result = subprocess.run(as_server_user(command), stdout=log, stderr=log, check=False, cwd="/")
        if result.returncode:
            raise ServiceError(f"mariadb-install-db failed with {result.returncode}; see {self.log}")
        os.sync()
        unfinished.rename(self.datadir)

    def _write_init_file(self) -> None:
        """SQL that mariadbd runs with full rights at each start, before it takes connections."""
        pattern = self.databases.replace("_", "\\_")
        (self.paths.run / "mariadb-init.sql").write_text(
            "CREATE DATABASE IF NOT EXISTS sluice CHARACTER SET utf8mb4;\n"
            "CREATE USER IF NOT EXISTS sluice@localhost;\n"
            f"GRANT ALL ON `{pattern}`.* TO sluice@localhost;\n"
        )

    def _tmpdir(self) -> Path:
        return make_folder(self.paths.data / "mariadb-tmp")

    def command(self) -> Sequence[str]:
        return [
            "mariadbd" if shutil.which("mariadbd") else "/usr/sbin/mariadbd",
            "--no-defaults",  # the system's own configuration is never read
            f"--datadir={self.datadir}",
            f"--socket={self.socket}",
            f"--pid-file={self.paths.run / 'mariadbd.pid'}",
            f"--tmpdir={self._tmpdir()}",
            f"--init-file={self.paths.run / 'mariadb-init.sql'}",
            "--skip-networking",
            "--skip-name-resolve",
            "--local-infile=OFF",
            "--character-set-server=utf8mb4",
            "--default-time-zone=+00:00",
            "--transaction-isolation=READ-COMMITTED",
            "--max-connections=200",
            "--innodb-buffer-pool-size=128M",
            f"--innodb-log-file-size={_REDO_LOG}",
            f"--innodb-flush-log-at-trx-commit={1 if self.durable else 2}",
        ]

    def ready(self) -> bool:
        """It greets (protocol version 10): that comes after recovery and the init file."""
        greeting = _exchange(self.socket, b"")
        return len(greeting) > 4 and greeting[4] == 10


class Redis(Service):
    """Redis without persistence: all that is in it may be lost at any moment."""

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
        # Debian's redis-tools has the server too, under another name, and without a unit that would start it.
        return ["bash", "-c", 'exec -a redis-server redis-check-rdb "$@"', "redis-server", *arguments]

    def ready(self) -> bool:
        return _exchange(self.socket, b"PING\r\n").startswith(b"+PONG")


_REDO_LOG = (
    "48M"  # the default of 96 MB is long to write at the first start and holds nothing more that we need
)


def _exchange(path: Path, request: bytes) -> bytes:
    """What a server's socket answers within a second; nothing where it does not."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        try:
            connection.connect(os.fspath(path))
            connection.sendall(request)
            return connection.recv(512)
        except OSError:
            return b""


def as_server_user(command: Sequence[str]) -> list[str]:
    """The command, run as the unprivileged user where we are root (mariadbd refuses to be root)."""
    if os.geteuid() != 0:
        return list(command)
    user = _server_user()
    drop = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]
    return [*drop, *command]


def make_folder(folder: Path) -> Path:
    """Make a private folder that belongs to whom the servers run as."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        user = _server_user()
        os.chown(folder, user.pw_uid, user.pw_gid)
    return folder


def _server_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(SERVER_USER)
    except KeyError:
        raise ServiceError(f"there is no user {SERVER_USER}: run scripts/install") from None


@contextmanager
def server_folder() -> Iterator[Path]:
    """A temporary folder that the servers' user can enter (pytest's own are root's alone)."""
    folder = make_folder(Path(tempfile.mkdtemp(prefix="sluice-")))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


S = TypeVar("S", bound=Service)


def spawn(service: Service) -> "subprocess.Popen[bytes]":
    """Start a server in a session of its own, so that it and its workers can be ended as one group.

    It is told to end (SIGTERM) when we die, however we die.
    """
    with service.log.open("ab") as log:
        return subprocess.Popen(
            as_server_user(["setpriv", "--pdeathsig", "TERM", "--", *service.command()]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=service.paths.data,
            env={**os.environ, **service.environment()},
            start_new_session=True,
        )


def stop(process: "subprocess.Popen[bytes]", service: Service) -> None:
    """Ask a server to end, wait, and kill whatever of it is left."""
    if process.poll() is None:
        process.send_signal(service.stop_signal)
        with suppress(subprocess.TimeoutExpired):
            process.wait(service.stop_seconds)
    kill_group(process.pid)
    process.wait()


def kill_group(pid: int) -> None:
    """Kill what is left of a server's session: nginx' workers outlive a killed master."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def await_ready(process: "subprocess.Popen[bytes]", service: Service) -> None:
    """Wait until a server answers.

    Raises:
        ServiceError: it ended, or did not answer in time.
    """
    deadline = time.monotonic() + service.ready_seconds
    while not service.ready():
        if process.poll() is not None:
            raise ServiceError(f"{service.name} ended at once with {process.returncode}; see {service.log}")
        if time.monotonic() > deadline:
            raise ServiceError(
                f"{service.name} was not ready in {service.ready_seconds:.0f} s; see {service.log}"
            )
        time.sleep(0.02)


@contextmanager
def started(service: S) -> Iterator[S]:
    """A server that runs inside the `with` block. For tests."""
    for folder in (service.paths.data, service.paths.run, service.paths.log):
        make_folder(folder)
    service.prepare()
    process = spawn(service)
    try:
        await_ready(process, service)
        yield service
    finally:
        stop(process, service)
