"""Health: every monitor may call it by GET or HEAD."""

from __future__ import annotations

import pytest

from api.blobs import replica_rows
from api.core.errors import StorageUnavailable
from api.operations import draining, health
from tests.api.conftest import EDGE_KEY, Gateway


@pytest.fixture(autouse=True)
def nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests lose content in this database."""
    monkeypatch.setattr(replica_rows, "count_missing", lambda db, most: 0)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_needs_no_token(gateway: Gateway, method: str, path: str) -> None:
    assert gateway.http.simulate_request(method, path).status_code == 200


def test_the_edge_gets_the_free_space_of_the_disk(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> int | None:
        answer = gateway.http.simulate_get("/internal/revocations", headers={"X-Sluice-Edge": EDGE_KEY})
        room: int | None = answer.json["room"]
        return room

    assert told() is None, "nobody knows"
    assert gateway.http.simulate_get("/readyz").json["status"] == "ok"
    monkeypatch.setattr(gateway.storage, "room", lambda: 5)
    assert told() == 5
    assert gateway.http.simulate_get("/readyz").json["status"] == "ok"
    monkeypatch.setattr(gateway.storage, "room", lambda: -1)
    assert told() == -1
    answer = gateway.http.simulate_get("/readyz")
    assert (answer.status_code, answer.json["status"]) == (200, "full"), "downloads go on"


def test_a_storage_that_takes_no_uploads_may_be_away(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise StorageUnavailable("nobody answers")

    second = type(gateway.storage).__new__(type(gateway.storage))
    second.__dict__.update(gateway.storage.__dict__)
    stores = gateway.services.health._stores
    monkeypatch.setitem(stores._storages, "second", second)
    monkeypatch.setattr(health, "HEALTH_CACHE_SECONDS", 0.0)
    monkeypatch.setattr(second, "check", away)
    answer = gateway.http.simulate_get("/readyz")
    assert (answer.status_code, answer.json["status"]) == (200, "degraded")
    assert answer.json["checks"]["storage:second"] == "nobody answers"
    monkeypatch.setitem(stores._tiers, "pro", "second")
    assert gateway.http.simulate_get("/readyz").status_code == 503, "uploads of some users do not work"


def test_one_line_says_that_a_dependency_fell_ill_and_one_that_it_is_well(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away() -> None:
        raise StorageUnavailable("the parts folder cannot be written")

    monkeypatch.setattr(health, "HEALTH_CACHE_SECONDS", 0.0)
    with monkeypatch.context() as broken:
        broken.setattr(gateway.storage, "check", away)
        assert [gateway.http.simulate_get("/readyz").status_code for _ in range(3)] == [503, 503, 503]
    assert [gateway.http.simulate_get("/readyz").status_code for _ in range(3)] == [200, 200, 200]
    said = [(record.message, record.dependency) for record in caplog.records if hasattr(record, "dependency")]
    assert said == [(f"a dependency is {state}", "storage:local") for state in ("not well", "well again")]


def test_a_draining_api_says_so(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "begun", lambda: True)
    answer = gateway.http.simulate_get("/healthz")
    assert (answer.status_code, answer.json["status"]) == (503, "stopping")
