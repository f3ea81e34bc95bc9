"""Ids: UUIDv7, in the order of their creation."""

from __future__ import annotations

import time
import uuid

import pytest

from api.core.models import new_id


def test_ids_sort_by_their_time_also_within_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = 1_790_000_000_999_000_000
    moments = [begin + 250 * step for step in range(8000)]  # two milliseconds, and the step between them
    times = iter(moments)
    monkeypatch.setattr(time, "time_ns", lambda: next(times))
    made = [new_id() for _ in moments]
    assert made == sorted(made)
    assert len({value[8:] for value in made}) == len(made), "the rest is random"
    found = [uuid.UUID(bytes=value) for value in made]
    assert {(value.version, value.variant) for value in found} == {(7, uuid.RFC_4122)}
    assert [value.int >> 80 for value in found] == [moment // 1_000_000 for moment in moments]
