"""Health: whoever watches the gateway may ask by GET or HEAD."""

from __future__ import annotations

import pytest

from api.errors import StorageFull
from tests.api.conftest import EDGE_KEY, Gateway


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_needs_no_token(gateway: Gateway, method: str, path: str) -> None:
    assert gateway.http.simulate_request(method, path).status_code == 200


def test_the_edge_is_told_of_a_full_disk(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(size: int, part_count: int) -> None:
        raise StorageFull("no room")

    def told() -> bool:
        answer = gateway.http.simulate_get("/internal/revocations", headers={"X-Sluice-Edge": EDGE_KEY})
        return bool(answer.json["full"])

    assert not told()
    monkeypatch.setattr(gateway.storage, "check_room", full)
    assert told()
