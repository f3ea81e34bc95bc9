"""The schedule of a seed."""

from __future__ import annotations

import pytest

from tests.chaos.schedule import EVERYTHING, draw, targets

TEN_MINUTES = 600.0


@pytest.mark.parametrize("storage", ["local", "ceph"])
def test_a_seed_says_everything(storage: str) -> None:
    assert draw(7, storage, TEN_MINUTES) == draw(7, storage, TEN_MINUTES)
    assert draw(7, storage, TEN_MINUTES) != draw(8, storage, TEN_MINUTES)


def test_a_shorter_run_is_the_beginning_of_a_longer_one() -> None:
    whole = draw(7, "ceph", TEN_MINUTES)
    assert draw(7, "ceph", 60) == [fault for fault in whole if fault.at < 60]


@pytest.mark.parametrize("storage", ["local", "ceph"])
def test_every_process_is_killed_stopped_and_restarted_sooner_or_later(storage: str) -> None:
    drawn = {(fault.kind, fault.target) for seed in range(20) for fault in draw(seed, storage, TEN_MINUTES)}
    each = {(kind, name) for kind in ("kill", "stop", "restart") for name in targets(storage) if name != EVERYTHING}
    assert drawn == {*each, ("kill", EVERYTHING), ("empty", "redis")}


def test_most_of_what_is_aimed_at_completes_is_aimed_at_radosgw() -> None:
    aimed = [fault.target for fault in draw(7, "ceph", TEN_MINUTES) if fault.delay is not None]
    assert max(set(aimed), key=aimed.count) == "radosgw"


def test_only_named_targets_get_faults() -> None:
    assert {fault.target for fault in draw(7, "ceph", TEN_MINUTES, ("radosgw", "api"))} == {"radosgw", "api"}
