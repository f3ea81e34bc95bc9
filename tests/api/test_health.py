"""Health: whoever watches the gateway may ask by GET or HEAD."""

from __future__ import annotations

import pytest

from tests.api.conftest import Gateway


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_needs_no_token(gateway: Gateway, method: str, path: str) -> None:
    assert gateway.http.simulate_request(method, path).status_code == 200
