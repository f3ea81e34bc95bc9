"""A Chinese page has the code, the headings, the table rows and the figures of its English page.

Tables and shapes that `python -m api docs --write` makes stand in the English page only.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {
    ROOT / "README.zh-CN.md": ROOT / "README.md",
    **{page: ROOT / "docs" / page.name for page in sorted((ROOT / "docs" / "zh-CN").glob("*.md"))},
}
MADE = re.compile(r"^<!-- made by .*?^<!-- end of \w+ -->\n", re.M | re.S)
BLOCK = re.compile(r"^```[^\n]*\n.*?^```\n|(?:^ {4}[^\n]*\n)+", re.M | re.S)
FIGURE = re.compile(r"(?<![A-Za-z])\d(?:[\d.,]*\d)?")

pages = pytest.mark.parametrize(
    ("chinese", "english"), PAGES.items(), ids=[str(page.relative_to(ROOT)) for page in PAGES]
)


def written(page: Path) -> str:
    return MADE.sub("", page.read_text())


def prose(page: Path) -> str:
    return BLOCK.sub("", written(page))


def codes(text: str) -> list[str]:
    """The text of each code span, sorted; a line break in one is a space."""
    return sorted(" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text))


def rows(page: Path) -> list[tuple[list[str], list[str]]]:
    """(codes, figures) of each row of each table."""
    return [(codes(row), sorted(FIGURE.findall(row))) for row in re.findall(r"^\|.*", prose(page), re.M)]


def linked(page: Path) -> set[Path]:
    return {(page.parent / address).resolve() for address in re.findall(r"\]\(([^)#:]+)", prose(page))}


def test_the_pages_that_are_promised_exist() -> None:
    assert {english.relative_to(ROOT).as_posix() for english in PAGES.values()} >= {
        "README.md",
        "docs/api.md",
        "docs/client.md",
        "docs/glossary.md",
    }
    assert ROOT / "README.zh-CN.md" in linked(ROOT / "README.md")


@pages
def test_code_blocks_are_the_same(chinese: Path, english: Path) -> None:
    assert BLOCK.findall(written(chinese)) == BLOCK.findall(written(english))


@pages
def test_headings_have_the_same_levels(chinese: Path, english: Path) -> None:
    ours, theirs = (re.findall(r"^#+(?= )", prose(page), re.M) for page in (chinese, english))
    assert ours == theirs


@pages
def test_the_prose_names_the_same_code(chinese: Path, english: Path) -> None:
    assert set(codes(prose(chinese))) == set(codes(prose(english)))


@pages
def test_rows_have_the_same_codes_and_figures(chinese: Path, english: Path) -> None:
    assert rows(chinese) == rows(english)


@pages
def test_no_figure_is_lost(chinese: Path, english: Path) -> None:
    assert set(FIGURE.findall(prose(english))) - set(FIGURE.findall(prose(chinese))) == set()


@pages
def test_links_stay_in_chinese(chinese: Path, english: Path) -> None:
    """A page links to the English page of the same name, and to no other English page that exists in Chinese."""
    assert linked(chinese) & set(PAGES.values()) == {english}


def test_both_glossaries_pair_the_same_words() -> None:
    pairs = [
        [tuple(row.split("|")[1:3]) for row in re.findall(r"^\|.*", written(page), re.M)[2:]]
        for page in (ROOT / "docs" / "glossary.md", ROOT / "docs" / "zh-CN" / "glossary.md")
    ]
    assert len(pairs[0]) > 30
    assert [(word, ours) for ours, word in pairs[1]] == pairs[0]
