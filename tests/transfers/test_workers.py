"""Transfers by real workers that are killed, between a real Ceph that is killed and a stand-in for OSS that fails."""

from __future__ import annotations

import random
import time
from functools import partial

import pytest

from api.core import digests
from tests.storage.ceph import Ceph
from tests.transfers.conftest import Yard
from tests.waiting import await_true

MIB = 1024**2


def sizes(count: int) -> list[int]:
    """Mostly small blobs, a few of several parts."""
    chosen = random.Random(count)
    return [chosen.choice([33, 700, 40_000, MIB]) if n % 10 else digests.MIN_PART_SIZE * 2 + n for n in range(count)]


@pytest.mark.timeout(400)
def test_workers_killed_at_random_during_200_transfers_lose_nothing(yard: Yard) -> None:
    stored = yard.store_many("main", sizes(200))
    transfer = yard.start("main", "archive")
    moments = random.Random(7)

    def went_on(before: int) -> bool:
        return yard.done(transfer) > before or yard.state(transfer) == "done"

    for round_ in range(12):
        worker = yard.work()
        before = yard.done(transfer)
        await_true(partial(went_on, before), 60, lambda: yard.log)
        time.sleep(moments.uniform(0, 0.7))  # any moment will do: nothing is waited for
        if yard.state(transfer) == "done":
            assert round_ > 3, "the kills came too late to mean anything"
            break
        yard.kill(worker)
    if not yard.workers:
        yard.work()
    yard.await_done(transfer, 200)
    assert yard.done(transfer) == 200
    for blob in stored:
        assert yard.copy_of(blob, "archive") == blob.data
    await_true(lambda: yard.orphans() == [], 20, lambda: f"{yard.orphans()}")
    await_true(lambda: len(yard.standin.bucket.objects) == 200, 20, "doomed objects stay")


@pytest.mark.timeout(300)
def test_every_way_between_storages(yard: Yard) -> None:
    blobs = yard.store_many("main", [5, MIB, 2 * digests.MIN_PART_SIZE + 3])
    yard.work()
    for source, destination in (("main", "archive"), ("archive", "local"), ("local", "main"), ("main", "local")):
        keep_for = 0 if destination != "archive" else None
        yard.await_done(yard.start(source, destination, keep_for), 60)
        assert [yard.copy_of(blob, destination) for blob in blobs] == [blob.data for blob in blobs]
    held = yard.rows("SELECT storage, COUNT(*) FROM replica GROUP BY storage ORDER BY storage")
    assert held == (("local", 3),)
    await_true(lambda: yard.rows("SELECT 1 FROM doomed") == (), 30)
    assert yard.standin.bucket.objects == {}
    assert yard.orphans() == []


@pytest.mark.timeout(300)
def test_radosgw_killed_in_the_middle_only_delays(yard: Yard, ceph: Ceph) -> None:
    stored = yard.store_many("main", [3 * digests.MIN_PART_SIZE + n for n in range(8)])
    transfer = yard.start("main", "archive")
    yard.work(SLUICE_TRANSFER_RATE=str(40 * MIB))

    def went_on(before: int) -> bool:
        return yard.done(transfer) > before

    try:
        for _ in range(2):
            before = yard.done(transfer)
            await_true(partial(went_on, before), 60, lambda: yard.log)
            ceph.kill("client.rgw")
            time.sleep(1)  # the storage is down for a while
            ceph.run("start")
    finally:
        ceph.run("start")
    yard.await_done(transfer, 150)
    assert [yard.copy_of(blob, "archive") for blob in stored] == [blob.data for blob in stored]
    assert yard.orphans() == []


@pytest.mark.timeout(300)
def test_an_oss_that_fails_drops_and_damages_gets_every_copy_right(yard: Yard) -> None:
    stored = yard.store_many("main", [2 * digests.MIN_PART_SIZE + n for n in range(6)] + [100] * 6)
    for action, kind, times in (
        ("create", "503", 1),
        ("create", "lost", 1),
        ("upload_part", "503", 2),
        ("upload_part", "drop", 2),
        ("upload_part", "lost", 2),
        ("upload_part", "damage", 2),
        ("upload_part", "wrong crc", 1),
        ("complete", "lost", 2),
        ("complete", "503", 1),
        ("complete", "rot", 2),
        ("get", "drop", 2),
        ("get", "flip", 3),
        ("get", "cut", 2),
        ("head", "503", 2),
    ):
        yard.standin.fail(action, kind, times)
    transfer = yard.start("main", "archive")
    yard.work()
    yard.await_done(transfer, 200)
    assert [yard.copy_of(blob, "archive") for blob in stored] == [blob.data for blob in stored]
    assert sum(fault.times for fault in yard.standin.faults) == 0
    await_true(lambda: len(yard.standin.bucket.objects) == 12, 30, "what was damaged stays")
    assert yard.orphans() == []


@pytest.mark.timeout(200)
def test_two_workers_share_and_an_orderly_stop_loses_nothing(yard: Yard) -> None:
    stored = yard.store_many("main", [digests.MIN_PART_SIZE + n for n in range(20)])
    transfer = yard.start("main", "local")
    one, _ = yard.work(), yard.work()
    await_true(lambda: yard.done(transfer) > 2, 60, lambda: yard.log)
    yard.stop(one)
    yard.await_done(transfer, 100)
    assert [yard.copy_of(blob, "local") for blob in stored] == [blob.data for blob in stored]
    assert yard.orphans() == []


@pytest.mark.timeout(200)
def test_an_emptied_queue_loses_no_transfer(yard: Yard) -> None:
    yard.store_many("main", [1000] * 50)
    transfer = yard.start("main", "archive")
    for _ in range(4):
        yard.services.jobs["plan_transfer"].run(transfer, None)  # type: ignore[arg-type]
        yard.queue.flush(5)
        yard.queue.purge()
    yard.work()
    yard.await_done(transfer, 120)
    assert len(yard.standin.bucket.objects) == 50


@pytest.mark.timeout(120)
def test_a_rate_holds_over_the_whole_worker(yard: Yard) -> None:
    stored = yard.store_many("main", [4 * MIB] * 5)
    rate = 4 * MIB
    worker = yard.work(SLUICE_TRANSFER_RATE=str(rate))
    began = time.monotonic()
    yard.await_done(yard.start("main", "local"), 60)
    seconds = time.monotonic() - began
    assert seconds > 20 * MIB / rate * 0.9
    assert yard.copy_of(stored[0], "local") == stored[0].data
    yard.stop(worker)
