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

from loadtest.benchmarks import calls, complete, download_large, download_small, jobs, put_parts, statements
from loadtest.benchmarks.bench import Bench, Benchmark
from loadtest.benchmarks.measure import CallRow, Row
from loadtest.benchmarks.peer import Peer
from loadtest.benchmarks.report import Report
from loadtest.benchmarks.stack import ROOT, Stack

BENCHMARKS = [
    module.BENCHMARK for module in (download_small, download_large, put_parts, complete, jobs, calls, statements)
]
_PAGE = ROOT / "docs" / "performance.md"
_NEEDS_GIB = 20  # an upload of 1,000 parts is refused on less


def _arguments(names: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loadtest/bench", description="Measure Sluice beside its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="measure these only, and write nothing")
    parser.add_argument("--list", action="store_true", help="list the names")
    parser.add_argument("--quick", action="store_true", help="few and short samples, and write nothing")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="a disk with room; /var/tmp")  # noqa: S108
    arguments = parser.parse_args(names)
    if unknown := set(arguments.names) - {benchmark.name for benchmark in BENCHMARKS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}; --list shows what there is")
    return arguments


def _measure(chosen: Sequence[Benchmark], folder: Path, rounds: int, seconds: int) -> Report:
    load = os.getloadavg()[0]
    found: list[Row | CallRow] = []
    with Stack(folder) as stack, Peer(stack, folder) as peer:
        for benchmark in chosen:
            began = time.monotonic()
            print(f"bench: {benchmark.summary} …", end=" ", file=sys.stderr, flush=True)
            own = folder / benchmark.name
            own.mkdir()
            found += benchmark.run(Bench(stack, peer, own, rounds, seconds))
            shutil.rmtree(own)
            print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
        if trouble := stack.edge_log.read_text():
            print(f"bench: the edge had trouble, so judge the figures with care:\n{trouble}", file=sys.stderr)
    rows = [row for row in found if isinstance(row, Row)]
    return Report(rows, [row for row in found if isinstance(row, CallRow)], rounds, seconds, load)


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
    folder = Path(tempfile.mkdtemp(prefix="sluice-bench-", dir=arguments.folder))
    os.chmod(folder, 0o755)  # noqa: S103 - root's stack runs as another user
    try:
        report = _measure(chosen, folder, *((2, 1) if arguments.quick else (7, 4)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name, block in report.blocks().items():
        if block.count("\n") > 1 or name == "machine":
            print(block, end="\n\n")
    if not (arguments.names or arguments.quick):
        report.write(_PAGE)
    return int(any(holds is False for holds in report.verdicts()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
