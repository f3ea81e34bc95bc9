"""The worker process: runs jobs from the queue, refills the queue, and sweeps. Run as many as needed."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

from api.core.errors import DatabaseUnavailable, StorageError
from api.jobs.feeder import LOOK_INTERVAL_SECONDS
from api.jobs.queue import Consumer
from api.services import Services

FINALIZE_THREADS: Final = 2
"""Separate threads, so that a client that waits for a complete never waits for long copies."""
FINALIZE_WAKE_SECONDS, BACKGROUND_WAKE_SECONDS = 0.2, 0.5
STOP_SECONDS: Final = 25.0

_log = logging.getLogger(__name__)


class Worker:
    """A worker process. Leases on rows prevent that two workers run the same job."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stop = threading.Event()
        url, deliver = services.config.queue_url or services.config.redis_url, self._deliver
        self._consumers = (
            Consumer(url, ("finalize",), FINALIZE_THREADS, FINALIZE_WAKE_SECONDS, deliver),
            Consumer(url, ("verify", "background"), services.config.worker_threads, BACKGROUND_WAKE_SECONDS, deliver),
        )

    def run(self) -> None:
        """Works until SIGTERM or SIGINT. Then running segments save their position, and it ends within 30 s."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self._stop.set())
        # separate threads: freeing a huge upload must not delay finalizing another one
        for target in (self._sweep, self._feed):
            threading.Thread(target=target, name=target.__name__, daemon=True).start()
        for consumer in self._consumers:
            consumer.start()
        _log.info("worker started")
        self._stop.wait()
        self._end()

    def _end(self) -> None:
        began = time.monotonic()
        self._services.runner.stop()
        stopping = [threading.Thread(target=c.stop, args=(STOP_SECONDS,), daemon=True) for c in self._consumers]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join(max(began + STOP_SECONDS - time.monotonic(), 0))
        self._services.feeder.drain(max(began + STOP_SECONDS - time.monotonic(), 0))
        self._services.queue.flush(1.0)
        late = any(thread.is_alive() for thread in stopping)
        _log.info("worker stopped", extra={"seconds": round(time.monotonic() - began, 3), "cut_off": late})
        logging.shutdown()
        # a thread that hangs on a storage would keep the process alive; the progress is saved in rows
        os._exit(0)

    def _deliver(self, kind: str, subject: bytes) -> None:
        self._services.runner.run(kind, subject)

    def _feed(self) -> None:
        self._repeat(self._look, LOOK_INTERVAL_SECONDS)

    def _look(self) -> None:
        heartbeat = self._services.config.worker_heartbeat
        if self._services.feeder.look() and heartbeat:
            heartbeat.touch()

    def _sweep(self) -> None:
        self._repeat(self._services.sweep.run, self._services.config.sweep_interval)

    def _repeat(self, act: Callable[[], object], every: float) -> None:
        while not self._stop.is_set():
            try:
                act()
            except (DatabaseUnavailable, StorageError) as ex:
                _log.warning("will be tried again", extra={"what": threading.current_thread().name, "error": str(ex)})
            except Exception:
                _log.exception("failed", extra={"what": threading.current_thread().name})
            self._stop.wait(every)
