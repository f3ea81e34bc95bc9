"""Traffic that edges report: counted once, visible to its account, deleted when it is old."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import falcon.testing
import pytest

from api.core.claims import AccessClaims
from tests.api.conftest import EDGE_KEY, Content, Gateway, User, error, together

EDGE = "ab" * 16
HEADERS = {"X-Sluice-Edge": EDGE_KEY}
NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)


@pytest.fixture
def gateway(build: Callable[..., Gateway]) -> Gateway:
    made = build(tiers="default:daily=1000,monthly=2000; other:rate=1M")
    made.clock.now = NOON
    made.db.execute("DELETE FROM usage_day")
    made.db.execute("DELETE FROM usage_report")
    return made


def report(gateway: Gateway, sequence: int, *rows: list[Any], edge: str = EDGE, **more: Any) -> falcon.testing.Result:
    body = {"edge": edge, "sequence": sequence, "rows": list(rows)} | more
    return gateway.http.simulate_post("/internal/usage", headers=HEADERS, json=body)


def usage(user: User) -> dict[str, Any]:
    answer = user.get("/users/me")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json["usage"]
    return found


def test_an_account_without_traffic_sees_zeros_and_limits(user: User) -> None:
    nothing = {"sent": 0, "received": 0}
    assert usage(user) == {"day": nothing | {"limit": 1000}, "month": nothing | {"limit": 2000}}


def test_reports_add_up_by_day_and_month(gateway: Gateway, user: User) -> None:
    report(gateway, 1, ["user", user.id, "2026-03-31", 100, 5], ["user", user.id, "2026-03-01", 10, 2])
    report(gateway, 2, ["user", user.id, "2026-03-31", 7, 0], ["user", user.id, "2026-02-28", 1000, 1000])
    found = usage(user)
    assert found["day"] == {"sent": 107, "received": 5, "limit": 1000}
    assert found["month"] == {"sent": 117, "received": 7, "limit": 2000}
    gateway.clock.turn(86_400)
    session = {"username": user.name, "password": user.password}
    user.session = gateway.http.simulate_post("/api/v1/sessions", json=session).json
    assert usage(user)["month"]["sent"] == 0, "another month"


def test_a_report_is_booked_once(gateway: Gateway, user: User) -> None:
    row = ["user", user.id, "2026-03-31", 100, 0]
    answers = [report(gateway, 1, row, totals=[["user", user.id]]) for _ in range(3)]
    assert [answer.json for answer in answers] == [{"totals": [["user", user.id, 100, 100]]}] * 3
    report(gateway, 1, row, edge="cd" * 16)
    report(gateway, 2, row)
    assert usage(user)["day"]["sent"] == 300


def test_a_report_sent_twice_concurrently_is_booked_once(gateway: Gateway, user: User) -> None:
    row = ["user", user.id, "2026-03-31", 100, 0]
    calls = [lambda: report(gateway, 1, row).status_code for _ in range(6)]
    assert together(*calls) == [200] * 6
    assert usage(user)["day"]["sent"] == 100


def test_concurrent_reports_of_the_same_accounts_all_count(gateway: Gateway, user: User) -> None:
    others = [f"{n:032x}" for n in range(20)]

    def rows(turn: int) -> list[list[Any]]:
        found = [["user", subject, "2026-03-31", 1, 1] for subject in [*others, user.id]]
        return found[turn:] + found[:turn]

    calls = [lambda n=n: report(gateway, n, *rows(n)).status_code for n in range(8)]
    assert together(*calls) == [200] * 8
    assert usage(user)["day"] == {"sent": 8, "received": 8, "limit": 1000}


def test_many_rows_fit_into_a_report(gateway: Gateway, user: User) -> None:
    rows = [["share", f"{n:032x}", "2026-03-31", 1, 0] for n in range(2500)]
    subjects = [["share", f"{n:032x}"] for n in range(1200)]
    answer = report(gateway, 1, *rows, totals=subjects)
    assert answer.json["totals"] == [[*subject, 1, 1] for subject in subjects]


def test_totals_of_one_subject(gateway: Gateway, user: User) -> None:
    path = f"/internal/usage/user/{user.id}"
    assert gateway.http.simulate_get(path, headers=HEADERS).json == {"day": 0, "month": 0}
    report(gateway, 1, ["user", user.id, "2026-03-31", 3, 0], ["user", user.id, "2026-03-30", 4, 0])
    report(gateway, 2, ["share", user.id, "2026-03-31", 50, 0])
    assert gateway.http.simulate_get(path, headers=HEADERS).json == {"day": 3, "month": 7}
    for wrong in ("planet/" + user.id, "user/x"):
        error(gateway.http.simulate_get(f"/internal/usage/{wrong}", headers=HEADERS), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    "row",
    [
        ["planet", "0" * 32, "2026-03-31", 1, 1],
        ["user", "0" * 31, "2026-03-31", 1, 1],
        ["user", "0" * 32, "31.3.2026", 1, 1],
        ["user", "0" * 32, "2026-03-31", -1, 1],
        ["user", "0" * 32, "2026-03-31", 1.5, 1],
        ["user", "0" * 32, "2026-03-31", 1],
    ],
)
def test_a_malformed_report_is_refused(gateway: Gateway, row: list[Any]) -> None:
    error(report(gateway, 1, row), 400, "BODY_INVALID")
    assert gateway.rows("SELECT 1 FROM usage_report") == ()


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/internal/usage"), ("GET", "/internal/tiers"), ("GET", f"/internal/usage/user/{'0' * 32}")],
)
def test_only_the_edge_asks(gateway: Gateway, user: User, method: str, path: str) -> None:
    error(gateway.http.simulate_request(method, path), 404, "NOT_FOUND")
    bearer = {"Authorization": f"Bearer {user.session['access_token']}"}
    error(gateway.http.simulate_request(method, path, headers=bearer), 404, "NOT_FOUND")


def test_what_is_old_is_dropped(gateway: Gateway, user: User) -> None:
    report(gateway, 1, ["user", user.id, "2025-01-01", 1, 1], ["user", user.id, "2026-03-31", 1, 1])
    assert gateway.services.usage.prune() == 1
    gateway.clock.turn(8 * 86_400)
    assert gateway.services.usage.prune() == 1
    assert gateway.rows("SELECT COUNT(*) FROM usage_day") == ((1,),)


class TestTiers:
    def test_edges_get_them_with_what_strangers_may(self, gateway: Gateway) -> None:
        told = gateway.http.simulate_get("/internal/tiers", headers=HEADERS).json
        assert set(told["tiers"]) == {"default", "other"}
        assert told["tiers"]["other"]["rate"] == 2**20
        assert told["tiers"]["other"]["daily"] == 1000
        assert told["signup"] == [60 / 3600, 60]
        assert told["signin"] == [2, 120]
        assert told["flush"] == 5

    def test_an_account_gets_one_and_its_tokens_name_it(self, gateway: Gateway, user: User) -> None:
        gateway.services.accounts.set_tier(user.name, "other")
        session = {"username": user.name, "password": user.password}
        token = gateway.http.simulate_post("/api/v1/sessions", json=session).json["access_token"]
        claims = gateway.services.tokens.verify(AccessClaims, token, now=NOON.timestamp())
        assert claims.tier == "other"
        assert usage(user)["day"]["limit"] == 1000

    @pytest.mark.parametrize(("link_tier", "wanted"), [("owner", "default"), ("anonymous", "anonymous")])
    def test_the_edge_limits_links_by_the_owners_or_as_anonymous(
        self, build: Callable[..., Gateway], link_tier: str, wanted: str
    ) -> None:
        gateway = build(link_tier=link_tier)
        file = gateway.user().upload(Content(b"x" * 10))
        target = gateway.http.simulate_get(f"/internal/targets/{file['id']}", headers={"X-Sluice-Edge": EDGE_KEY}).json
        assert (target["tier"], target["link_tier"]) == ("default", wanted)
