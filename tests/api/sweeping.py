"""Common to the tests of the sweep: a gateway that has been swept for long, and objects without a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from api.core.models import new_id
from api.db import deployment
from tests.api.conftest import Gateway, fresh_database
from tests.conftest import Servers

HOUR, DAY = 3600, 86_400


@pytest.fixture(name="gateway")
def swept_gateway(build: Callable[..., Gateway], servers: Servers) -> Gateway:
    """The API with a separate database that has been swept for longer than uploads' rows are kept."""
    made = build(database_url=fresh_database(servers))
    made.clock.turn(8 * DAY)  # keys that are made from here on say that they are eight days old
    made.services.sweep.run()
    return made


def keys(gateway: Gateway, count: int) -> list[str]:
    """Objects without a row."""
    prefix, made = deployment.identity(gateway.db), []
    for _ in range(count):
        name = new_id().hex()
        made.append(f"{prefix}/{name[-2:]}/{name}")
    gateway.storage.objects |= dict.fromkeys(made, b"x")
    return made


def sweep(gateway: Gateway, accept: bool = False) -> dict[str, int]:
    found = gateway.services.sweep.by_hand(lambda kind, text: None, accept=accept)
    assert found is not None
    return dict(found)


def doubts(gateway: Gateway) -> set[str]:
    return {doubt.kind for doubt in gateway.services.sweep.doubts()}


def left(gateway: Gateway, wanted: Sequence[str]) -> int:
    return len(set(wanted) & set(gateway.storage.objects))
