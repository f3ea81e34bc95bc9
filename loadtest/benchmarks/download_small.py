"""Signed downloads of 1 KiB: the edge's Lua against nginx's own secure_link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from loadtest.benchmarks.bench import Bench, Benchmark
from loadtest.benchmarks.measure import Pairs, Row, Spread
from loadtest.benchmarks.wrk import Load

_LINKS = 16
_SIZE = 1024
_CPU_LIMIT = 1.4
_P99_LIMIT = 1.5
_WHAT = "signed download of 1 KiB, warm; nginx `secure_link`"


def run(bench: Bench) -> Sequence[Row]:
    """The same 16 files by 16 links and by 16 secure_link addresses, by wrk with 16 connections."""
    client = bench.client()
    links, keys = [], []
    for number in range(_LINKS):
        content = bench.content(_SIZE)
        links.append(client.link(client.upload(content, f"small {number}.bin")))
        keys.append(bench.object_key(content))
    ours = Load(bench.stack.port, links)
    rows = []
    for cached in (False, True):
        peer = Load(bench.peer.port, [bench.peer.secure_path(key, cached) for key in keys])
        pairs = Pairs.take(
            bench.rounds,
            lambda: ours.put(bench.seconds, bench.stack.edge),
            lambda peer=peer: peer.put(bench.seconds, bench.peer.workers),  # type: ignore[misc]
        )
        name = "download-small-cached" if cached else "download-small"
        what = "the same; `secure_link` with our open_file_cache" if cached else _WHAT
        row = pairs.row(name, what, "requests/s", "µs", 1e6)
        if not cached:  # the limits are about secure_link as nginx has it
            assert row.cpu_ratio
            row = replace(row, limit=f"CPU ≤ {_CPU_LIMIT}", holds=row.cpu_ratio.median <= _CPU_LIMIT)
        rows.append(row)
        if not cached:
            rows.append(_slowest(pairs))
    return rows


def _slowest(pairs: Pairs) -> Row:
    """The time that 99 of 100 requests took at most, of the same samples."""
    ratio = pairs.slowest_ratio
    return Row(
        name="download-small-p99",
        what="the same: 99 of 100 answers came within, 16 connections at once",
        unit="ms",
        ours=Spread.of([sample.slowest * 1e3 for sample in pairs.ours]),
        peer=Spread.of([sample.slowest * 1e3 for sample in pairs.peer]),
        ratio=ratio,
        limit=f"≤ {_P99_LIMIT}",
        holds=ratio.median <= _P99_LIMIT,
    )


BENCHMARK = Benchmark("download-small", "signed download of 1 KiB against nginx secure_link", run)
