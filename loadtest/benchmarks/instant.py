"""`sluice put` of 1 GiB, which hashes and sends at the same time, beside hashing alone and sending alone.

Content that the server has from another user takes the time of its hash (`sluice digest`). Unknown content takes the
time of sending (`--instant never`, which hashes each part, too). Every run is a separate process.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from loadtest.benchmarks.bench import Bench, Benchmark
from loadtest.benchmarks.client import PASSWORD
from loadtest.benchmarks.content import GIB, MIB
from loadtest.benchmarks.measure import Pairs, Row, Sample, settle
from loadtest.benchmarks.runs import measured
from loadtest.benchmarks.stack import ROOT

_MOST_ROUNDS = 5
"""Each round writes 2 GiB or more."""


class _Runs:
    """Runs of the command, by one user who deletes each file, and another whose files are known content."""

    def __init__(self, bench: Bench) -> None:
        stack = bench.stack
        self._bench, self._source = bench, bench.folder / "instant"
        self._servers = {
            "edge": stack.edge,
            "API": stack.api,
            "worker": stack.worker,
            "database": stack.database_server,
        }
        self._users = [bench.client().username for _ in range(2)]

    def _sluice(self, user: int, *words: str | Path) -> Sample:
        environment = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT / "client" / "src"),
            "PYTHONPYCACHEPREFIX": str(self._bench.folder / "compiled"),
            "SLUICE_CLIENT_HOME": str(self._bench.folder / f"home {user}"),
            "SLUICE_CLIENT_CREDENTIALS": "file",
            "SLUICE_CLIENT_URL": f"http://127.0.0.1:{self._bench.stack.port}",
            "SLUICE_CLIENT_USERNAME": self._users[user],
            "SLUICE_CLIENT_PASSWORD": PASSWORD,
        }
        run = measured(
            [sys.executable, "-m", "sluice", *words], environment, self._bench.folder / "last.log", self._servers
        )
        return run.sample(GIB / 1e6, 1)

    def known(self) -> Sample:
        """Put, of content that the other user has."""
        self._new()
        self._sluice(1, "put", "-q", self._source, "--instant", "never")
        settle(GIB)
        sample = self._put()
        self._sluice(1, "rm", "-q", self._source.name)
        return sample

    def hashed(self) -> Sample:
        """Only hashed."""
        self._new()
        return self._sluice(0, "digest", "-q", self._source)

    def unknown(self, mode: str) -> Sample:
        """Put, of new content."""
        self._new()
        return self._put("--instant", mode)

    def _new(self) -> None:
        self._bench.content(GIB).write(self._source)
        settle(GIB)

    def _put(self, *words: str) -> Sample:
        sample = self._sluice(0, "put", "-q", self._source, *words)
        self._sluice(0, "rm", "-q", self._source.name)
        return sample


def _run(bench: Bench, where: str) -> Iterator[Row]:
    runs, rounds = _Runs(bench), min(bench.rounds, _MOST_ROUNDS)
    known = Pairs.take(rounds, runs.known, runs.hashed)
    row = known.row(
        f"put-known-{where}", "1 GiB that the server has, by `sluice put`; `sluice digest`", "MB/s", "ms/GiB", 1e3
    )
    yield replace(row, limit="≥ 0.83", holds=row.ratio is not None and row.ratio.median >= 1 / 1.2)
    unknown = Pairs.take(rounds, partial(runs.unknown, "auto"), partial(runs.unknown, "never"))
    row = unknown.row(f"put-unknown-{where}", "1 GiB that it has not; `--instant never`", "MB/s", "ms/GiB", 1e3)
    yield replace(row, limit="≥ 0.95", holds=row.ratio is not None and row.ratio.median >= 1 / 1.05)
    peak = max(sample.peak for sample in (*known.ours, *unknown.ours))
    print(f"peak memory of the command: {peak / MIB:.0f} MiB", file=sys.stderr)


def run_local(bench: Bench) -> Iterator[Row]:
    return _run(bench, "local")


def run_ceph(bench: Bench) -> Iterator[Row]:
    return _run(bench, "ceph")


LOCAL = Benchmark("instant", "1 GiB by the command: known content beside its hash, unknown beside sending", run_local)
CEPH = Benchmark("instant-ceph", "the same on Ceph", run_ceph, "ceph")
