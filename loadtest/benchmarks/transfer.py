"""A gigabyte from a real Ceph to the stand-in for OSS by one worker, beside boto3 and oss2 doing just that.

``python -m loadtest.benchmarks.transfer`` prints it; `--small N` moves N blobs of 4 KiB instead, and counts.

Both copy 8 MiB parts, four at once, over the same two servers, in turns. Ours hashes every part on its way and then
reads the copy back, which the other does not: `copied` compares what both do, `verified` is all that ours does. The
stand-in is a process of its own, and in Python: it is the slowest of the four, for both.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import oss2
from botocore.config import Config as BotoConfig
from oss2.models import PartInfo

from api import digests
from api.app import compose
from api.config import load
from api.db import blobs
from api.db.migrate import migrate
from api.db.pool import Database
from api.models import Blob, new_id, utc_now
from api.storage.base import MultipartRef
from api.storage.oss import OSSStorage
from api.storage.s3 import S3Storage
from loadtest.benchmarks.stack import ROOT
from scripts.stack.services import MariaDB, Redis, server_folder, started
from tests.storage.ceph import Ceph, running
from tests.storage.oss_standin import ACCOUNT

GIB = 1024**3
PART = digests.part_size(GIB)
_PARALLEL = 4
_ROUNDS = 5
_MOST_MIB = 200


@dataclass(frozen=True)
class Ours:
    """One transfer: seconds of copying, of all of it, and the worker's peak memory in bytes."""

    copied: float
    verified: float
    peak: int


@contextlib.contextmanager
def _standin() -> Iterator[str]:
    """The stand-in as a process; answers its address."""
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
    """The database's side of it: a blob on Ceph, a worker, a transfer."""

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
        """A verified blob on Ceph; answers its key."""
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
        """What was copied is doomed: the next round copies it again."""
        for (key,) in self._db.all("SELECT object_key FROM replica WHERE storage = 'archive'"):
            self._oss.delete(key)
        self._db.execute("DELETE FROM replica WHERE storage = 'archive'")

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
                time.sleep(0.05)
            began = time.monotonic()
            transfer = self._services.transfers.start("main", "archive", None)[0].transfer.id
            state = "SELECT state FROM transfer WHERE id = %s"
            while self._db.all(state, (transfer,))[0][0] != "done":
                assert time.monotonic() - began < 600, log.read_text()[-3000:]
                time.sleep(0.05)
            self.seconds = time.monotonic() - began
            status = Path(f"/proc/{worker.pid}/status").read_text()
        finally:
            worker.terminate()
            worker.wait(60)
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        copied = [line for line in lines if line.get("message") == "copied"]
        peak = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024
        return Ours(sum(c["copy_seconds"] for c in copied), sum(c["seconds"] for c in copied), peak)


class Peer:
    """boto3 and oss2, four parts at once, and nothing else."""

    def __init__(self, ceph: Ceph, address: str) -> None:
        given = ceph.settings
        self._bucket = given["SLUICE_S3_BUCKET"]
        self._s3 = boto3.client(
            "s3",
            endpoint_url=given["SLUICE_S3_ENDPOINT"],
            aws_access_key_id=given["SLUICE_S3_ACCESS_KEY"],
            aws_secret_access_key=given["SLUICE_S3_SECRET_KEY"],
            region_name="us-east-1",
            config=BotoConfig(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        )
        auth = oss2.make_auth(ACCOUNT.access_key, ACCOUNT.secret_key, "v4")
        self._oss = oss2.Bucket(auth, address, ACCOUNT.bucket, region=ACCOUNT.region, enable_crc=False)

    def make_bucket(self) -> None:
        self._s3.create_bucket(Bucket=self._bucket)

    def move(self, key: str) -> float:
        """Seconds."""
        began, name = time.monotonic(), f"peer/{time.monotonic_ns()}"
        upload = self._oss.init_multipart_upload(name).upload_id

        def part(number: int) -> Any:
            first = (number - 1) * PART
            where = f"bytes={first}-{first + PART - 1}"
            body = self._s3.get_object(Bucket=self._bucket, Key=key, Range=where)["Body"].read()
            return PartInfo(number, self._oss.upload_part(name, upload, number, body).etag)

        with ThreadPoolExecutor(_PARALLEL) as pool:
            parts = list(pool.map(part, range(1, digests.part_count(GIB) + 1)))
        self._oss.complete_multipart_upload(name, upload, parts)
        seconds = time.monotonic() - began
        self._oss.delete_object(name)
        return seconds


def _environ(folder: Path, database: MariaDB, redis: Redis, ceph: Ceph, address: str) -> dict[str, str]:
    (folder / "storage").mkdir()
    return {
        "SLUICE_DATABASE_URL": database.url,
        "SLUICE_REDIS_URL": redis.url,
        "SLUICE_SECRET_KEYS": "k" * 64,
        "SLUICE_EDGE_KEY": "e" * 64,
        "SLUICE_STORAGE_ROOT": str(folder / "storage"),
        "SLUICE_STORAGES": "main:s3,archive:oss,local:local",
        "SLUICE_TRANSFER_PARALLEL": str(_PARALLEL),
        "SLUICE_OSS_ENDPOINT": address,
        "SLUICE_OSS_BUCKET": ACCOUNT.bucket,
        "SLUICE_OSS_ACCESS_KEY": ACCOUNT.access_key,
        "SLUICE_OSS_SECRET_KEY": ACCOUNT.secret_key,
        "SLUICE_OSS_REGION": ACCOUNT.region,
        **{name: value for name, value in ceph.settings.items() if name.startswith("SLUICE_S3_")},
    }


def _large(yard: Yard, peer: Peer, rounds: int) -> None:
    key = yard.store(GIB, 1)
    peer.move(key)
    rows = []
    for number in range(rounds):
        theirs = peer.move(key) if number % 2 else 0.0
        ours = yard.move()
        theirs = theirs or peer.move(key)
        yard.forget()
        rows.append((theirs / ours.copied, theirs / ours.verified, ours.peak))
        print(
            f"ours {GIB / ours.copied / 1e6:6.0f} MB/s copied, {GIB / ours.verified / 1e6:6.0f} verified, "
            f"peak {ours.peak / 1024**2:.0f} MiB; boto3 to oss2 {GIB / theirs / 1e6:6.0f} MB/s"
        )
    for name, column in (("copied", 0), ("copied and verified", 1)):
        values = sorted(row[column] for row in rows)
        spread = f"{values[len(values) // 2]:.2f} ({values[0]:.2f} to {values[-1]:.2f})"
        print(f"{name}: ours/theirs median {spread}{', limit 0.80' if column == 0 else ''}")
    print(f"peak memory of the worker: {max(row[2] for row in rows) / 1024**2:.0f} MiB, limit {_MOST_MIB}")


def _small(yard: Yard, count: int) -> None:
    for number in range(count):
        yard.store(4096, number)
    before = yard._db.all("SHOW GLOBAL STATUS LIKE 'Questions'")[0][1]
    ours = yard.move()
    asked = int(yard._db.all("SHOW GLOBAL STATUS LIKE 'Questions'")[0][1]) - int(before)
    print(f"{count} blobs of 4 KiB in {yard.seconds:.1f} s: {count / yard.seconds:.0f} a second,", end=" ")
    print(f"{asked / count:.1f} database statements each, peak {ours.peak / 1024**2:.0f} MiB")


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(prog="loadtest.benchmarks.transfer")
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--small", type=int, default=0, metavar="N", help="move N blobs of 4 KiB instead")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(server_folder())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-", dir="/var/tmp")))
        (folder / "ceph").mkdir()
        database = stack.enter_context(started(MariaDB(servers)))
        redis = stack.enter_context(started(Redis(servers)))
        ceph = stack.enter_context(running(folder / "ceph" / "ceph"))
        address = stack.enter_context(_standin())
        peer = Peer(ceph, address)
        peer.make_bucket()
        migrate(database.url)
        yard = Yard(_environ(folder, database, redis, ceph, address), folder)
        if arguments.small:
            _small(yard, arguments.small)
        else:
            _large(yard, peer, arguments.rounds)


if __name__ == "__main__":
    main()
