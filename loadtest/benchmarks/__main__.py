"""The command: picks benchmarks, runs them over one stack and one peer, prints and writes the table."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from loadtest.benchmarks import (
    calls,
    calls_ceph,
    complete,
    crowd,
    download_large,
    download_small,
    jobs,
    large_ceph,
    others,
    put_parts,
    small_ceph,
    statements,
    transfer,
)
from loadtest.benchmarks.bench import Bench, Benchmark
from loadtest.benchmarks.measure import CallRow, LeftOut
from loadtest.benchmarks.peer import Peer
from loadtest.benchmarks.report import Report
from loadtest.benchmarks.stack import ROOT, Stack

BENCHMARKS = [
    download_small.BENCHMARK,
    download_large.BENCHMARK,
    crowd.BENCHMARK,
    put_parts.BENCHMARK,
    complete.BENCHMARK,
    jobs.BENCHMARK,
    calls.BENCHMARK,
    statements.BENCHMARK,
    others.ACCEL,
    others.TUS_FILE,
    calls_ceph.BENCHMARK,
    large_ceph.BENCHMARK,
    small_ceph.BENCHMARK,
    others.GIFTLESS,
    others.TUS_S3,
    transfer.BENCHMARK,
]
_STORAGES = {"local": (), "ceph": ("--storage", "ceph")}
_OSD_GB = "40"
_PAGE = ROOT / "docs" / "performance.md"
_NEEDS_GIB = 20  # an upload of 1,000 parts is refused on less


def _arguments(names: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loadtest/bench", description="Measure Sluice beside its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="measure these only")
    parser.add_argument("--write", action="store_true", help="put these rows in place of those that the page has")
    parser.add_argument("--list", action="store_true", help="list the names")
    parser.add_argument("--quick", action="store_true", help="few and short samples, and write nothing")
    parser.add_argument("--rounds", type=int, help="pairs of samples; 7, and 2 with --quick")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="a disk with room; /var/tmp")  # noqa: S108
    arguments = parser.parse_args(names)
    if unknown := set(arguments.names) - {benchmark.name for benchmark in BENCHMARKS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}; --list shows what there is")
    return arguments


def _measure(chosen: Sequence[Benchmark], folder: Path, rounds: int, seconds: int) -> Report:
    report = Report([], [], rounds, seconds, os.getloadavg()[0])
    for storage, options in _STORAGES.items():
        if same := [benchmark for benchmark in chosen if benchmark.storage == storage]:
            below = folder / storage
            below.mkdir(mode=0o755)
            with Stack(below, *options) as stack, Peer(stack, below) as peer:
                for benchmark in same:
                    _run(benchmark, Bench(stack, peer, below / benchmark.name, rounds, seconds), report)
                if trouble := stack.edge_log.read_text():
                    print(f"bench: the edge had trouble, so judge the figures with care:\n{trouble}", file=sys.stderr)
            shutil.rmtree(below)
    return report


def _run(benchmark: Benchmark, bench: Bench, report: Report) -> None:
    """Adds a benchmark's rows to the report; what cannot be measured here is said, and stands in the table."""
    began = time.monotonic()
    print(f"bench: {benchmark.name}: {benchmark.summary} …", end=" ", file=sys.stderr, flush=True)
    bench.folder.mkdir(mode=0o755)
    try:
        for row in benchmark.run(bench):
            if isinstance(row, CallRow):
                report.calls.append(row)
            else:
                report.rows.append(row)
        report.left_out.extend(bench.left_out)
    except LeftOut as ex:
        report.left_out.append((benchmark.name, str(ex)))
    shutil.rmtree(bench.folder)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    for name, why in report.left_out:
        print(f"bench: {name} is LEFT OUT: {why}", file=sys.stderr)


def main(names: Sequence[str]) -> int:
    """The exit code: 1 when a limit was not held."""
    arguments = _arguments(names)
    if arguments.list:
        print("\n".join(f"{benchmark.name:16} {benchmark.summary}" for benchmark in BENCHMARKS))
        return 0
    if shutil.disk_usage(arguments.folder).free < _NEEDS_GIB * 1024**3:
        raise SystemExit(f"{arguments.folder} has less than {_NEEDS_GIB} GiB free")
    # whatever ends the bench ends its servers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = [benchmark for benchmark in BENCHMARKS if not arguments.names or benchmark.name in arguments.names]
    os.environ.setdefault("OSD_GB", _OSD_GB)  # what the bench writes has to fit
    folder = Path(tempfile.mkdtemp(prefix="sluice-bench-", dir=arguments.folder))
    os.chmod(folder, 0o755)  # noqa: S103 - root's stack runs as another user
    try:
        rounds, seconds = (2, 1) if arguments.quick else (7, 4)
        report = _measure(chosen, folder, arguments.rounds or rounds, seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name, block in report.blocks().items():
        if block.count("\n") > 1 or name == "machine":
            print(block, end="\n\n")
    if arguments.write or not (arguments.names or arguments.quick):
        report.write(_PAGE, anew=not arguments.names)
    return int(any(holds is False for holds in report.verdicts()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
