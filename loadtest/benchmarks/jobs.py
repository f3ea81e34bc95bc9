"""Jobs of the worker: many small verifications, and one of 1 GiB against SHA-256 on one core.

Blobs are written to database and storage as an upload to a storage without checksums leaves them.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace

from loadtest.benchmarks.bench import Bench, Benchmark, cpu_used
from loadtest.benchmarks.content import GIB, PART_SIZE, Content
from loadtest.benchmarks.measure import Pairs, Row, Sample, Spread, settle

_SMALL = 4096
_COUNT = 10_000
_LIMIT = 0.8
_POLL = 0.1
_BATCH = 1000

_BLOB = (
    "INSERT INTO `blob` (id, size, digest, scope, state, created_at) "
    "VALUES (%s, %s, %s, %s, 'unverified', UTC_TIMESTAMP(6))"
)
_PARTS = "INSERT INTO blob_parts (blob_id, hashes) VALUES (%s, %s)"
_REPLICA = "INSERT INTO replica (blob_id, storage, object_key, created_at) VALUES (%s, 'local', %s, UTC_TIMESTAMP(6))"
_JOB = (
    "INSERT INTO job (kind, subject, state, due_at, created_at, updated_at) "
    "VALUES ('verify', %s, 'waiting', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))"
)


def _store(bench: Bench, blob: bytes, pieces: Sequence[bytes]) -> str:
    """Writes an object. Returns its key."""
    key = f"bench000/{blob.hex()[:2]}/{blob.hex()}"
    path = bench.stack.objects / key
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in (path.parent, path.parent.parent):
        folder.chmod(0o755)
    with path.open("wb") as file:
        file.writelines(pieces)
    path.chmod(0o644)
    return key


def _insert(bench: Bench, blobs: Sequence[tuple[bytes, int, bytes, str]]) -> None:
    """Inserts rows of (id, size, packed hashes, object key); the jobs last, in one transaction."""
    with bench.stack.database() as connection, connection.cursor() as cursor:
        for first in range(0, len(blobs), _BATCH):
            some = blobs[first : first + _BATCH]
            digests = [hashlib.sha256(hashes).digest() for _, _, hashes, _ in some]
            rows = zip(some, digests, strict=True)
            cursor.executemany(_BLOB, [(blob, size, digest, bytes(16)) for (blob, size, _, _), digest in rows])
            cursor.executemany(_PARTS, [(blob, hashes) for blob, _, hashes, _ in some])
            cursor.executemany(_REPLICA, [(blob, key) for blob, _, _, key in some])
        connection.begin()  # the worker sees all of them or none
        cursor.executemany(_JOB, [(blob,) for blob, *_ in blobs])
        connection.commit()


def _await_left(bench: Bench, most: int = 0) -> tuple[int, int]:
    """Waits until at most this many jobs are left. Returns the number left, and the number of polls."""
    looks = 0
    with bench.stack.database() as connection, connection.cursor() as cursor:
        while True:
            looks += 1
            cursor.execute("SELECT COUNT(*) FROM job")
            row = cursor.fetchone()
            assert row
            if row[0] <= most:
                return int(row[0]), looks
            time.sleep(_POLL)  # a poll: the worker sends no event


def _questions(bench: Bench) -> int:
    with bench.stack.database() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Questions'")
        row = cursor.fetchone()
        assert row
        return int(row[1])


def _drop(bench: Bench) -> None:
    """Deletes the verified blobs: no file names them, and the disk space is needed."""
    with bench.stack.database() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT blob_id, object_key FROM replica WHERE object_key LIKE 'bench000/%'")
        found = cursor.fetchall()
        for first in range(0, len(found), _BATCH):
            ids = [row[0] for row in found[first : first + _BATCH]]
            marks = ",".join(["%s"] * len(ids))
            for table, column in (("job", "subject"), ("blob_digest", "blob_id"), ("replica", "blob_id"),
                                  ("blob_parts", "blob_id"), ("`blob`", "id")):  # fmt: skip
                cursor.execute(f"DELETE FROM {table} WHERE {column} IN ({marks})", ids)  # noqa: S608 - our own names
    for _, key in found:
        (bench.stack.objects / key).unlink(missing_ok=True)


def _small(bench: Bench) -> Row:
    """10,000 blobs of one part each."""
    speeds, cpu, statements = [], [], []
    for _ in range(max(bench.rounds // 3, 1)):
        blobs = []
        for _ in range(_COUNT):
            blob, data = secrets.token_bytes(16), secrets.token_bytes(16) * (_SMALL // 16)
            blobs.append((blob, _SMALL, hashlib.sha256(data).digest(), _store(bench, blob, [data])))
        settle(GIB // 16)
        _insert(bench, blobs)
        count, _ = _await_left(bench, _COUNT - 1)
        before, began = _questions(bench), time.monotonic()
        with cpu_used(bench.stack.worker) as used:
            _, looks = _await_left(bench)
        seconds, after = time.monotonic() - began, _questions(bench)
        speeds.append(count / seconds)
        cpu.append(used.seconds / count)
        statements.append((after - before - looks) / count)
        _drop(bench)
    return Row(
        name="jobs",
        what="10,000 blobs of 4 KiB verified by one worker",
        unit="jobs/s",
        ours=Spread.of(speeds),
        cpu_unit="ms/job",
        cpu_ours=1e3 * sorted(cpu)[len(cpu) // 2],
        notes=f"{sorted(statements)[len(statements) // 2]:.1f} database statements per job, with BEGIN and COMMIT",
    )


def _worked(bench: Bench, subject: bytes) -> float:
    """Seconds that the worker spent on a job, from its log. A job without a message may wait up to a second before."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        lines = (bench.stack.data / "log" / "worker.log").read_text().splitlines()
        found = [json.loads(line) for line in lines if subject.hex() in line]
        if any(entry.get("outcome") == "done" for entry in found):
            return sum(float(entry.get("seconds", 0)) for entry in found)
        time.sleep(_POLL)  # a poll: a log sends no event
    raise SystemExit("the worker's log does not have the job")


def _large(bench: Bench) -> Row:
    """1 GiB in the page cache: every part's hash and the whole digest, against one pass over it on one core."""
    content = Content(GIB, secrets.randbits(48))
    pieces = [b"".join(content.part(number)) for number in range(1, content.part_count + 1)]
    hashes = b"".join(hashlib.sha256(piece).digest() for piece in pieces)

    def ours() -> Sample:
        blob = secrets.token_bytes(16)
        key = _store(bench, blob, pieces)
        settle(GIB // 16)
        with cpu_used(bench.stack.worker) as used:
            _insert(bench, [(blob, GIB, hashes, key)])
            _await_left(bench)
        _drop(bench)
        return Sample(GIB / _worked(bench, blob) / 1e6, used.seconds)

    path = bench.folder / "object"
    with path.open("wb") as file:
        file.writelines(pieces)

    def peer() -> Sample:
        settle(GIB // 16)
        whole, began = hashlib.sha256(), time.monotonic()
        with cpu_used([os.getpid()]) as used, path.open("rb", buffering=0) as file:
            while data := file.read(PART_SIZE // 8):
                whole.update(data)
        return Sample(GIB / (time.monotonic() - began) / 1e6, used.seconds)

    pairs = Pairs.take(bench.rounds, ours, peer)
    row = pairs.row("verify", "1 GiB verified, as the worker's log says; reading and SHA-256", "MB/s", "ms/GiB", 1e3)
    return replace(row, limit=f"≥ {_LIMIT}", holds=pairs.ratio.median >= _LIMIT)


def _clear(bench: Bench) -> None:
    """Deletes other benchmarks' jobs: their objects are gone, so they would never end."""
    with bench.stack.database() as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM job")


def run(bench: Bench) -> Sequence[Row]:
    """A queue without other consumers: the stack's."""
    _clear(bench)
    return [_small(bench), _large(bench)]


BENCHMARK = Benchmark("jobs", "verifications: 10,000 small ones, one of 1 GiB", run)
