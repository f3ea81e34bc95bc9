"""Signed downloads of 1 KiB: the edge's Lua against nginx's secure_link module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from loadtest.benchmarks.bench import Bench, Benchmark
from loadtest.benchmarks.measure import Pairs, Row, Spread
from loadtest.benchmarks.paced import times
from loadtest.benchmarks.peer import Peer
from loadtest.benchmarks.wrk import Load

_LINKS = 16
_SIZE = 1024
_CPU_LIMIT = 1.4
_P99_LIMIT = 1.5
# far below both servers' capacity: measures the response time, not queueing
_RATE = 2000
# short, so that few samples contain a pause of the machine
_SAMPLE_SECONDS, _SAMPLES_A_ROUND = 0.5, 4
_WHAT = "signed download of 1 KiB, warm; nginx `secure_link`"


def run(bench: Bench) -> Sequence[Row]:
    """16 files, by 16 links and by 16 secure_link addresses, by wrk with 16 connections."""
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
        what = "the same; `secure_link` with the edge's open_file_cache" if cached else _WHAT
        row = pairs.row(name, what, "requests/s", "µs", 1e6)
        if not cached:  # the limits apply to secure_link with nginx's defaults
            assert row.cpu_ratio
            row = replace(row, limit=f"CPU ≤ {_CPU_LIMIT}", holds=row.cpu_ratio.median <= _CPU_LIMIT)
        rows.append(row)
        if not cached:
            rows.append(_slowest(bench, ours, peer))
    return rows


def _slowest(bench: Bench, ours: Load, peer: Load) -> Row:
    """The 99th percentile of response time, at a rate that keeps neither server busy.

    A second nginx like the peer gets a share of the same requests: the difference of the two is the precision.
    """
    with Peer(bench.stack, bench.folder) as twin:
        loads = [ours, peer, replace(peer, port=twin.port)]
        samples = [times(loads, _RATE, _SAMPLE_SECONDS) for _ in range(1 + _SAMPLES_A_ROUND * bench.rounds)]
    found = [[sorted(each)[len(each) * 99 // 100] * 1e3 for each in sample] for sample in samples[1:]]
    ratio = Spread.of([mine / its for mine, its, _ in found])
    itself = Spread.of([again / its for _, its, again in found])
    return Row(
        name="download-small-p99",
        what=f"the same at {_RATE:,} requests/s to each, whatever the answers: 99 of 100 came within",
        unit="ms",
        ours=Spread.of([mine for mine, _, _ in found]),
        peer=Spread.of([its for _, its, _ in found]),
        ratio=ratio,
        limit=f"≤ {_P99_LIMIT}",
        holds=ratio.median <= _P99_LIMIT,
        notes=f"`secure_link` against itself: {itself.median:.2f} ({itself.least:.2f} to {itself.most:.2f})",
    )


BENCHMARK = Benchmark("download-small", "signed download of 1 KiB against nginx secure_link", run)
