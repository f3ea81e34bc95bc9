"""Real worker processes, killed, stopped and cut off: every blob ends verified, whatever was lost meanwhile."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from api.jobs.queue import Queue
from scripts.stack.services import MariaDB, Redis, server_folder
from tests.api.conftest import fresh_database
from tests.conftest import Servers
from tests.jobs.rabbitmq import RabbitMQ
from tests.jobs.workshop import Workshop
from tests.servers import MortalServer

GIB = 1024**3
Make = Callable[[str], Workshop]


@pytest.fixture
def make(servers: Servers, tmp_path: Path) -> Iterator[Make]:
    """Makes a workshop with a queue."""
    made: list[Workshop] = []

    def build(queue_url: str) -> Workshop:
        made.append(Workshop(servers, fresh_database(servers), queue_url, tmp_path))
        return made[-1]

    yield build
    for workshop in made:
        workshop.close()


@pytest.fixture
def workshop(make: Make, queue_url: str) -> Workshop:
    """A workshop over each kind of queue."""
    Queue(queue_url).purge()
    return make(queue_url)


def all_verified(workshop: Workshop, count: int, corrupt: int = 0) -> None:
    states = dict(workshop.query("SELECT state, COUNT(*) FROM `blob` GROUP BY state"))
    assert states == {"verified": count - corrupt} | ({"corrupt": corrupt} if corrupt else {})
    assert workshop.count("blob_digest") == count - corrupt
    assert workshop.count("`blob` WHERE state = 'verified' AND sha256 IS NULL") == 0
    assert workshop.count("job") == 0


def test_every_blob_is_verified_and_wrong_ones_are_corrupt(workshop: Workshop) -> None:
    workshop.blobs(100, wrong=3)
    worker = workshop.work()
    workshop.await_left(0)
    all_verified(workshop, 100, corrupt=3)
    assert worker.end() < 10
    runs = [line for line in map(msgspec.json.decode, workshop.lines()) if line["message"] == "job"]
    assert {line["outcome"] for line in runs} == {"done"}
    assert len({line["subject"] for line in runs}) == len(runs) == 100
    assert all(line["bytes"] == 4992 and line["kind"] == "verify" for line in runs if line["bytes"])


def test_a_queue_that_is_emptied_in_the_middle_loses_nothing(workshop: Workshop) -> None:
    workshop.blobs(600)
    workshop.work()
    workshop.await_left(550)
    Queue(workshop.environment["SLUICE_QUEUE_URL"]).purge()
    assert workshop.count("job") > 0
    workshop.pass_time()
    workshop.await_left(0)
    all_verified(workshop, 600)


def test_workers_killed_at_random_moments_lose_nothing(workshop: Workshop) -> None:
    workshop.blobs(400, wrong=5)
    chance = random.Random(4)
    killed = 0
    while workshop.count("job"):
        workers = [workshop.work() for _ in range(2)]
        left = workshop.count("job")
        workshop.await_left(left - chance.randrange(1, 80) if left > 80 else 0)
        time.sleep(chance.uniform(0, 0.02))  # any moment will do: nothing is waited for
        for worker in workers:
            worker.kill()
        killed += 1
        workshop.pass_time()
    assert killed >= 4
    all_verified(workshop, 400, corrupt=5)


def test_two_workers_share_the_work(workshop: Workshop) -> None:
    workshop.blobs(300)
    workers = [workshop.work() for _ in range(2)]
    workshop.await_left(0)
    all_verified(workshop, 300)
    for worker in workers:
        assert worker.end() < 10


class TestALargeBlob:
    """256 parts of 8 MiB: several segments."""

    def test_a_worker_told_to_stop_saves_its_place_and_one_that_is_killed_loses_a_part_at_most(
        self, workshop: Workshop
    ) -> None:
        blob = workshop.large_blob(2 * GIB)
        worker = workshop.work()
        workshop.await_place(blob, 10)
        assert worker.end() < 25
        ((place, owner),) = workshop.query("SELECT place, lease_owner FROM job")
        assert 10 <= place < 256
        assert owner is None
        worker = workshop.work()
        saved = workshop.await_place(blob, place + 20)
        worker.kill()
        workshop.pass_time()
        worker = workshop.work()
        workshop.await_left(0)
        assert worker.most_memory() < 200
        sha256 = hashlib.sha256()
        for _ in range(256):
            sha256.update(bytes(8 * 1024**2))
        assert workshop.query("SELECT state, sha256 FROM `blob`") == [("verified", sha256.digest())]
        runs = [line for line in map(msgspec.json.decode, workshop.lines()) if line["message"] == "job"]
        assert all(line["bytes"] <= GIB for line in runs)
        # the bytes after the killed worker's last saved position are read again, and no others
        after = [line for line in runs if line["place"] > saved or line["outcome"] == "done"]
        assert sum(line["bytes"] for line in after) <= 2 * GIB - saved * 8 * 1024**2


class TestOutages:
    @pytest.mark.parametrize("service", [Redis, RabbitMQ])
    def test_a_queue_that_dies_in_the_middle_and_comes_back_loses_nothing(
        self, make: Make, service: type[Redis] | type[RabbitMQ]
    ) -> None:
        with server_folder() as folder:
            server = MortalServer(service(folder))
            try:
                workshop = make(server.service.url)  # type: ignore[attr-defined]
                workshop.blobs(600)
                worker = workshop.work()
                workshop.await_left(570)
                server.kill()
                left = workshop.count("job")
                assert left
                workshop.pass_time()
                workshop.await_left(max(left - 100, 0))  # without a queue
                server.start()
                workshop.pass_time()
                workshop.await_left(0)
                all_verified(workshop, 600)
                assert worker.end() < 30
            finally:
                server.kill()

    def test_a_database_that_dies_in_the_middle_and_comes_back_loses_nothing(
        self, servers: Servers, tmp_path: Path, queue_url: str
    ) -> None:
        Queue(queue_url).purge()
        with server_folder() as folder:
            server = MortalServer(MariaDB(folder, databases="sluice%"))
            try:
                own = Servers(folder, MariaDB(folder).url, servers.redis_url)
                workshop = Workshop(own, fresh_database(own), queue_url, tmp_path)
                workshop.blobs(400)
                workshop.work()
                workshop.await_left(370)
                server.kill()
                time.sleep(1)  # the database is away for a while
                server.start()
                workshop.pass_time()
                workshop.await_left(0, 90)
                all_verified(workshop, 400)
                workshop.close()
            finally:
                server.kill()
