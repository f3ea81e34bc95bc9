"""PUT of 8 MiB parts to signed URLs against a plain DAV PUT, sequentially and four in parallel."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urlsplit

from loadtest.benchmarks.bench import Bench, Benchmark, cpu_used
from loadtest.benchmarks.client import Sender
from loadtest.benchmarks.content import GIB, PART_SIZE, Content
from loadtest.benchmarks.measure import Pairs, Row, Sample, settle

_PARTS = 32
_LIMIT = 0.9


def _send(port: int, paths: Sequence[str], content: Content, at_once: int, workers: Sequence[int]) -> Sample:
    """Sends every part, distributed over the connections."""
    settle(2 * len(paths) * PART_SIZE)

    def share(first: int) -> None:
        with Sender(port) as sender:
            for number in range(first, len(paths), at_once):
                sender.put(paths[number], content.part(number + 1))

    with ThreadPoolExecutor(at_once) as pool, cpu_used(workers) as used:
        began = time.monotonic()
        list(pool.map(share, range(at_once)))
        seconds = time.monotonic() - began
    size = len(paths) * PART_SIZE
    return Sample(size / seconds / 1e6, used.seconds / (size / GIB))


def run(bench: Bench) -> Sequence[Row]:
    """256 MiB per sample. Both write to the same file system and replace the previous round's files."""
    client = bench.client()
    content = bench.content(_PARTS * PART_SIZE)
    upload = client.create(content, "parts.bin", parts=content.hashes())
    ours = [urlsplit(part["url"]).path for part in upload["parts"].values()]
    peer = [f"/put/{number}" for number in range(_PARTS)]
    rows = []
    for at_once in (1, 4):
        pairs = Pairs.take(
            2 * bench.rounds,  # samples are short, and disks are uneven
            lambda n=at_once: _send(bench.stack.port, ours, content, n, bench.stack.edge),  # type: ignore[misc]
            lambda n=at_once: _send(bench.peer.port, peer, content, n, bench.peer.workers),  # type: ignore[misc]
        )
        row = pairs.row(
            f"put-{at_once}", f"PUT of 8 MiB parts, {at_once} in parallel; nginx DAV", "MB/s", "ms/GiB", 1e3
        )
        rows.append(replace(row, limit=f"≥ {_LIMIT}", holds=pairs.ratio.median >= _LIMIT))
    return rows


BENCHMARK = Benchmark("put-parts", "PUT of 8 MiB parts against nginx DAV, 1 and 4 in parallel", run)
