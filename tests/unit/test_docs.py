"""The documents name every setting, error code and route; a new one without a line fails here."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from api.core.config import ELSEWHERE, Config, OSSConfig, S3Config, env_name
from api.core.errors import KINDS, Kind
from api.core.settings import declared
from api.http.route import Access, Route
from api.routes import ROUTES

DOCS = Path(__file__).parents[2] / "docs"
# (name, field) of every setting; those of s3 and oss stand for every storage of their kind
FIELDS = [
    *((env_name(field.name), field) for field in declared(Config)),
    *((f"SLUICE_S3_{field.name.upper()}", field) for field in declared(S3Config)),
    *((f"SLUICE_OSS_{field.name.upper()}", field) for field in declared(OSSConfig)),
]
SETTINGS = [name for name, _ in FIELDS]


@pytest.mark.parametrize("name", [*SETTINGS, *sorted(ELSEWHERE)])
def test_a_setting_is_documented(name: str) -> None:
    assert f"| `{name}` |" in (DOCS / "configuration.md").read_text()


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=SETTINGS)
def test_a_settings_documented_default_is_the_one_in_force(name: str, field: dataclasses.Field[object]) -> None:
    (row,) = re.findall(rf"^\| `{name}` \|([^|]*)\|", (DOCS / "configuration.md").read_text(), re.M)
    default = field.metadata["default"]
    assert row.strip() == ("required" if default is None else f"`{default}`" if default else "empty")


def test_no_setting_is_documented_that_is_none() -> None:
    named = set(re.findall(r"`(SLUICE_[A-Z_]+)`", (DOCS / "configuration.md").read_text()))
    secret = {f"{name}_FILE" for name, field in FIELDS if field.metadata["secret"]}
    assert named - {*SETTINGS, *ELSEWHERE} - secret == set()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_an_error_is_documented_with_its_status(kind: Kind) -> None:
    assert f"| {kind.status} | `{kind.code}` |" in (DOCS / "api.md").read_text()


def edge_errors() -> list[tuple[str, str]]:
    """(code, status) of every row of the edge's own table."""
    table = (DOCS.parent / "lua" / "sluice" / "response.lua").read_text()
    return re.findall(r"^    ([A-Z_]+) = \{ (\d+), \"", table, re.M)


@pytest.mark.parametrize(("code", "status"), edge_errors())
def test_an_error_of_the_edge_is_documented_with_its_status(code: str, status: str) -> None:
    assert f"| {status} | `{code}` |" in (DOCS / "api.md").read_text()


def test_api_and_edge_give_one_code_one_status() -> None:
    of_api = {kind.code: kind.status for kind in KINDS}
    shared = {code: int(status) for code, status in edge_errors() if code in of_api}
    assert shared == {code: of_api[code] for code in shared}
    assert len(shared) > 5


@pytest.mark.parametrize("route", [route for route in ROUTES if route.access is not Access.EDGE], ids=lambda r: r.name)
def test_a_call_is_documented(route: Route) -> None:
    assert re.search(rf"^\| `{route.method} {re.escape(route.path)}`", (DOCS / "api.md").read_text(), re.M)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_no_table_is_cut_in_two(page: Path) -> None:
    lines = page.read_text().splitlines()
    heads = [at for at, line in enumerate(lines) if line[:1] == "|" and (at == 0 or lines[at - 1][:1] != "|")]
    assert [lines[at] for at in heads if not re.match(r"\|[ :|-]+$", lines[at + 1])] == []
