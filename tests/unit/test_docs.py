"""The documents name every setting, error code and route; a new one without a line fails here."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from api import routes
from api.core.config import ELSEWHERE, Config, OSSConfig, S3Config, env_name
from api.core.errors import KINDS, Kind
from api.core.settings import declared
from api.http.base import Resource

DOCS = Path(__file__).parents[2] / "docs"
# (name, field) of every setting; those of s3 and oss stand for every storage of their kind
FIELDS = [
    *((env_name(field.name), field) for field in declared(Config)),
    *((f"SLUICE_S3_{field.name.upper()}", field) for field in declared(S3Config)),
    *((f"SLUICE_OSS_{field.name.upper()}", field) for field in declared(OSSConfig)),
]
SETTINGS = [name for name, _ in FIELDS]
INTERNAL = re.compile("^/internal/")


def all_routes() -> list[tuple[str, Resource]]:
    """The route table; its resources are made over nothing, for nobody calls them."""

    class Nothing:
        public_url = "http://x"

        def __getattr__(self, name: str) -> Nothing:
            return Nothing()

    return routes.routes(Nothing())  # type: ignore[arg-type]


def calls() -> list[tuple[str, str]]:
    """(method, path) of every call that clients may make."""
    return [
        (method.upper(), path)
        for path, resource in all_routes()
        for method in ("get", "post", "patch", "delete", "put")
        if hasattr(resource, f"on_{method}") and not INTERNAL.match(path)
    ]


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


@pytest.mark.parametrize(("method", "path"), calls(), ids=lambda value: value)
def test_a_call_is_documented(method: str, path: str) -> None:
    assert re.search(rf"^\| `{method} {re.escape(path)}`", (DOCS / "api.md").read_text(), re.M)


def test_every_method_of_a_resource_is_counted() -> None:
    """A responder for a method that `calls` does not know would go undocumented."""
    names = {
        name
        for _, resource in all_routes()
        for name, _ in inspect.getmembers(resource, inspect.ismethod)
        if name.startswith("on_")
    }
    assert names <= {"on_get", "on_post", "on_patch", "on_delete", "on_put", "on_head"}
    assert len(calls()) > 15


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_no_table_is_cut_in_two(page: Path) -> None:
    lines = page.read_text().splitlines()
    heads = [at for at, line in enumerate(lines) if line[:1] == "|" and (at == 0 or lines[at - 1][:1] != "|")]
    assert [lines[at] for at in heads if not re.match(r"\|[ :|-]+$", lines[at + 1])] == []
