"""The bench's arithmetic: an error here would only show as a wrong figure."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.core import digests
from loadtest.benchmarks import program, put_get
from loadtest.benchmarks.__main__ import BENCHMARKS, measure_one
from loadtest.benchmarks.bench import Bench, Benchmark
from loadtest.benchmarks.content import PART_SIZE, Content
from loadtest.benchmarks.measure import CallRow, LeftOut, Pairs, Row, Sample, Spread, kept
from loadtest.benchmarks.report import Report
from loadtest.benchmarks.runs import Run

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "loadtest" / "results" / "results.md"
METHOD = ROOT / "loadtest" / "README.md"


def test_content_has_the_digest_of_its_bytes() -> None:
    content = Content(2 * PART_SIZE + 5, 7)
    parts = [b"".join(content.part(number)) for number in range(1, 4)]
    assert [len(part) for part in parts] == [PART_SIZE, PART_SIZE, 5]
    assert list(content.hashes().values()) == [hashlib.sha256(part).hexdigest() for part in parts]
    assert content.digest() == digests.composite(b"".join(hashlib.sha256(part).digest() for part in parts)).hex()


def test_content_reads_across_parts() -> None:
    content = Content(2 * PART_SIZE, 7)
    whole = b"".join(content.part(1)) + b"".join(content.part(2))
    assert content.read(PART_SIZE - 3, 8) == whole[PART_SIZE - 3 : PART_SIZE + 5]


def test_content_of_another_seed_is_other_content() -> None:
    assert Content(PART_SIZE, 1).digest() != Content(PART_SIZE, 2).digest()
    assert Content(1, 1).digest() == Content(1, 1).digest()


def test_pairs_take_turns_and_drop_the_first() -> None:
    order: list[str] = []
    clock = itertools.count(1)

    def measure(name: str) -> Sample:
        order.append(name)
        return Sample(next(clock), 1)

    pairs = Pairs.take(2, lambda: measure("a"), lambda: measure("b"))
    assert "".join(order) == "ab" + "ab" + "ba"
    assert pairs.ratio == Spread.of([3 / 4, 6 / 5])


def test_no_cpu_ratio_without_a_tick() -> None:
    assert Pairs([Sample(1, 0.1)], [Sample(1, 0)]).cpu_ratio is None


@pytest.mark.parametrize(("count", "limit", "holds"), [(6, 6, True), (7, 6, False), (7, None, None)])
def test_a_call_holds_its_limit(count: int, limit: int | None, holds: bool | None) -> None:
    assert CallRow("create", "`POST /uploads`", count, {}, limit).holds is holds


def test_the_page_takes_a_run_and_keeps_its_prose(tmp_path: Path) -> None:
    row = Row("put-1", "PUT; DAV", "MB/s", Spread.of([1, 2, 3]), limit="≥ 0.9", holds=False)
    report = Report([row], [CallRow("create", "`POST /uploads`", 6, {"insert_select": 2}, 6)], 3, 1, 0.5)
    page = tmp_path / "performance.md"
    page.write_text(PAGE.read_text())
    report.write(page)
    once = page.read_text()
    report.write(page)
    assert page.read_text() == once
    assert "| put-1 | PUT; DAV | 2.00 (1.00 to 3.00) MB/s |" in once
    assert "| `POST /uploads` | 6 | 2 INSERT SELECT | ≤ 6 | yes |" in once
    assert [line for line in PAGE.read_text().splitlines() if line.startswith("**")] == [
        line for line in once.splitlines() if line.startswith("**")
    ]
    assert json.loads(page.with_suffix(".json").read_text())["rows"][0]["holds"] is False
    assert report.verdicts() == [False, True]


def test_the_page_explains_every_benchmark() -> None:
    for benchmark in BENCHMARKS:
        assert benchmark.name == "statements" or f"(`{benchmark.name}`)" in METHOD.read_text()


def measured(tmp_path: Path, ex: BaseException) -> tuple[bool, Report]:
    """A benchmark that measures a row and then raises."""

    def run(_: Bench) -> Iterator[Row]:
        yield Row("first", "", "MB/s", Spread.of([1]))
        raise ex

    report = Report([], [], 1, 1, 0)
    bench = Bench(None, None, tmp_path / "own", 1, 1)  # type: ignore[arg-type]  # it needs neither stack nor peer
    return measure_one(Benchmark("some", "", run), bench, report), report


@pytest.mark.parametrize("ex", [SystemExit("a PUT was answered 503"), AssertionError("three"), OSError("no space")])
def test_what_fails_is_said_and_keeps_what_was_measured(tmp_path: Path, ex: BaseException) -> None:
    went_well, report = measured(tmp_path, ex)
    assert (went_well, [row.name for row in report.rows]) == (False, ["first"])
    assert report.left_out == [("some", f"it failed: {type(ex).__name__} {ex}")]
    assert not (tmp_path / "own").exists()


def test_what_cannot_be_had_is_no_failure(tmp_path: Path) -> None:
    went_well, report = measured(tmp_path, LeftOut("there is no node"))
    assert (went_well, report.left_out) == (True, [("some", "there is no node")])


def test_an_interrupted_benchmark_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, KeyboardInterrupt())


def test_a_part_that_fails_becomes_a_line() -> None:
    failures: list[str] = []
    with kept("the sweep", failures):
        raise TimeoutError("900 s")
    assert failures == ["**the sweep is left out**: it failed: TimeoutError 900 s"]


def test_what_is_measured_later_is_no_longer_left_out(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(PAGE.read_text())
    row = Row("put-1", "PUT; DAV", "MB/s", Spread.of([1]))
    earlier = [("tus-s3", "there is no node"), ("put-1", "it failed"), ("jobs", "it failed")]
    Report([], [], 3, 1, 0.5, earlier).write(page)
    Report([row], [], 3, 1, 0.5, ended=["jobs"]).write(page, anew=False)
    assert json.loads(page.with_suffix(".json").read_text())["left_out"] == [["tus-s3", "there is no node"]]
    assert "**tus-s3 is left out**: there is no node" in page.read_text()


def test_each_stack_is_started_once() -> None:
    stacks = [(benchmark.storage, dict(benchmark.settings)) for benchmark in BENCHMARKS]
    starts = [stack for stack, _ in itertools.groupby(stacks)]
    assert [stack for stack in starts if starts.count(stack) > 1] == []


def test_a_peer_that_is_not_wanted_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_wanted", [])
    program.only(["s5cmd"])
    with pytest.raises(LeftOut, match="rclone"):
        program.need("rclone")


def test_a_program_is_compared_by_speed_and_by_memory() -> None:
    def samples(seconds: float, peak: int) -> list[Sample]:
        return [Run(seconds, peak * 1024**2, {"client": 1.0, "osd": 3.0}).sample(2000, 2000)]

    ours = samples(4, 28)
    pairs = {"curl": Pairs(ours, samples(2, 10)), "awscli": Pairs(ours, samples(5, 80))}
    rows = {row.name: row for row in put_get.rows(put_get.small(2000), "get", pairs)}
    assert (rows["get-small-curl"].holds, rows["get-small-awscli"].holds, rows["get-small-memory"].holds) == (
        None,
        True,
        True,
    )
    assert rows["get-small-awscli"].ratio == Spread(1.25, 1.25, 1.25)
    assert rows["get-small-awscli"].cpu_ours == pytest.approx(2)
    assert "sluice: client 0.50, osd 1.50; curl: client 0.50" in rows["get-small-curl"].notes


def _threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def _ended(pid: int) -> bool:
    """A zombie waits for the process that adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_sigterm_ends_what_was_started_and_removes_the_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from loadtest.benchmarks.runs import measured\n"
        "from loadtest.benchmarks.stack import scratch\n"
        "with scratch('test', Path(sys.argv[1])) as folder:\n"
        "    measured(['sh', '-c', f'sleep 1000 & echo $! > {folder}/new; mv {folder}/new {folder}/pid; wait'],\n"
        "             {}, folder / 'log', {})\n"
    )
    with subprocess.Popen([sys.executable, "-B", "-c", code, tmp_path], cwd=ROOT) as process:
        # the second thread watches the program
        while not (found := list(tmp_path.glob("sluice-test-*/pid"))) or _threads(process.pid) < 2:
            assert process.poll() is None
            time.sleep(0.01)  # a poll: the program sends no event
        pid = int(found[0].read_text())
        process.terminate()
        assert process.wait(20) == 130
    assert _ended(pid)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name_is_refused() -> None:
    command = [sys.executable, "-B", "-m", "loadtest.benchmarks", "nothing"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, "there is no nothing" in result.stderr) == (2, True)
