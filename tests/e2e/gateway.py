"""A whole running gateway: its processes, its database and its storage folder, for faults and checks."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pymysql

from scripts.stack.services import MariaDB, Redis
from tests.e2e.client import Client
from tests.e2e.leaks import Secrets
from tests.run.running import RunningStack, processes_of
from tests.waiting import await_true

SERVICES = ("nginx", "api", "worker", "mariadb", "redis")
START_SECONDS = 120  # includes a Ceph's first start, if there is one


class Gateway:
    """One `scripts/run`, which can be restarted with its data.

    Args:
        data: the data folder.
        settings: SLUICE_… of this gateway.
        arguments: further options of scripts/run.
    """

    def __init__(self, data: Path, settings: dict[str, str], arguments: tuple[str, ...] = ()) -> None:
        self.data = data
        self._arguments = arguments
        # the whole suite signs up from one address
        self.settings = {"SLUICE_TEST_SWEEP_INTERVAL": "1", "SLUICE_SIGNUP_RATE": "100000", **settings}
        self.secrets = Secrets()
        self.storage = data / "storage"
        self._port = 0
        self._output = ""
        self._clients: list[Client] = []
        self.start()

    # -- the stack

    def start(self) -> None:
        stack = RunningStack(self.data, self._port, environment=self.settings, arguments=self._arguments)
        self.stack = stack.ready(START_SECONDS)
        self._port = self.stack.port
        self.secrets.add_keys(self.data / "secrets")
        # if its output is not read, the stack blocks
        self._reader = threading.Thread(target=self.stack.end, args=(3600,), daemon=True)
        self._reader.start()

    def stop(self) -> None:
        """An orderly end."""
        self.stack.process.send_signal(signal.SIGTERM)
        self._reader.join(60)
        assert self.stack.process.poll() == 0, self.stack.output[-2000:]
        self._output += self.stack.output
        self.stack.close()

    def restart_after_kill(self) -> None:
        """A new start with the data of a killed supervisor, and its leftovers."""
        self._reader.join(60)
        self._output += self.stack.output
        self.stack.close()
        self.start()

    def close(self) -> None:
        """Ends it after the tests, passed or failed."""
        for client in self._clients:
            client.close()
        with contextlib.suppress(ProcessLookupError):
            self.stack.process.send_signal(signal.SIGCONT)
        if self._reader.is_alive():
            self.stack.process.send_signal(signal.SIGTERM)
            self._reader.join(60)
        self.stack.close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def client(self) -> Client:
        """A client that has not signed in."""
        self._clients.append(Client(self.address, self.secrets))
        return self._clients[-1]

    def user(self) -> Client:
        """A client of a new user."""
        return self.client().sign_up()

    # -- its processes

    def pids(self, service: str) -> list[int]:
        """A server's first process and its children."""
        first = self.stack.pid(service)
        return [first, *(pid for pid in processes_of(self.data) if _parent(pid) == first)]

    def is_ready(self, service: str) -> bool:
        """Whether a server answers, and the gateway too."""
        server = {"redis": Redis, "mariadb": MariaDB}.get(service)
        if server is not None and not server(self.data).ready():
            return False
        return self.stack.get("/readyz") == 200 and self.stack.get("/healthz") == 200

    def kill(self, service: str, child: bool = False) -> Callable[[], None]:
        """Kills a server's first process, or all children of it. Returns a function that waits until it is back."""
        first, *children = self.pids(service)
        killed = children if child else [first]
        assert killed
        for pid in killed:
            os.kill(pid, signal.SIGKILL)

        def await_back() -> None:
            await_true(lambda: self._lives(service) and not set(killed) & set(self.pids(service)))
            await_true(lambda: len(self.pids(service)) > len(children) and self.is_ready(service))

        return await_back

    def _lives(self, service: str) -> bool:
        try:
            return Path(f"/proc/{self.stack.pid(service)}").exists()
        except (OSError, IndexError):
            return False

    @contextlib.contextmanager
    def without(self, service: str) -> Iterator[None]:
        """A server is dead inside the `with` block: it is not restarted until the block ends."""
        first = self.stack.pid(service)
        os.kill(self.stack.process.pid, signal.SIGSTOP)
        try:
            os.killpg(first, signal.SIGKILL)
            await_true(lambda: _state(first) in ("Z", "X"))
            yield
        finally:
            os.kill(self.stack.process.pid, signal.SIGCONT)
            await_true(lambda: self._lives(service) and self.stack.pid(service) != first)
            await_true(lambda: self.is_ready(service))

    @contextlib.contextmanager
    def frozen(self, service: str) -> Iterator[None]:
        """A server keeps its connections inside the `with` block, and gives no answers."""
        pids = self.pids(service)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    # -- stored data

    @contextlib.contextmanager
    def database(self) -> Iterator[pymysql.cursors.Cursor]:
        connection = pymysql.connect(
            user="sluice", database="sluice", unix_socket=str(self.data / "run" / "mariadb.sock"), autocommit=True
        )
        try:
            yield connection.cursor()
        finally:
            connection.close()

    def query(self, sql: str, args: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self.database() as cursor:
            cursor.execute(sql, args)
            return list(cursor.fetchall())

    def objects(self) -> dict[str, int]:
        """Every stored object's key and size."""
        root = self.storage / "objects"
        return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}

    def part_folders(self) -> set[str]:
        """Ids of the uploads that have parts on the disk."""
        return {entry.name for name in ("parts", "assembling") for entry in (self.storage / name).iterdir()}

    def age_bodies(self) -> None:
        """Makes half-received bodies look two hours old, so that the sweep deletes them."""
        moment = time.time() - 2 * 86_400
        for body in (self.storage / "incoming").iterdir():
            os.utime(body, (moment, moment))

    def await_nothing_lost(self) -> None:
        """Waits until rows and disk agree after a sweep. Fails if they do not."""
        problems: list[str] = []

        def agree() -> bool:
            problems[:] = self._disagreements()
            return not problems

        try:
            await_true(agree, 10)
        except AssertionError:
            raise AssertionError("\n".join(problems)) from None

    def _disagreements(self) -> list[str]:
        objects = self.objects()
        replicas = dict(self.query("SELECT r.object_key, b.size FROM replica r JOIN `blob` b ON b.id = r.blob_id"))
        busy = "SELECT id FROM upload WHERE state IN ('proving', 'uploading', 'finalizing')"
        unfinished = {upload_id.hex() for (upload_id,) in self.query(busy)}
        problems = [f"object without a row: {key}" for key in objects.keys() - replicas.keys()]
        problems += [f"row without its object: {key}" for key, size in replicas.items() if objects.get(key) != size]
        problems += [f"parts of no unfinished upload: {name}" for name in self.part_folders() - unfinished]
        problems += [f"a body nobody waits for: {path}" for path in (self.storage / "incoming").iterdir()]
        return problems + self.odd_rows()

    def odd_rows(self, apart_from: tuple[str, ...] = ()) -> list[str]:
        """Rows that are impossible, or that cannot stay; `_ORPHANS` has the names that may be excluded."""
        asked = {what: sql for what, sql in _ORPHANS.items() if what not in apart_from}
        return [f"{count} {what}" for what, sql in asked.items() if (count := self.query(sql)[0][0])]

    def leaks(self) -> list[str]:
        """Log lines that contain a secret of the run; called after its end."""
        logs = {path.name: path.read_text(errors="replace") for path in (self.data / "log").iterdir()}
        assert '"route":"link"' in logs["access.log"] or '"route":"part"' in logs["access.log"]
        logs["the output"] = self._output
        return [
            f"{name}: {line}"
            for name, text in logs.items()
            if self.secrets.found_in(text)
            for line in text.splitlines()
            if self.secrets.found_in(line)
        ]


_ORPHANS = {
    "part rows of ended uploads": (
        "SELECT COUNT(*) FROM upload_part p JOIN upload u ON u.id = p.upload_id "
        "WHERE u.state NOT IN ('proving', 'uploading', 'finalizing')"
    ),
    "doomed objects": "SELECT COUNT(*) FROM doomed",
    "blobs that are not verified": "SELECT COUNT(*) FROM `blob` WHERE state <> 'verified'",
    "blobs without content": (
        "SELECT COUNT(*) FROM `blob` b LEFT JOIN replica r ON r.blob_id = b.id WHERE b.size > 0 AND r.blob_id IS NULL"
    ),
    "blobs that no file names": (
        "SELECT COUNT(*) FROM `blob` b LEFT JOIN file f ON f.blob_id = b.id WHERE b.size > 0 AND f.id IS NULL"
    ),
    "contents stored twice": (
        "SELECT COUNT(*) FROM (SELECT 1 FROM `blob` GROUP BY digest, scope HAVING COUNT(*) > 1) twice"
    ),
    "uploads that are done without a file": (
        "SELECT COUNT(*) FROM upload u LEFT JOIN file f ON f.id = u.file_id WHERE u.state = 'done' AND f.id IS NULL"
    ),
    "files that no upload made": (
        "SELECT COUNT(*) FROM file f LEFT JOIN upload u ON u.file_id = f.id WHERE u.id IS NULL"
    ),
}


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"
