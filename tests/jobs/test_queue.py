"""The queue on real servers: enqueued messages arrive, and a queue that is down delays nothing."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator

import pytest

from api.core.cache import Cache
from api.jobs.queue import NAMES, Consumer, Queue, name_of
from scripts.stack.services import Redis, server_folder, started

SUBJECT = bytes(range(16))


@pytest.fixture
def url(queue_url: str) -> Iterator[str]:
    """An empty queue."""
    Queue(queue_url).purge()
    yield queue_url
    Queue(queue_url).purge()


@pytest.fixture
def delivered(url: str) -> Iterator[queue.Queue[tuple[str, bytes]]]:
    """The messages that a consumer of every queue got."""
    found: queue.Queue[tuple[str, bytes]] = queue.Queue()
    consumer = Consumer(url, NAMES, 2, 0.1, lambda kind, subject: found.put((kind, subject)))
    consumer.start()
    yield found
    consumer.stop(10)


def test_every_kind_has_a_queue() -> None:
    assert [name_of(kind) for kind in ("finalize", "verify", "transfer")] == ["finalize", "verify", "background"]


def test_what_is_enqueued_is_delivered(url: str, delivered: queue.Queue[tuple[str, bytes]]) -> None:
    sender = Queue(url)
    for kind in ("finalize", "verify", "transfer"):
        sender.enqueue(kind, [SUBJECT])
    found = {delivered.get(timeout=10) for _ in range(3)}
    assert found == {("finalize", SUBJECT), ("verify", SUBJECT), ("transfer", SUBJECT)}
    assert sender.depths() == {"finalize": 0, "verify": 0, "background": 0}


class FullRedis(Redis):
    """A Redis without free memory that evicts nothing."""

    def command(self) -> list[str]:
        changed = {"--maxmemory": "100kb", "--maxmemory-policy": "noeviction"}
        command = list(super().command())
        return [changed.get(before, word) for before, word in zip(["", *command], command, strict=False)]


def test_a_redis_without_memory_is_named_and_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with server_folder() as folder, started(FullRedis(folder)) as redis:
        assert Cache(redis.url).check() == "takes no writes: OutOfMemoryError"
        consumer = Consumer(redis.url, NAMES, 2, 0.1, lambda kind, subject: None)
        consumer.start()
        sender = Queue(redis.url)
        assert [sender.depths() for _ in range(3)] == [None] * 3, "workers use the rows without it"
        consumer.stop(10)
    assert [(record.levelname, record.message) for record in caplog.records] == [("WARNING", "the queue is down")]


def test_messages_without_a_consumer_are_counted_and_can_be_purged(url: str) -> None:
    sender = Queue(url)
    sender.enqueue("verify", [bytes([n]) * 16 for n in range(5)])
    assert sender.flush(10)
    assert sender.depths() == {"finalize": 0, "verify": 5, "background": 0}
    sender.purge()
    assert sender.depths() == {"finalize": 0, "verify": 0, "background": 0}


@pytest.mark.parametrize("away", ["unix:///nowhere/redis.sock", "redis://127.0.0.1:1/0", "amqp://127.0.0.1:1/"])
def test_a_queue_that_is_away_costs_the_caller_nothing(away: str) -> None:
    sender = Queue(away)
    began = time.thread_time()
    sender.enqueue("verify", [SUBJECT] * 1000)
    assert time.thread_time() - began < 0.1
    assert sender.flush(30)
    assert sender.depths() is None
