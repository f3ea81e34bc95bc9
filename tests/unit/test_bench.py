"""The bench's own arithmetic: what is wrong here would show as a wrong figure, and nowhere else."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from api import digests
from loadtest.benchmarks.__main__ import BENCHMARKS
from loadtest.benchmarks.content import PART_SIZE, Content
from loadtest.benchmarks.measure import CallRow, Pairs, Row, Sample, Spread
from loadtest.benchmarks.report import Report

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


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
        assert benchmark.name == "statements" or f"(`{benchmark.name}`)" in PAGE.read_text()


def test_an_unknown_name_is_refused() -> None:
    command = [sys.executable, "-B", "-m", "loadtest.benchmarks", "nothing"]
    result = subprocess.run(command, cwd=PAGE.parents[1], capture_output=True, text=True, check=False)
    assert (result.returncode, "there is no nothing" in result.stderr) == (2, True)
