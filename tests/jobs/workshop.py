"""Worker processes with a real database and queue, and blobs for them to read back, made without uploads."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pymysql

from api.core import digests
from api.core.models import new_id
from api.db.pool import connect_arguments
from scripts.stack.paths import CODE
from tests.api.conftest import settings
from tests.conftest import Servers


class Worker:
    """One process."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "api", "worker"],
                env={**os.environ, **environment, "PYTHONPATH": str(CODE)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=log.parent,
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> float:
        """Asks for an orderly end, and asserts it. Returns the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(40) == 0
        return time.monotonic() - began

    def most_memory(self) -> int:
        """Its peak memory in MiB."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found
        return int(found.group(1)) // 1024

    def cpu(self) -> float:
        """Seconds of processor time."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Workshop:
    """Rows, objects and workers.

    Args:
        database_url: of a migrated database for this test only.
        folder: for the storage and the logs.
    """

    def __init__(self, servers: Servers, database_url: str, queue_url: str, folder: Path) -> None:
        self.environment = settings(database_url, servers, folder / "storage") | {"SLUICE_QUEUE_URL": queue_url}
        self._database_url = database_url
        self._folder = folder
        (folder / "storage" / "objects").mkdir(parents=True)
        self.workers: list[Worker] = []

    def query(self, sql: str, args: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        connection = pymysql.connect(**connect_arguments(self._database_url))
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, args)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def count(self, condition: str) -> int:
        return int(self.query(f"SELECT COUNT(*) FROM {condition}")[0][0])  # noqa: S608

    def work(self) -> Worker:
        """Starts another worker."""
        self.workers.append(Worker(self.environment, self._folder / "worker.log"))
        return self.workers[-1]

    def close(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                worker.kill()

    def blobs(self, count: int, size: int = 5000, wrong: int = 0) -> None:
        """Unverified blobs of one part each, with a job for each; the first ones have other bytes than declared."""
        blobs, parts, replicas, jobs = [], [], [], []
        for number in range(count):
            data = os.urandom(16) * (size // 16)
            blob, sha256 = new_id(), hashlib.sha256(data).digest()
            key = f"0badcafe/{blob.hex()[-2:]}/{blob.hex()}"
            self._write(key, bytes(size // 16 * 16) if number < wrong else data)
            blobs.append((blob, len(data), hashlib.sha256(sha256).digest(), bytes(16), "unverified"))
            parts.append((blob, sha256))
            replicas.append((blob, "local", key))
            jobs.append(("verify", blob, "waiting"))
        self._insert(blobs, parts, replicas, jobs)

    def large_blob(self, size: int) -> bytes:
        """One blob of zeros, which takes no disk space; reading it takes a worker a while."""
        length = digests.part_size(size)
        one = hashlib.sha256(bytes(length)).digest()
        assert size % length == 0
        hashes, blob = one * (size // length), new_id()
        key = f"0badcafe/00/{blob.hex()}"
        self._write(key, b"")
        os.truncate(self._folder / "storage" / "objects" / key, size)
        row = (blob, size, hashlib.sha256(hashes).digest(), bytes(16), "unverified")
        self._insert([row], [(blob, hashes)], [(blob, "local", key)], [("verify", blob, "waiting")])
        return blob

    def _write(self, key: str, data: bytes) -> None:
        path = self._folder / "storage" / "objects" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def _insert(self, blobs: Any, parts: Any, replicas: Any, jobs: Any) -> None:
        connection = pymysql.connect(**connect_arguments(self._database_url))
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO `blob` (id, size, digest, scope, state, created_at) "
                "VALUES (%s, %s, %s, %s, %s, UTC_TIMESTAMP(6))",
                blobs,
            )
            cursor.executemany("INSERT INTO blob_parts (blob_id, hashes) VALUES (%s, %s)", parts)
            cursor.executemany(
                "INSERT INTO replica (blob_id, storage, object_key, created_at) VALUES (%s, %s, %s, UTC_TIMESTAMP(6))",
                replicas,
            )
            cursor.executemany(
                "INSERT INTO job (kind, subject, state, due_at, created_at, updated_at) "
                "VALUES (%s, %s, %s, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
                jobs,
            )
        connection.commit()
        connection.close()

    def pass_time(self, seconds: int = 60) -> None:
        """Moves the rows back in time: leases of dead workers expire, lost messages are due again."""
        self.query(
            "UPDATE job SET lease_until = lease_until - INTERVAL %s SECOND, due_at = due_at - INTERVAL %s SECOND, "
            "enqueued_at = enqueued_at - INTERVAL %s SECOND",
            (seconds, seconds, seconds),
        )

    def await_left(self, most: int, seconds: float = 60) -> None:
        """Waits until at most this many jobs are left."""
        self.await_true(lambda: self.count("job") <= most, seconds)

    def await_true(self, condition: Any, seconds: float = 60) -> None:
        ends = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > ends:
                log = (self._folder / "worker.log").read_text().splitlines()[-20:]
                raise AssertionError("\n".join([f"{self.count('job')} jobs are left", *log]))
            assert all(worker.process.poll() in (None, 0, -signal.SIGKILL) for worker in self.workers)
            time.sleep(0.02)  # a poll: workers send no event

    def await_place(self, blob: bytes, least: int) -> int:
        """Waits until a job's saved position is at least this. Returns the position."""

        def place() -> int:
            found = self.query("SELECT place FROM job WHERE subject = %s", (blob,))
            return int(found[0][0]) if found else -1

        self.await_true(lambda: place() >= least)
        return place()

    def lines(self) -> Iterator[str]:
        """The workers' log lines."""
        yield from (self._folder / "worker.log").read_text().splitlines()
