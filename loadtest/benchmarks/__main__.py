"""The command: picks benchmarks, runs them on one stack beside one peer, prints and writes the table."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from loadtest.benchmarks import (
    cached_ceph,
    calls,
    calls_ceph,
    complete,
    crowd,
    download_large,
    download_small,
    instant,
    jobs,
    large_ceph,
    links,
    neighbour,
    others,
    program,
    put_get,
    put_parts,
    small_ceph,
    statements,
    transfer,
)
from loadtest.benchmarks.bench import Bench, Benchmark
from loadtest.benchmarks.measure import LeftOut, failure
from loadtest.benchmarks.peer import Peer
from loadtest.benchmarks.report import Report
from loadtest.benchmarks.stack import ROOT, Stack, scratch

BENCHMARKS = [
    download_small.BENCHMARK,
    download_large.BENCHMARK,
    crowd.BENCHMARK,
    links.BENCHMARK,
    put_parts.BENCHMARK,
    complete.BENCHMARK,
    jobs.BENCHMARK,
    calls.BENCHMARK,
    statements.BENCHMARK,
    others.ACCEL,
    others.TUS_FILE,
    instant.LOCAL,
    neighbour.BENCHMARK,
    calls_ceph.BENCHMARK,
    large_ceph.BENCHMARK,
    small_ceph.BENCHMARK,
    others.GIFTLESS,
    others.TUS_S3,
    transfer.BENCHMARK,
    put_get.LARGE,
    put_get.SMALL,
    instant.CEPH,
    cached_ceph.BENCHMARK,
]
_STORAGES = {"local": (), "ceph": ("--storage", "ceph")}
_OSD_GB = "64"
_PAGE = ROOT / "loadtest" / "results" / "results.md"
_NEEDS_GIB = 20  # with less free space, an upload of 1,000 parts is refused


def _arguments(names: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loadtest/bench", description="Measure Sluice beside its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="measure these only")
    parser.add_argument("--write", action="store_true", help="replace these rows of the page")
    parser.add_argument("--list", action="store_true", help="list the names")
    parser.add_argument("--quick", action="store_true", help="few and short samples, written nowhere")
    parser.add_argument("--rounds", type=int, help="pairs of samples; default 7, or 2 with --quick")
    parser.add_argument("--peers", help="peers from loadtest/peers, for example s5cmd,awscli, or none; default all")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="a folder with space; /var/tmp")  # noqa: S108
    arguments = parser.parse_args(names)
    if unknown := set(arguments.names) - {benchmark.name for benchmark in BENCHMARKS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}; --list shows what there is")
    if arguments.peers and (arguments.write or not arguments.names):
        parser.error("--peers needs names and no --write, because the page shows every peer")
    return arguments


def _measure(chosen: Sequence[Benchmark], folder: Path, report: Report) -> int:
    """Adds every benchmark's rows to the report. Returns the number of benchmarks that failed."""
    failed = 0
    for number, (_, group) in enumerate(groupby(chosen, lambda one: (one.storage, dict(one.settings)))):
        same, below = list(group), folder / str(number)
        below.mkdir(mode=0o755)
        try:
            with (
                Stack(below, *_STORAGES[same[0].storage], settings=same[0].settings) as stack,
                Peer(stack, below) as peer,
            ):
                while same:
                    benchmark = same.pop(0)
                    bench = Bench(stack, peer, below / benchmark.name, report.rounds, report.seconds)
                    failed += not measure_one(benchmark, bench, report)
                if trouble := stack.edge_log.read_text():
                    print(f"bench: the edge had errors, so the figures may be wrong:\n{trouble}", file=sys.stderr)
        except (Exception, SystemExit) as ex:  # the next stack may still start
            for benchmark in same:
                _leave_out(report, benchmark.name, failure(ex))
            failed += len(same) or 1
        shutil.rmtree(below)
    return failed


def measure_one(benchmark: Benchmark, bench: Bench, report: Report) -> bool:
    """Adds a benchmark's rows to the report, and prints what was not measured. Returns False if it failed."""
    began = time.monotonic()
    print(f"bench: {benchmark.name}: {benchmark.summary} …", end=" ", file=sys.stderr, flush=True)
    why, failed = "", False
    try:
        bench.folder.mkdir(mode=0o755)
        for row in benchmark.run(bench):
            report.add(row)
        report.ended.append(benchmark.name)
    except LeftOut as ex:
        why = str(ex)
    except (Exception, SystemExit) as ex:  # the measured rows are kept, and the other benchmarks run
        why, failed = failure(ex), True
    finally:
        shutil.rmtree(bench.folder, ignore_errors=True)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    for name, reason in [*bench.left_out, *([(benchmark.name, why)] if why else [])]:
        _leave_out(report, name, reason)
    return not failed


def _leave_out(report: Report, name: str, why: str) -> None:
    report.left_out.append((name, why))
    print(f"bench: {name} is LEFT OUT: {why}", file=sys.stderr)


def main(names: Sequence[str]) -> int:
    """The exit code: 1 if a limit was exceeded or a benchmark failed, 130 if the run was interrupted."""
    arguments = _arguments(names)
    if arguments.list:
        print("\n".join(f"{benchmark.name:16} {benchmark.summary}" for benchmark in BENCHMARKS))
        return 0
    if shutil.disk_usage(arguments.folder).free < _NEEDS_GIB * 1024**3:
        raise SystemExit(f"{arguments.folder} has less than {_NEEDS_GIB} GiB free")
    if arguments.peers:
        program.only(arguments.peers.split(","))
    chosen = [benchmark for benchmark in BENCHMARKS if not arguments.names or benchmark.name in arguments.names]
    os.environ.setdefault("OSD_GB", _OSD_GB)  # enough for the data that the bench writes
    rounds, seconds = (2, 1) if arguments.quick else (7, 4)
    report = Report([], [], arguments.rounds or rounds, seconds, os.getloadavg()[0])
    whole, code = False, 0
    with scratch("bench", arguments.folder) as folder:
        try:
            code = 1 if _measure(chosen, folder, report) else 0
            whole = not (arguments.names or code)
        except KeyboardInterrupt:
            code = 130
    for name, block in report.blocks().items():
        if block.count("\n") > 1 or name == "machine":
            print(block, end="\n\n")
    if arguments.write or not (arguments.names or arguments.quick):
        report.write(_PAGE, anew=whole)
    return code or int(any(holds is False for holds in report.verdicts()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
