"""The job queue, over Redis or RabbitMQ. The only module that imports dramatiq.

A message only names a row to look at, as (kind, subject). If messages are lost, the feeder finds the rows some seconds
later; a duplicate costs one look-up. So `Queue.enqueue` never blocks and never fails: a background thread sends the
messages. If it cannot send one, it drops it and logs one warning.

There are three queues, so that jobs that a client waits for never wait for a large migration: ``finalize``,
``verify`` and ``background``. The retries, time limits and delays of dramatiq are not used; the rows hold these.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from api.core import cache

Deliver = Callable[[str, bytes], None]
"""Called with (kind, subject). The message is acknowledged when it returns. It must not raise."""

NAMES: Final = ("finalize", "verify", "background")
_PREFIX: Final = "sluice."
MOST_PENDING_MESSAGES: Final = 10_000
MOST_PER_CALL: Final = 1000
RETRY_SECONDS: Final = 1.0
"""Seconds until a queue that failed is tried again."""
WARNING_INTERVAL_SECONDS: Final = 60.0
"""Seconds between two warnings that the queue is down."""
IDLE_SECONDS: Final = 5.0
"""Seconds until an idle connection is closed, so that no thread has to send heartbeats for it."""
HEARTBEAT_SECONDS: Final = 30

_log = logging.getLogger(__name__)


def name_of(kind: str) -> str:
    """The queue for a kind of job. ``mend`` is not in the background: a download may wait for the blob."""
    return "verify" if kind == "mend" else kind if kind in NAMES else "background"


def _broker(url: str) -> Any:
    """A broker without dramatiq's middleware. Imported here, since importing dramatiq takes 0.1 s."""
    for name in ("dramatiq", "pika"):
        # this module logs failures itself, once; a consumer would log a traceback for each failed fetch
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if urlsplit(url).scheme in ("amqp", "amqps"):
        import pika
        from dramatiq.brokers.rabbitmq import RabbitmqBroker

        parameters = pika.URLParameters(url)
        parameters.heartbeat = HEARTBEAT_SECONDS
        parameters.socket_timeout = parameters.stack_timeout = 3.0
        parameters.blocked_connection_timeout = 3.0
        parameters.connection_attempts = 1
        broker = RabbitmqBroker(confirm_delivery=True, middleware=[])
        broker.parameters = parameters
        return broker
    from dramatiq.brokers.redis import RedisBroker

    # keys sluice:queue:…; if a worker is silent for a minute, its fetched messages return to the queue
    redis_broker: Any = RedisBroker  # it has no type hints
    return redis_broker(client=cache.connect(url, 2.0), middleware=[], namespace="sluice:queue")


class Queue:
    """The sending side; see the module's docstring.

    It imports, connects and starts nothing before the first message.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._pending: queue.Queue[tuple[str, bytes]] = queue.Queue(MOST_PENDING_MESSAGES)
        self._lock = threading.Lock()
        self._sender: threading.Thread | None = None
        self._pid = 0
        self._asking: Any = None
        self._said_at = float("-inf")

    def enqueue(self, kind: str, subjects: Sequence[bytes]) -> None:
        """Tells workers to look at these rows. Never blocks or fails. Beyond 1,000, the feeder sends the rest."""
        try:
            for subject in subjects[:MOST_PER_CALL]:
                self._pending.put_nowait((kind, subject))
        except queue.Full:
            _log.warning("the queue is slow; rows are left to the feeder", extra={"kind": kind})
        self._start()

    def _start(self) -> None:
        with self._lock:
            # a forked process has the thread's object, but not the thread
            if self._sender is None or self._pid != os.getpid() or not self._sender.is_alive():
                self._pid = os.getpid()
                self._sender = threading.Thread(target=self._send_all, name="enqueue", daemon=True)
                self._sender.start()

    def flush(self, timeout: float) -> bool:
        """Waits until all messages were sent or dropped; False after ``timeout`` seconds. For commands."""
        ends = time.monotonic() + timeout
        with self._pending.all_tasks_done:
            while self._pending.unfinished_tasks:
                if (left := ends - time.monotonic()) <= 0:
                    return False
                self._pending.all_tasks_done.wait(left)
        return True

    def _send_all(self) -> None:
        broker: Any = None
        silent_until = 0.0
        while True:
            try:
                kind, subject = self._pending.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                _close(broker)
                broker = None
                continue
            try:
                if time.monotonic() >= silent_until:
                    broker = broker or _broker(self._url)
                    broker.enqueue(_message(kind, subject))
            except Exception as ex:
                # a client library may raise anything; the feeder will find the row
                silent_until = time.monotonic() + RETRY_SECONDS
                _log.warning("the queue is down", extra={"error": type(ex).__name__})
                _close(broker)
                broker = None
            finally:
                self._pending.task_done()

    def depths(self) -> Mapping[str, int] | None:
        """Number of messages in each queue; None if the queue cannot be read or written. Not thread-safe."""
        try:
            self._asking = self._asking or _broker(self._url)
            if hasattr(self._asking, "channel"):
                count = _rabbitmq_depth
            else:
                count = _redis_depth
                self._asking.client.set(
                    "sluice:queue:check", 1, ex=60
                )  # a Redis without free memory can be read, but not written
            found = {name: count(self._asking, _PREFIX + name) for name in NAMES}
        except Exception as ex:
            if time.monotonic() - self._said_at > WARNING_INTERVAL_SECONDS:
                self._said_at = time.monotonic()
                _log.warning("the queue is down", extra={"error": type(ex).__name__})
            _close(self._asking)
            self._asking = None
            return None
        self._said_at = float("-inf")
        return found

    def purge(self) -> None:
        """Deletes all messages. The rows keep the jobs."""
        broker = _broker(self._url)
        try:
            for name in NAMES:
                broker.flush(_PREFIX + name)
        finally:
            _close(broker)


def _message(kind: str, subject: bytes) -> Any:
    from dramatiq import Message

    name = _PREFIX + name_of(kind)
    return Message(queue_name=name, actor_name=name, args=(kind, subject.hex()), kwargs={}, options={})


def _redis_depth(broker: Any, name: str) -> int:
    return int(broker.client.llen(f"{broker.namespace}:{name}"))


def _rabbitmq_depth(broker: Any, name: str) -> int:
    broker.declare_queue(name, ensure=True)
    return int(broker.get_queue_message_counts(name)[0])


def _close(broker: Any) -> None:
    if broker is None:
        return
    try:
        broker.close()
        if client := getattr(broker, "client", None):
            client.close()
    except Exception as ex:
        _log.debug("closing the queue's connection failed", extra={"error": type(ex).__name__})


class Consumer:
    """The receiving side: threads that take messages and acknowledge them after the work.

    Args:
        names: queues in order of priority.
        threads: jobs that run concurrently.
        wake: most seconds between two looks at an idle queue.
    """

    def __init__(self, url: str, names: Sequence[str], threads: int, wake: float, deliver: Deliver) -> None:
        self._url = url
        self._names = names
        self._threads = threads
        self._wake = wake
        self._deliver = deliver
        self._worker: Any = None

    def start(self) -> None:
        """Starts to take messages. If the queue is down, it is tried again every few seconds."""
        import dramatiq
        from dramatiq.worker import Worker

        class WithoutDelays(Worker):
            """No message is ever delayed in the queue, so the delay queues need no polling."""

            def _add_consumer(self, queue_name: str, *, delay: bool = False) -> None:
                if not delay:
                    super()._add_consumer(queue_name)

        broker = _broker(self._url)

        def run(kind: str, subject: str) -> None:
            self._deliver(kind, bytes.fromhex(subject))

        for priority, name in enumerate(self._names):
            declare = dramatiq.actor(
                actor_name=_PREFIX + name, queue_name=_PREFIX + name, priority=priority, broker=broker
            )
            declare(run)
        self._worker = WithoutDelays(broker, worker_threads=self._threads, worker_timeout=int(self._wake * 1000))
        # more prefetched messages could wait behind a long job while another worker is idle
        self._worker.queue_prefetch = self._threads
        self._worker.start()

    def stop(self, seconds: float) -> None:
        """Waits for running jobs and returns unstarted messages. Takes at most twice ``seconds``."""
        if self._worker is not None:
            self._worker.stop(timeout=int(seconds * 1000))
            _close(self._worker.broker)
