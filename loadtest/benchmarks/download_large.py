"""A download of 1 GiB by a link, against plain static nginx sending the same file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from loadtest.benchmarks.bench import Bench, Benchmark, cpu_used
from loadtest.benchmarks.client import Sender
from loadtest.benchmarks.complete import finalize
from loadtest.benchmarks.content import GIB
from loadtest.benchmarks.measure import Pairs, Row, Sample, Spread

_LIMIT = 0.97


def read(port: int, path: str, workers: Sequence[int]) -> Sample:
    """Reads a body on a new connection, and measures the workers' CPU."""
    with Sender(port) as connection, cpu_used(workers) as used:
        began = time.monotonic()
        length = connection.get(path)
        seconds = time.monotonic() - began
    return Sample(length / seconds / 1e6, used.seconds / (length / GIB))


def run(bench: Bench) -> Sequence[Row]:
    """One connection. The reader drops the bytes."""
    client = bench.client()
    content = bench.content(GIB)
    upload = client.create(content, "large.bin", parts=content.hashes())
    client.send_parts(content, upload)
    link = client.link(finalize(client, upload["id"]))
    row = beside_static(
        bench, link, bench.object_key(content), "download-large", "download of 1 GiB; nginx static", _LIMIT
    )
    return [row]


def beside_static(bench: Bench, link: str, key: str, name: str, what: str, limit: float) -> Row:
    """A link beside an object with the same bytes. Static is read twice per round, to measure its spread."""
    static, again = bench.peer.static_path(key), list[Sample]()

    def peer() -> Sample:
        again.append(read(bench.peer.port, static, bench.peer.workers))
        return read(bench.peer.port, static, bench.peer.workers)

    pairs = Pairs.take(bench.rounds, lambda: read(bench.stack.port, link, bench.stack.edge), peer)
    # static against itself, neighbour by neighbour; the first pair was the warm-up
    itself = Spread.of([a.speed / b.speed for a, b in zip(again[1:], pairs.peer, strict=True)])
    return replace(
        pairs.row(name, what, "MB/s", "ms/GiB", 1e3),
        limit=f"≥ {limit}, or static's own spread",
        holds=pairs.ratio.median >= min(limit, itself.least),
        notes=f"static against itself: {itself.median:.2f} ({itself.least:.2f} to {itself.most:.2f})",
    )


BENCHMARK = Benchmark("download-large", "download of 1 GiB against nginx static", run)
