"""Conditions for every row of the table of routes."""

from __future__ import annotations

import inspect

import pytest

from api.http.call import Call
from api.http.route import JSON, Access, Route
from api.routes import ROUTES
from tests.api.conftest import EDGE_KEY, Gateway, User, error

NOTHING = "0" * 32
NAMES = [f"{route.method} {route.path}" for route in ROUTES]
each = pytest.mark.parametrize("route", ROUTES, ids=NAMES)
with_body = pytest.mark.parametrize(
    "route", [r for r in ROUTES if r.body], ids=[n for r, n in zip(ROUTES, NAMES, strict=True) if r.body]
)


@pytest.fixture
def admin(gateway: Gateway, user: User) -> User:
    """An administrator, signed in."""
    gateway.db.execute("UPDATE user SET role = 'admin' WHERE id = UNHEX(%s)", (user.id,))
    user.session = gateway.http.simulate_post(
        "/api/v1/sessions", json={"username": user.name, "password": user.password}
    ).json
    return user


def path(route: Route, query: str = "") -> str:
    names = dict.fromkeys(route.path_ids, NOTHING) | {"kind": "user"}
    return route.path.format(**names) + query


def headers(route: Route, user: User) -> dict[str, str]:
    edge = {"X-Sluice-Edge": EDGE_KEY} if route.access is Access.EDGE else {}
    return {"Authorization": f"Bearer {user.session['access_token']}"} | edge


@each
def test_a_parameter_that_it_does_not_take_is_refused(gateway: Gateway, admin: User, route: Route) -> None:
    answer = gateway.http.simulate_request(
        route.method, path(route), params={"foo": "bar"}, headers=headers(route, admin), json={} if route.body else None
    )
    assert "'foo'" in error(answer, 400, "PARAMETER_INVALID")["message"]


@pytest.mark.parametrize("route", [r for r in ROUTES if r.query], ids=lambda r: r.name)
def test_a_parameter_that_is_given_twice_is_refused(gateway: Gateway, admin: User, route: Route) -> None:
    assert route.query is not None
    name = route.query.__struct_fields__[0]
    answer = gateway.http.simulate_request(
        route.method, path(route), params={name: ["1", "1"]}, headers=headers(route, admin)
    )
    assert name in error(answer, 400, "PARAMETER_INVALID")["message"]


@with_body
@pytest.mark.parametrize(
    "said",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp", ""],
)
def test_a_body_that_does_not_say_that_it_is_json_is_refused(
    gateway: Gateway, admin: User, route: Route, said: str
) -> None:
    sent = headers(route, admin) | ({"Content-Type": said} if said else {})
    answer = gateway.http.simulate_request(route.method, path(route), body=b"{}", headers=sent)
    error(answer, 415, "MEDIA_TYPE_UNSUPPORTED")


@with_body
@pytest.mark.parametrize(
    "said", ["application/json", "Application/JSON; charset=utf-8", "application/json;charset=UTF-8"]
)
def test_json_may_say_its_charset(gateway: Gateway, admin: User, route: Route, said: str) -> None:
    sent = headers(route, admin) | {"Content-Type": said}
    answer = gateway.http.simulate_request(route.method, path(route), body=b"[]", headers=sent)
    error(answer, 400, "BODY_INVALID")


@each
def test_a_user_without_the_right_is_refused_before_anything_is_read(
    gateway: Gateway, user: User, route: Route
) -> None:
    answer = gateway.http.simulate_request(route.method, path(route, "?foo=bar"), body=b"x")
    if route.access is Access.PUBLIC:
        assert answer.status_code in (400, 415)
    elif route.access is Access.EDGE:
        error(answer, 404, "NOT_FOUND")
    else:
        error(answer, 401, "TOKEN_MISSING")
    if route.access is Access.ADMIN:
        sent = headers(route, user)
        error(gateway.http.simulate_request(route.method, path(route, "?foo=bar"), headers=sent), 403, "ADMIN_REQUIRED")


@each
def test_a_row_is_whole(route: Route) -> None:
    parameters = list(inspect.signature(route.handler).parameters)
    shapes = [name for name in ("body", "query") if getattr(route, name)]
    assert parameters[: len(shapes) + 1] == ["call", *shapes]
    assert route.hints["call"] is Call
    assert route.answers or {204, 304} & {*route.status} or route.media != JSON or route.access is Access.EDGE
    assert route.summary.endswith(".")
    assert [
        name for name in route.path.split("/") if name.startswith("{") and name[1:-1] not in (*route.path_ids, "kind")
    ] == []


def test_calls_have_names_of_their_own() -> None:
    assert len({route.name for route in ROUTES}) == len(ROUTES) > 30
    assert len(set(NAMES)) == len(NAMES)
