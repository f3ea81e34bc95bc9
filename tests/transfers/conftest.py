"""A real worker process between a real Ceph, a stand-in for OSS and a local folder, with a separate database."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from api.app import compose
from api.blobs import rows as blobs
from api.core import digests
from api.core.config import S3Config, load
from api.core.models import Blob, new_id
from api.db.pool import Database
from api.jobs.queue import Queue
from api.storage.base import MultipartRef, MultipartStorage
from tests.api.conftest import FAST_HASHER, fresh_database, settings
from tests.conftest import Servers
from tests.storage import oss_standin
from tests.storage.ceph import Ceph
from tests.storage.contract import nothing
from tests.storage.oss_bucket import Bucket
from tests.storage.oss_standin import ACCOUNT, Standin
from tests.waiting import await_true

ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Stored:
    """A blob and the place of its first replica."""

    id: bytes
    data: bytes
    storage: str
    key: str


class Yard:
    """Storages and workers, see the module's docstring.

    Attributes:
        environ: the settings of its workers.
        workers: the running ones.
    """

    def __init__(self, environ: dict[str, str], folder: Path, standin: Standin) -> None:
        self.environ = environ
        self.standin = standin
        self._log = folder / "worker.log"
        self.db = Database(environ["SLUICE_DATABASE_URL"], 8)
        self.queue = Queue(environ["SLUICE_REDIS_URL"])
        self.services = compose(load(environ), db=self.db, hasher=FAST_HASHER, queue=self.queue)
        self.storages: dict[str, MultipartStorage] = dict(self.services.health._stores)
        self.workers: list[subprocess.Popen[bytes]] = []
        self._prefix = self.rows("SELECT value FROM deployment WHERE name = 'id'")[0][0]

    def rows(self, sql: str, *args: object) -> Sequence[tuple[Any, ...]]:
        return self.db.all(sql, args)

    # -- blobs

    def store(self, storage: str, data: bytes) -> Stored:
        """A verified blob, as an upload leaves it."""
        size, upload_id = len(data), new_id()
        length, count = digests.part_size(size), digests.part_count(size)
        key = f"{self._prefix}/{upload_id[-1:].hex()}/{upload_id.hex()}"
        ref = MultipartRef(upload_id.hex(), key, "", size, length, count, "", 0)
        place = self.storages[storage]
        ref = MultipartRef(upload_id.hex(), key, place.create(ref), size, length, count, "", 0)
        hashes = b""
        for number in range(1, count + 1):
            part = data[(number - 1) * length : number * length]
            hashes += hashlib.sha256(part).digest()
            place.write_part(ref, number, [part], hashes[-32:].hex())
        place.complete(ref, hashes, nothing)
        blob = Blob(new_id(), size, digests.composite(hashes), "verified", None, storage, key)
        now = self.services.clock()
        assert self.db.transaction(lambda tx: blobs.insert_verified(tx, blob, bytes(16), hashes, now))
        return Stored(blob.id, data, storage, key)

    def store_many(self, storage: str, sizes: Sequence[int]) -> list[Stored]:
        """Blobs of these sizes, each with different bytes."""
        return [self.store(storage, random.randbytes(size)) for size in sizes]

    def copy_of(self, stored: Stored, storage: str) -> bytes | None:
        """The bytes of a blob's replica on this storage; None if there is none."""
        found = dict(blobs.replicas(self.db, stored.id)).get(storage)
        if found is None:
            return None
        reader = self.storages[storage].open(found)
        try:
            return b"".join(iter(lambda: reader.read(1024**2), b""))
        finally:
            reader.close()

    # -- workers

    def work(self, **more: str) -> subprocess.Popen[bytes]:
        """Starts a worker."""
        with self._log.open("ab") as log:
            environ = {**os.environ, **self.environ, **more}
            command = [sys.executable, "-m", "api", "worker"]
            self.workers.append(subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log))
        return self.workers[-1]

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        """Kills a worker."""
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        self.workers.remove(worker)

    def stop(self, worker: subprocess.Popen[bytes]) -> None:
        """Ends a worker in order."""
        worker.send_signal(signal.SIGTERM)
        try:
            assert worker.wait(30) == 0
        except subprocess.TimeoutExpired:
            raise AssertionError(self.log[-4000:]) from None
        self.workers.remove(worker)

    def close(self) -> None:
        for worker in list(self.workers):
            self.kill(worker)
        self.db.close()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    # -- transfers

    def start(self, source: str, destination: str, keep_for: int | None = None) -> bytes:
        return self.services.transfers.start(source, destination, keep_for)[0].transfer.id

    def state(self, transfer: bytes) -> str:
        return str(self.rows("SELECT state FROM transfer WHERE id = %s", transfer)[0][0])

    def done(self, transfer: bytes) -> int:
        """Number of the transfer's blobs in each state."""
        return int(self.rows("SELECT done_items FROM transfer WHERE id = %s", transfer)[0][0])

    def await_done(self, transfer: bytes, seconds: float) -> None:
        def what() -> str:
            shown = self.rows("SELECT state, items, done_items, failed_items FROM transfer WHERE id = %s", transfer)
            jobs = self.rows("SELECT kind, state, reason, message, COUNT(*) FROM job GROUP BY 1, 2, 3, 4")
            return f"{shown} {jobs}\n{self.log[-3000:]}"

        await_true(lambda: self.state(transfer) == "done", seconds, what)

    def orphans(self) -> list[str]:
        """Objects and unfinished uploads without a row."""
        tables = "replica", "doomed", "transfer_item"
        keys = {key for table in tables for (key,) in self.rows(f"SELECT object_key FROM {table}")}  # noqa: S608
        objects = set(self.standin.bucket.objects)
        uploads = {upload.key for upload in self.standin.bucket.uploads.values()}
        for name in ("main", "local"):
            uploads |= {f"{self._prefix}/{id_[-2:]}/{id_}" for id_ in self.storages[name].list_uploads()}
        return sorted((objects | uploads) - keys)


@pytest.fixture
def standin() -> Iterator[Standin]:
    with oss_standin.running(ACCOUNT, Bucket()) as made:
        yield made


@pytest.fixture
def yard(servers: Servers, ceph: Ceph, s3_config: S3Config, standin: Standin, tmp_path: Path) -> Iterator[Yard]:
    (tmp_path / "storage").mkdir()
    oss = standin.settings()
    environ = settings(fresh_database(servers), servers, tmp_path / "storage") | {
        "SLUICE_STORAGES": "main:s3,archive:oss,local:local",
        "SLUICE_TEST_SWEEP_INTERVAL": "1",
        "SLUICE_MIN_FREE": "0",
        "SLUICE_TARGET_TTL": "1",
        "SLUICE_LINK_GRACE": "0",
        "SLUICE_TEST_TRANSFER_DRAIN": "1",
        "SLUICE_OSS_ENDPOINT": oss.endpoint,
        "SLUICE_OSS_BUCKET": oss.bucket,
        "SLUICE_OSS_ACCESS_KEY": oss.access_key,
        "SLUICE_OSS_SECRET_KEY": oss.secret_key,
        "SLUICE_OSS_REGION": oss.region,
        **{name: value for name, value in ceph.settings.items() if name.startswith("SLUICE_S3_")},
    }
    made = Yard(environ, tmp_path, standin)
    made.queue.purge()
    yield made
    made.close()
