"""The output of `python -m api docs`, and the documents around it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api.__main__ import main
from api.commands import docs
from api.core.config import ELSEWHERE
from api.core.errors import KINDS

DOCS = Path(__file__).parents[2] / "docs"


def test_nothing_differs_from_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs", "--check"]) == 0, capsys.readouterr().out


def test_a_difference_is_named_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, text in docs.wanted(docs.ROOT):
        copy = tmp_path / path.relative_to(docs.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text.replace("PARAMETER_INVALID", "PARAMETER_WRONG"))
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    assert main(["docs", "--check"]) == 1
    assert capsys.readouterr().out == "docs/api.md differs from the code\n"
    assert main(["docs", "--write"]) == 0
    assert main(["docs", "--check"]) == 0


def test_an_unknown_block_is_no_silence() -> None:
    with pytest.raises(ValueError, match="page has not one block errors"):
        docs._filled("a page without a block\n", {"errors": docs.errors_table}, "page")


def test_errors_of_both_are_in_both_tables() -> None:
    lua = docs.errors_lua()
    assert sum(f"    {kind.code} = {{ {kind.status}, " in lua for kind in KINDS) == lua.count(" = {") > 30
    assert "UPLOAD_GONE" not in lua


def test_no_setting_is_documented_that_is_none() -> None:
    named = set(re.findall(r"`(SLUICE_[A-Z_]+)`", (DOCS / "configuration.md").read_text()))
    known = set(docs.settings()) | ELSEWHERE.keys()
    assert named - known - {f"{name}_FILE" for name in known} == set()


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_no_table_is_cut_in_two(page: Path) -> None:
    lines = page.read_text().splitlines()
    heads = [at for at, line in enumerate(lines) if line[:1] == "|" and (at == 0 or lines[at - 1][:1] != "|")]
    assert [lines[at] for at in heads if not re.match(r"\|[ :|-]+$", lines[at + 1])] == []
