"""The queue, over Redis or RabbitMQ: the only importer of dramatiq.

It carries hints, not work: (kind, subject) of a row to look at. Losing all of them costs seconds, for the feeder finds
the rows; getting one twice costs a look. So `Queue.enqueue` never waits and never fails: a thread of its own sends,
and what cannot be sent is dropped with one line in the log.

There are three queues, so that who waits for an answer never stands behind a migration of everything: ``finalize``,
``verify`` and ``background``. dramatiq's own retries, time limits and delays are not used; rows do all that.
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
"""Takes (kind, subject); returns when the message may be forgotten, and raises nothing."""

NAMES: Final = ("finalize", "verify", "background")
_PREFIX: Final = "sluice."
_MOST_PENDING: Final = 10_000
_MOST_AT_ONCE: Final = 1000
_SILENCE: Final = 1.0
"""Seconds in which a queue that just failed is not tried again."""
_SAY_EVERY: Final = 60.0
"""Seconds between two warnings that the queue cannot be used."""
_IDLE: Final = 5.0
"""Seconds after which a connection that nobody uses is closed: no heartbeat has to be kept up meanwhile."""
_HEARTBEAT: Final = 30

_log = logging.getLogger(__name__)


def name_of(kind: str) -> str:
    """The queue that carries a kind of job; downloads may be waiting for what ``mend`` heals."""
    return "verify" if kind == "mend" else kind if kind in NAMES else "background"


def _broker(url: str) -> Any:
    """A connection to be, without any of dramatiq's middleware. dramatiq takes 0.1 s to import: only users wait."""
    for name in ("dramatiq", "pika"):
        # what matters of theirs is said here, once; a consumer that fails to fetch would write a traceback each time
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if urlsplit(url).scheme in ("amqp", "amqps"):
        import pika
        from dramatiq.brokers.rabbitmq import RabbitmqBroker

        parameters = pika.URLParameters(url)
        parameters.heartbeat = _HEARTBEAT
        parameters.socket_timeout = parameters.stack_timeout = 3.0
        parameters.blocked_connection_timeout = 3.0
        parameters.connection_attempts = 1
        broker = RabbitmqBroker(confirm_delivery=True, middleware=[])
        broker.parameters = parameters
        return broker
    from dramatiq.brokers.redis import RedisBroker

    # keys sluice:queue:…; a worker that is silent for a minute gives back what it had fetched
    redis_broker: Any = RedisBroker  # it has no types
    return redis_broker(client=cache.connect(url, 2.0), middleware=[], namespace="sluice:queue")


class Queue:
    """The sender's end; see the module's docstring.

    Nothing is imported, connected or started before something is enqueued.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._pending: queue.Queue[tuple[str, bytes]] = queue.Queue(_MOST_PENDING)
        self._lock = threading.Lock()
        self._sender: threading.Thread | None = None
        self._pid = 0
        self._asking: Any = None
        self._said_at = float("-inf")

    def enqueue(self, kind: str, subjects: Sequence[bytes]) -> None:
        """Has workers look at these rows soon; never waits, never fails. Beyond 1,000 the feeder does the rest."""
        try:
            for subject in subjects[:_MOST_AT_ONCE]:
                self._pending.put_nowait((kind, subject))
        except queue.Full:
            _log.warning("the queue is slow; rows are left to the feeder", extra={"kind": kind})
        self._start()

    def _start(self) -> None:
        with self._lock:
            # a process that was forked has the thread's object and not the thread
            if self._sender is None or self._pid != os.getpid() or not self._sender.is_alive():
                self._pid = os.getpid()
                self._sender = threading.Thread(target=self._send_all, name="enqueue", daemon=True)
                self._sender.start()

    def flush(self, timeout: float) -> bool:
        """Waits until all was sent or dropped; False where that takes longer. For commands, before they end."""
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
                kind, subject = self._pending.get(timeout=_IDLE)
            except queue.Empty:
                _close(broker)
                broker = None
                continue
            try:
                if time.monotonic() >= silent_until:
                    broker = broker or _broker(self._url)
                    broker.enqueue(_message(kind, subject))
            except Exception as ex:
                # whatever a client library may raise: the row is there, and the feeder will find it
                silent_until = time.monotonic() + _SILENCE
                _log.warning("the queue is away", extra={"error": type(ex).__name__})
                _close(broker)
                broker = None
            finally:
                self._pending.task_done()

    def depths(self) -> Mapping[str, int] | None:
        """How many messages wait in each queue; None if it does not answer, or takes none. For one thread at a time."""
        try:
            self._asking = self._asking or _broker(self._url)
            if hasattr(self._asking, "channel"):
                count = _rabbitmq_depth
            else:
                count = _redis_depth
                self._asking.client.set("sluice:queue:check", 1, ex=60)  # without memory it can be read, and no more
            found = {name: count(self._asking, _PREFIX + name) for name in NAMES}
        except Exception as ex:
            if time.monotonic() - self._said_at > _SAY_EVERY:
                self._said_at = time.monotonic()
                _log.warning("the queue is away", extra={"error": type(ex).__name__})
            _close(self._asking)
            self._asking = None
            return None
        self._said_at = float("-inf")
        return found

    def purge(self) -> None:
        """Empties it; what is to do stays in its rows."""
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
    """The receiver's end: threads that take messages of some queues and acknowledge them after the work.

    Args:
        names: queues, of which the first ones go first.
        threads: how many jobs run at once.
        wake: seconds after which an idle queue is looked at again, at most.
    """

    def __init__(self, url: str, names: Sequence[str], threads: int, wake: float, deliver: Deliver) -> None:
        self._url = url
        self._names = names
        self._threads = threads
        self._wake = wake
        self._deliver = deliver
        self._worker: Any = None

    def start(self) -> None:
        """Begins to take messages; a queue that is away is tried again every few seconds."""
        import dramatiq
        from dramatiq.worker import Worker

        class WithoutDelays(Worker):
            """Nothing is delayed in the queue, so nobody polls for it."""

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
        # what is fetched early would wait here behind a long job while another worker is idle
        self._worker.queue_prefetch = self._threads
        self._worker.start()

    def stop(self, seconds: float) -> None:
        """Lets running jobs end, gives back what was fetched and not begun. Waits so long at most, twice."""
        if self._worker is not None:
            self._worker.stop(timeout=int(seconds * 1000))
            _close(self._worker.broker)
