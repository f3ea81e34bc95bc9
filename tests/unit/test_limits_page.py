"""docs/limits.md: each row names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    line
    for line in (ROOT / "docs" / "limits.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| what |", "| ---"))
]


def test_there_are_rows() -> None:
    assert len(ROWS) > 25


@pytest.mark.parametrize("row", ROWS, ids=[row.split("|")[1].strip() for row in ROWS])
def test_a_row_names_its_bound_and_a_test(row: str) -> None:
    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    assert len(cells) == 6, row
    assert any(cell != "–" for cell in cells[1:4]), "a row without a bound"
    named = re.fullmatch(r"`(tests/[\w/]+\.py)::(\w+)`", cells[5].strip("| "))
    assert named, cells[5]
    path = ROOT / named[1]
    assert path.exists(), named[1]
    assert re.search(rf"^ *def {named[2]}\(", path.read_text(), re.M), f"{named[2]} is not in {named[1]}"
