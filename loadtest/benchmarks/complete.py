"""Complete of 1 GiB against copy_file_range and fsync of the same bytes, and the memory it takes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from loadtest.benchmarks.bench import Bench, Benchmark, cpu_used
from loadtest.benchmarks.client import JSON, Client
from loadtest.benchmarks.content import GIB, MIB, Content
from loadtest.benchmarks.measure import Pairs, Row, Sample, Spread, memory_growth, settle

_LIMIT = 0.7
_MEMORY_LIMIT = 32
_POLL = 0.05
"""Seconds between two polls; each poll costs the API CPU that complete could use."""


def finalize(client: Client, upload_id: str) -> JSON:
    """Completes an upload and waits until it is done. Returns its file."""
    upload = client.call("POST", f"/uploads/{upload_id}/complete")
    while upload["state"] == "finalizing":
        time.sleep(_POLL)  # a poll, as a client does it
        upload = client.call("GET", f"/uploads/{upload_id}")
    if upload["state"] != "done":
        raise SystemExit(f"an upload ended as {upload['state']}: {upload['error']}")
    file: JSON = upload["file"]
    return file


def _write_parts(content: Content, folder: Path) -> list[Path]:
    """The parts of an upload, as files."""
    folder.mkdir()
    parts = []
    for number in range(1, content.part_count + 1):
        parts.append(folder / str(number))
        with parts[-1].open("wb") as file:
            file.writelines(content.part(number))
    return parts


def _copy(parts: Sequence[Path], target: Path) -> None:
    """The lower bound: the work of the kernel and the disk."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for path in parts:
            with path.open("rb") as part:
                left = path.stat().st_size
                while left > 0:
                    left -= os.copy_file_range(part.fileno(), descriptor, left)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def run(bench: Bench) -> Sequence[Row]:
    """The parts are in the page cache and on the disk before each sample."""
    client, stack = bench.client(), bench.stack
    parts = _write_parts(bench.content(GIB), bench.folder / "parts")
    target = bench.folder / "copy"
    grown: list[float] = []

    def ours() -> Sample:
        content = bench.content(GIB)  # new bytes each time, so that nothing is merged
        upload = client.create(content, "complete.bin", parts=content.hashes())
        client.send_parts(content, upload)
        settle(2 * GIB)
        pids = [*stack.api, *stack.worker]
        with memory_growth(pids) as growth, cpu_used(pids) as used:
            began = time.monotonic()
            file = finalize(client, upload["id"])
            seconds = time.monotonic() - began
        grown.append(growth.total / MIB)
        bench.stack.objects.joinpath(bench.object_key(content)).unlink()  # frees space for the next round
        client.call("DELETE", f"/files/{file['id']}")
        return Sample(GIB / seconds / 1e6, used.seconds)

    def peer() -> Sample:
        target.unlink(missing_ok=True)
        settle(2 * GIB)
        with cpu_used([os.getpid()]) as used:
            began = time.monotonic()
            _copy(parts, target)
            seconds = time.monotonic() - began
        return Sample(GIB / seconds / 1e6, used.seconds)

    pairs = Pairs.take(bench.rounds, ours, peer)
    what = "complete of 1 GiB, to `done`; copy_file_range + fsync"
    row = pairs.row("complete", what, "MB/s", "ms/GiB", 1e3)
    row = replace(row, limit=f"≥ {_LIMIT}", holds=pairs.ratio.median >= _LIMIT)
    memory = Spread.of(grown)
    return [
        row,
        Row(
            name="complete-memory",
            what="growth of API and worker meanwhile, the first complete included",
            unit="MiB",
            ours=memory,
            limit=f"< {_MEMORY_LIMIT}",
            holds=memory.most < _MEMORY_LIMIT,
        ),
    ]


BENCHMARK = Benchmark("complete", "complete of 1 GiB against copy_file_range and fsync", run)
