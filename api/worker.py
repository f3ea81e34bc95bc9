"""The worker process: finalizes, reads back, sweeps. Run as many as needed; rows keep them apart."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from api.cache import Cache
from api.errors import DatabaseUnavailable, PartMismatch, StorageError
from api.services import Services

_LOOK_EVERY = 1.0
"""Seconds between two looks at the rows when no bell rings."""
_AT_ONCE = 2

_log = logging.getLogger(__name__)


class Worker:
    """One process' loop.

    Args:
        cache: whose bell wakes it.
    """

    def __init__(self, services: Services, cache: Cache) -> None:
        self._services = services
        self._cache = cache
        self._stop = threading.Event()
        self._busy: set[bytes] = set()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Works until SIGTERM or SIGINT; what is under way then is left to the next process."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self._stop.set())
        # in a thread of its own: freeing a huge upload must not keep another one from being finalized
        sweeper = threading.Thread(target=self._sweep, name="sweep", daemon=True)
        sweeper.start()
        pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="finalize")
        _log.info("worker started")
        while not self._stop.is_set():
            try:
                self._start_due(pool)
            except (DatabaseUnavailable, StorageError) as ex:
                _log.warning("will look again", extra={"error": str(ex)})
                self._stop.wait(_LOOK_EVERY)
            self._cache.await_ring(_LOOK_EVERY)
        pool.shutdown(wait=False, cancel_futures=True)
        _log.info("worker stopped")

    def _sweep(self) -> None:
        while not self._stop.is_set():
            try:
                self._services.sweep.run()
            except (DatabaseUnavailable, StorageError) as ex:
                _log.warning("will sweep again", extra={"error": str(ex)})
            except Exception:
                _log.exception("sweeping failed")
            self._stop.wait(self._services.config.sweep_interval)

    def _start_due(self, pool: ThreadPoolExecutor) -> None:
        for kind, job in (("finalized", self._services.finalizer), ("read back", self._services.verifier)):
            for row in job.due():
                with self._lock:
                    if row in self._busy or len(self._busy) >= _AT_ONCE:
                        continue
                    self._busy.add(row)
                pool.submit(self._do, kind, job.take, row)

    def _do(self, kind: str, take: Callable[[bytes], bool], row: bytes) -> None:
        began = time.monotonic()
        try:
            if take(row):
                _log.info(kind, extra={"row": row.hex(), "seconds": round(time.monotonic() - began, 3)})
        except PartMismatch as ex:
            _log.info("parts are wrong", extra={"row": row.hex(), "parts": list(ex.parts)})
        except (StorageError, DatabaseUnavailable) as ex:
            _log.warning("will be tried again", extra={"row": row.hex(), "error": str(ex)})
        except Exception:
            _log.exception("failed", extra={"row": row.hex()})
        finally:
            with self._lock:
                self._busy.discard(row)
