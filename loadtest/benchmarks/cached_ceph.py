"""1 GiB on Ceph, sent from the edge's disk cache, beside static nginx sending the same file."""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.benchmarks.bench import Bench, Benchmark
from loadtest.benchmarks.complete import finalize
from loadtest.benchmarks.content import GIB
from loadtest.benchmarks.download_large import beside_static, read
from loadtest.benchmarks.measure import Row
from loadtest.benchmarks.s3 import put_all

_LIMIT = 0.95
_WARM = 3
"""Warms the cache up: the pieces are fetched, then all found on disk, then copied into one file."""


def run(bench: Bench) -> Sequence[Row]:
    """The link is read before the clock starts, so that hot content is in the edge's cache as one file."""
    client, content = bench.client(), bench.content(GIB)
    upload = client.create(content, "large.bin", parts=content.hashes())
    put_all([(part["url"], part["headers"]) for part in upload["parts"].values()], content, 4)
    link = client.link(finalize(client, upload["id"]))
    bench.stack.objects.mkdir(parents=True, exist_ok=True)
    static = bench.stack.objects / "static"
    content.write(static)
    static.chmod(0o644)
    for _ in range(_WARM):
        read(bench.stack.port, link, bench.stack.edge)
    what = "1 GiB of Ceph from the edge's disk, hot; nginx static"
    return [beside_static(bench, link, "static", "cached-ceph", what, _LIMIT)]


BENCHMARK = Benchmark(
    "cached-ceph", "hot content of Ceph from the edge's disk against nginx static", run, "ceph",
    {"SLUICE_CACHE_STORAGES": "ceph"},
)  # fmt: skip
