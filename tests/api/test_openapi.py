"""The OpenAPI document: its content, and how it is served. tests/e2e/test_openapi.py compares it with responses."""

from __future__ import annotations

import re
from typing import Any

import pytest

from api.http.openapi import BEFORE, describe
from api.http.route import Access, Route
from api.routes import ROUTES
from tests.api.conftest import Gateway

DOCUMENT = describe(ROUTES)
OPEN = [route for route in ROUTES if route.access is not Access.EDGE]


def operation(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][route.path][route.method.lower()]
    return found


def test_it_is_public_and_cached_by_its_tag(gateway: Gateway) -> None:
    answer = gateway.http.simulate_get("/api/v1/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == DOCUMENT
    again = gateway.http.simulate_get("/api/v1/openapi.json", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == answer.headers["etag"]


@pytest.mark.parametrize("route", OPEN, ids=lambda route: route.name)
def test_every_call_that_clients_may_make_is_in_it(route: Route) -> None:
    found = operation(route)
    assert found["operationId"] == route.name
    assert {int(status) for status in found["responses"]} == {
        *route.status,
        *(kind.status for kind in route.kinds),
        *BEFORE,
    }
    assert ("security" in found) == (route.access is not Access.PUBLIC)
    assert ("requestBody" in found) == (route.body is not None)
    for kind in route.kinds:
        assert kind.status in route.status or f"`{kind.code}`" in found["responses"][str(kind.status)]["description"]


def test_nothing_of_the_edges_own_is_in_it() -> None:
    assert [path for path in DOCUMENT["paths"] if path.startswith("/internal")] == []


def test_every_reference_leads_somewhere() -> None:
    text = str(DOCUMENT)
    assert set(re.findall(r"#/components/schemas/(\w+)", text)) <= DOCUMENT["components"]["schemas"].keys()
    names = {each["operationId"] for path in DOCUMENT["paths"].values() for each in path.values()}
    linked = {link["operationId"] for route in ROUTES for link in route.links.values()}
    assert len(linked) > 10
    assert linked <= names


def test_what_a_docstring_says_of_a_member_stands_at_the_member() -> None:
    upload = DOCUMENT["components"]["schemas"]["UploadAnswer"]
    assert upload["description"] == "An upload."
    assert upload["properties"]["missing"]["description"] == "ranges of part numbers that it has not."
