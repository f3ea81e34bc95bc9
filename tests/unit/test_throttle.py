"""A limit of bytes per second: exact for any number of threads, and it never delays a stop."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.blobs.throttle import Throttle


class Waits(threading.Event):
    """An event that lets its waiters' time pass immediately, and records the time."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waited.append(timeout)
        return False


@pytest.mark.parametrize("threads", [1, 8])
def test_takers_wait_one_behind_the_other(threads: int) -> None:
    throttle, halt = Throttle(1000, monotonic=lambda: 100.0), Waits()
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(20):
            pool.submit(throttle.take, 500, halt)
    assert sorted(halt.waited) == [pytest.approx(0.5 * n) for n in range(1, 21)]


def test_unused_time_is_not_saved_up() -> None:
    now = 0.0
    throttle, halt = Throttle(1000, monotonic=lambda: now), Waits()
    throttle.take(1000, halt)
    now = 60.0
    throttle.take(1000, halt)
    throttle.take(1000, halt)
    assert halt.waited == [1.0, 1.0, 2.0]


def test_without_a_limit_no_thread_waits() -> None:
    throttle, halt = Throttle(0), Waits()
    throttle.take(10**12, halt)
    assert halt.waited == []
    assert throttle.piece == 512 * 1024


@pytest.mark.parametrize(("rate", "piece"), [(1, 4096), (10**6, 125_000), (10**9, 512 * 1024)])
def test_pieces_are_small_where_the_rate_is(rate: int, piece: int) -> None:
    assert Throttle(rate).piece == piece


def test_an_end_is_not_waited_for() -> None:
    throttle, halt = Throttle(1), threading.Event()
    halt.set()
    throttle.take(10**9, halt)
