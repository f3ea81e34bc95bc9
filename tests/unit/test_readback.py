"""Reading back: in order, a limited number of parts in parallel, and two reads before a part counts as wrong."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from api.blobs import readback
from api.blobs.readback import ReadBack
from api.core import digests
from api.core.errors import ObjectNotFound, StorageUnavailable

PART = digests.MIN_PART_SIZE
DATA = b"".join(bytes([number]) * PART for number in range(1, 6)) + b"short"
HASHES = [hashlib.sha256(DATA[i : i + PART]).digest() for i in range(0, len(DATA), PART)]


class Object:
    """An object that can be read slowly, wrongly, or not at all."""

    def __init__(self) -> None:
        self.reads: list[int] = []
        self.at_once = self.most_at_once = 0
        self.before: Callable[[int], None] = lambda number: None
        self.wrong: dict[int, int] = {}
        self._lock = threading.Lock()

    def open(self, object_key: str, offset: int, length: int) -> Any:
        number = offset // PART + 1
        with self._lock:
            self.reads.append(number)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.before(number)
            lies = self.wrong.get(number, 0) > 0
            self.wrong[number] = self.wrong.get(number, 0) - 1
            return io.BytesIO(DATA[offset + lies : offset + length + lies])
        finally:
            with self._lock:
                self.at_once -= 1


def back(found: Object, parallel: int = 3, keep: Callable[[], None] = lambda: None, **more: Any) -> ReadBack:
    storage: Any = found
    return ReadBack(storage, "key", len(DATA), b"".join(HASHES), parallel=parallel, keep=keep, **more)


@pytest.mark.parametrize("parallel", [1, 2, 3, 16])
@pytest.mark.parametrize("done", [0, 3, 5])
def test_the_parts_that_are_left_come_in_order(parallel: int, done: int) -> None:
    found = Object()
    parts = list(back(found, parallel).parts(done))
    assert [part.number for part in parts] == list(range(done + 1, 7))
    assert all(part.right for part in parts)
    assert [part.length for part in parts] == [PART] * (5 - done) + [5]
    assert sorted(found.reads) == list(range(done + 1, 7))


@pytest.mark.parametrize("parallel", [1, 3])
def test_no_more_are_read_than_asked_for(parallel: int) -> None:
    found = Object()
    assert [part.number for part in back(found, parallel).parts(1, 4)] == [2, 3, 4, 5]
    assert sorted(found.reads) == [2, 3, 4, 5]
    assert [part.number for part in back(found, parallel).parts(5, 4)] == [6]


def test_a_limited_number_is_read_in_parallel() -> None:
    found, barrier = Object(), threading.Barrier(3)

    def meet(_: int) -> None:
        barrier.wait(10)  # passes when three reads are waiting

    found.before = meet
    assert len(list(back(found, 3).parts(0))) == 6
    assert found.most_at_once == 3


def test_one_reads_ahead_of_what_is_taken_and_no_further() -> None:
    found, third = Object(), threading.Event()
    found.before = lambda number: third.set() if number == 3 else None
    parts = back(found, 1, ahead=3).parts(0)
    assert next(parts).number == 1
    assert third.wait(10), "parts that were taken leave room"
    assert [part.number for part in parts] == [2, 3, 4, 5, 6]
    assert found.most_at_once == 1


def test_bytes_are_handed_out_where_they_are_asked_for() -> None:
    assert b"".join(b"".join(part.data) for part in back(Object(), with_data=True).parts(0)) == DATA
    assert not any(part.data for part in back(Object()).parts(0))


@pytest.mark.parametrize(("lies", "right"), [(1, True), (2, False)])
def test_it_takes_two_readings_to_call_a_part_wrong(lies: int, right: bool) -> None:
    found = Object()
    found.wrong[2] = lies
    parts = {part.number: part.right for part in back(found).parts(0)}
    assert parts == {1: True, 2: right, 3: True, 4: True, 5: True, 6: True}
    assert found.reads.count(2) == 2


def test_an_object_that_is_gone_is_wrong() -> None:
    found = Object()

    def gone(number: int) -> None:
        raise ObjectNotFound("gone")

    found.before = gone
    assert not any(part.right for part in back(found).parts(0))


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_storage_that_fails_says_nothing_about_the_bytes(parallel: int) -> None:
    found = Object()

    def away(number: int) -> None:
        if number == 3:
            raise StorageUnavailable("away")

    found.before = away
    numbers: list[int] = []
    with pytest.raises(StorageUnavailable):
        numbers.extend(part.number for part in back(found, parallel).parts(0))
    assert numbers == [1, 2]


def test_a_storage_that_keeps_us_waiting_costs_no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readback, "KEEP_SECONDS", 0.01)
    found, kept = Object(), threading.Event()

    def wait(_: int) -> None:
        kept.wait(10)  # no read returns before the lease was extended

    found.before = wait
    assert len(list(back(found, 2, kept.set).parts(0))) == 6


def test_an_error_of_keep_alive_ends_the_reading_immediately() -> None:
    class Lost(Exception):
        pass

    def lost() -> None:
        raise Lost

    for parallel in (1, 2):
        found = Object()
        with pytest.raises(Lost):
            list(back(found, parallel, lost).parts(0))
        assert len(found.reads) <= 4


def test_random_bytes_are_read_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(PART + 12345)
    monkeypatch.setitem(globals(), "DATA", data)
    monkeypatch.setitem(
        globals(), "HASHES", [hashlib.sha256(data[i : i + PART]).digest() for i in range(0, len(data), PART)]
    )
    assert all(part.right for part in back(Object()).parts(0))
