"""Blobs from a real Ceph to the stand-in for OSS by one worker, beside a bare copy by boto3 and oss2.

Both copy 8 MiB parts, four in parallel, over the same two servers, in turns. Sluice hashes every part and then reads
the copy back, which the peer does not: `transfer` compares the common work, `transfer-verified` all of Sluice's work.
The stand-in is a separate process in Python: it is the slowest of the four, for both. The worker has a separate
database and queue, because the stack has no second storage.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import oss2
from oss2.models import PartInfo

from api.app import compose
from api.blobs import rows as blobs
from api.core import digests
from api.core.config import load
from api.core.models import Blob, new_id, utc_now
from api.db.migrate import migrate
from api.db.pool import Database
from api.storage.base import MultipartRef
from api.storage.oss.storage import OSSStorage
from api.storage.s3.storage import S3Storage
from loadtest.benchmarks.bench import Bench, Benchmark
from loadtest.benchmarks.content import GIB, MIB
from loadtest.benchmarks.measure import Pairs, Row, Sample, Spread
from loadtest.benchmarks.s3 import S3
from loadtest.benchmarks.stack import ROOT
from scripts.stack.services import MariaDB, Redis, server_folder, started
from tests.storage.oss_standin import ACCOUNT

PART = digests.part_size(GIB)
_BUCKET = "transfers"
_PARALLEL = 4
_MOST_ROUNDS = 5
_SMALL = 4096
_SMALL_COUNT = 300
_LIMIT = 0.8
_MOST_MIB = 200


@dataclass(frozen=True)
class Ours:
    """One transfer: seconds of copying, seconds from its start to its end, and the worker's peak in bytes."""

    copied: float
    verified: float
    whole: float
    peak: int


@contextlib.contextmanager
def _standin() -> Iterator[str]:
    """Runs the stand-in as a process. Returns its address."""
    code = (
        "import sys, time\nfrom tests.storage import oss_standin\nfrom tests.storage.oss_bucket import Bucket\n"
        "with oss_standin.running(oss_standin.ACCOUNT, Bucket()) as made:\n"
        "    print(made.url, flush=True)\n    made.seen = type('', (list,), {'append': lambda *a: None})()\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(20)


class Yard:
    """A database with a blob on Ceph, a worker, a transfer."""

    def __init__(self, environ: dict[str, str], folder: Path) -> None:
        self._environ = environ
        self._folder = folder
        config = load(environ)
        self._db = Database(config.database_url, 4)
        self._services = compose(config, db=self._db)
        self._prefix = str(self._db.all("SELECT value FROM deployment WHERE name = 'id'")[0][0])
        self._ceph = S3Storage(config.s3["main"], lambda: self._prefix)
        self._oss = OSSStorage(config.oss["archive"], lambda: self._prefix)

    def store(self, size: int, seed: int) -> str:
        """Stores a verified blob on Ceph. Returns its key."""
        noise, upload_id = random.Random(seed), new_id()
        count, length, place = digests.part_count(size), digests.part_size(size), self._ceph
        key = f"{self._prefix}/{upload_id[-1:].hex()}/{upload_id.hex()}"
        ref = MultipartRef(upload_id.hex(), key, "", size, length, count, "", 0)
        ref = MultipartRef(upload_id.hex(), key, place.create(ref), size, length, count, "", 0)
        hashes = b""
        for number in range(1, count + 1):
            part = noise.randbytes(digests.part_length(number, size, length))
            hashes += hashlib.sha256(part).digest()
            place.write_part(ref, number, [part], hashes[-32:].hex())
        place.complete(ref, hashes, lambda: None)
        blob = Blob(new_id(), size, digests.composite(hashes), "verified", None, "main", key)
        self._db.transaction(lambda tx: blobs.insert_verified(tx, blob, bytes(16), hashes, utc_now()))
        return key

    def forget(self) -> None:
        """Deletes the copies, so that the next round copies them again."""
        for (key,) in self._db.all("SELECT object_key FROM replica WHERE storage = 'archive'"):
            self._oss.delete(key)
        self._db.execute("DELETE FROM replica WHERE storage = 'archive'")

    def statements(self) -> int:
        """The number of statements that the database has received."""
        return int(self._db.all("SHOW GLOBAL STATUS LIKE 'Questions'")[0][1])

    def move(self) -> Ours:
        """Copies everything by one worker."""
        log = self._folder / "worker.log"
        with log.open("wb") as out:
            worker = subprocess.Popen(
                [sys.executable, "-m", "api", "worker"],
                cwd=ROOT,
                env=os.environ | self._environ,
                stdout=out,
                stderr=out,
            )
        try:
            while b"worker started" not in log.read_bytes():
                time.sleep(0.05)  # a poll: the worker sends no event
            began = time.monotonic()
            transfer = self._services.transfers.start("main", "archive", None)[0].transfer.id
            state = "SELECT state FROM transfer WHERE id = %s"
            while self._db.all(state, (transfer,))[0][0] != "done":
                assert time.monotonic() - began < 600, log.read_text()[-3000:]
                time.sleep(0.05)  # a poll: the worker sends no event
            whole = time.monotonic() - began
            status = Path(f"/proc/{worker.pid}/status").read_text()
        finally:
            worker.terminate()
            worker.wait(60)
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        copied = [line for line in lines if line.get("message") == "copied"]
        peak = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024
        return Ours(sum(c["copy_seconds"] for c in copied), sum(c["seconds"] for c in copied), whole, peak)


class Peer:
    """A bare copy by boto3 and oss2, four parts in parallel."""

    def __init__(self, s3: S3, address: str) -> None:
        self._s3 = s3.client
        auth = oss2.make_auth(ACCOUNT.access_key, ACCOUNT.secret_key, "v4")
        self._oss = oss2.Bucket(auth, address, ACCOUNT.bucket, region=ACCOUNT.region, enable_crc=False)

    def move(self, key: str) -> float:
        """Runs the copy. Returns its seconds."""
        began, name = time.monotonic(), f"peer/{time.monotonic_ns()}"
        upload = self._oss.init_multipart_upload(name).upload_id

        def part(number: int) -> Any:
            first = (number - 1) * PART
            where = f"bytes={first}-{first + PART - 1}"
            body = self._s3.get_object(Bucket=_BUCKET, Key=key, Range=where)["Body"].read()
            return PartInfo(number, self._oss.upload_part(name, upload, number, body).etag)

        with ThreadPoolExecutor(_PARALLEL) as pool:
            parts = list(pool.map(part, range(1, digests.part_count(GIB) + 1)))
        self._oss.complete_multipart_upload(name, upload, parts)
        seconds = time.monotonic() - began
        self._oss.delete_object(name)
        return seconds


def _environ(folder: Path, database: MariaDB, redis: Redis, s3: S3, address: str) -> dict[str, str]:
    storage = folder / "storage"
    storage.mkdir()
    return {
        "SLUICE_DATABASE_URL": database.url,
        "SLUICE_REDIS_URL": redis.url,
        "SLUICE_SECRET_KEYS": "k" * 64,
        "SLUICE_EDGE_KEY": "e" * 64,
        "SLUICE_STORAGE_ROOT": str(storage),
        "SLUICE_STORAGES": "main:s3,archive:oss,local:local",
        "SLUICE_TEST_TRANSFER_PARALLEL": str(_PARALLEL),
        "SLUICE_OSS_ENDPOINT": address,
        "SLUICE_OSS_BUCKET": ACCOUNT.bucket,
        "SLUICE_OSS_ACCESS_KEY": ACCOUNT.access_key,
        "SLUICE_OSS_SECRET_KEY": ACCOUNT.secret_key,
        "SLUICE_OSS_REGION": ACCOUNT.region,
        "SLUICE_S3_ENDPOINT": s3.endpoint,
        "SLUICE_S3_BUCKET": _BUCKET,
        "SLUICE_S3_ACCESS_KEY": s3.access_key,
        "SLUICE_S3_SECRET_KEY": s3.secret_key,
    }


def _without_cpu(row: Row, **members: Any) -> Row:
    return replace(row, cpu_unit="", cpu_ours=None, cpu_peer=None, cpu_ratio=None, **members)


def _large(bench: Bench, yard: Yard, peer: Peer) -> list[Row]:
    key, found = yard.store(GIB, 1), list[Ours]()

    def ours() -> Sample:
        found.append(yard.move())
        yard.forget()
        return Sample(GIB / found[-1].copied / 1e6, 0)

    copied = Pairs.take(min(bench.rounds, _MOST_ROUNDS), ours, lambda: Sample(GIB / peer.move(key) / 1e6, 0))
    verified = Pairs([Sample(GIB / one.verified / 1e6, 0) for one in found[1:]], copied.peer)
    memory = Spread.of([one.peak / MIB for one in found])
    what = "1 GiB copied from Ceph to the stand-in for OSS by one worker; boto3 to oss2"
    row = copied.row("transfer", what, "MB/s", "", 0)
    also = verified.row("transfer-verified", "the same, the copy read back and compared; boto3 to oss2", "MB/s", "", 0)
    return [
        _without_cpu(row, limit=f"≥ {_LIMIT}", holds=copied.ratio.median >= _LIMIT),
        _without_cpu(also),
        Row("transfer-memory", "peak memory of the worker meanwhile", "MiB", memory, limit=f"< {_MOST_MIB}",
            holds=memory.most < _MOST_MIB),
    ]  # fmt: skip


def _small(yard: Yard) -> Row:
    for number in range(_SMALL_COUNT):
        yard.store(_SMALL, number)
    before = yard.statements()
    speed = Spread.of([_SMALL_COUNT / yard.move().whole])
    asked = (yard.statements() - before) / _SMALL_COUNT
    what = f"{_SMALL_COUNT} blobs of 4 KiB, from the start of the transfer to its end"
    note = f"{asked:.1f} database statements per blob, planning and the bench's polls included"
    return Row("transfer-small", what, "blobs/s", speed, notes=note)


def run(bench: Bench) -> Iterator[Row]:
    """The large blob is copied in each round, the small ones once."""
    s3 = S3(bench.stack)
    s3.client.create_bucket(Bucket=_BUCKET)
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(server_folder())
        database = stack.enter_context(started(MariaDB(servers)))
        redis = stack.enter_context(started(Redis(servers)))
        address = stack.enter_context(_standin())
        migrate(database.url)
        yard = Yard(_environ(bench.folder, database, redis, s3, address), bench.folder)
        yield from _large(bench, yard, Peer(s3, address))
        yield _small(yard)


BENCHMARK = Benchmark("transfer", "1 GiB from Ceph to the stand-in for OSS against boto3 and oss2", run, "ceph")
