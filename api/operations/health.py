"""Health of the process: the state of each dependency, checked at most every 2 s."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from api.blobs import replica_rows as replicas
from api.core.cache import Cache
from api.core.errors import DatabaseUnavailable, StorageUnavailable
from api.db import deployment
from api.db.pool import Database
from api.storage.probe import ProbedStorage
from api.storage.stores import Stores

HEALTH_CACHE_SECONDS = 2.0
MOST_COUNTED = 1000
"""Most missing replicas and lost blobs that are counted here. The metrics have a higher limit."""
PROBE_RETRY_SECONDS = 31.0
"""Seconds until an unreachable storage is probed again."""

_log = logging.getLogger(__name__)


class Health:
    """See the module's docstring."""

    def __init__(self, db: Database, cache: Cache, stores: Stores) -> None:
        self._db = db
        self._cache = cache
        self._stores = stores
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._checks: dict[str, str] = {}
        self._told: dict[str, str] = {}

    def room(self) -> int | None:
        """Free bytes on the local disk above SLUICE_MIN_FREE. The edge compares parts with it. None if unknown."""
        try:
            return self._stores.room()
        except StorageUnavailable:
            return None  # uploading a part will report the failure

    def full(self) -> bool:
        """Whether the local disk has less than SLUICE_MIN_FREE left."""
        room = self.room()
        return room is not None and room < 0

    def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether the gateway can do its main work, and each dependency's state: "ok", or the problem.

        It is ready even if Redis is down: then processes only stop sharing their counters. It is also ready if a
        storage without new uploads is down: then only the files on that storage are unavailable.
        """
        with self._lock:
            if time.monotonic() - self._asked > HEALTH_CACHE_SECONDS:
                self._checks = self._ask()
                self._asked = time.monotonic()
                self._tell({**self._checks, "room": "full" if self.full() else "ok"})
            checks = dict(self._checks)
        needed = {"database", *(f"storage:{name}" for name in self._stores.for_new_uploads)}
        return all(state == "ok" for name, state in checks.items() if name in needed), checks

    def _tell(self, checks: dict[str, str]) -> None:
        """Logs each change, so that the log shows why and since when a process is not ready."""
        for name, state in checks.items():
            before = self._told.get(name, "ok")
            if state != "ok" and state != before:
                _log.warning("a dependency is not well", extra={"dependency": name, "error": state})
            elif state == "ok" and before != "ok":
                _log.warning("a dependency is well again", extra={"dependency": name})
        self._told = checks

    def notes(self) -> dict[str, str]:
        """Results of earlier probes of the storages; sends no request."""
        return {
            f"storage:{name}": _note(storage.found)
            for name, storage in self._stores
            if isinstance(storage, ProbedStorage)
        }

    def probe_in_background(self, wait: Callable[[float], object] = time.sleep) -> list[threading.Thread]:
        """Probes in threads what each storage enforces, until it is known, so that the start is not delayed."""
        threads = [
            threading.Thread(target=_probe, args=(name, storage, wait), name=f"probe {name}", daemon=True)
            for name, storage in self._stores
            if isinstance(storage, ProbedStorage)
        ]
        for thread in threads:
            thread.start()
        return threads

    def _ask(self) -> dict[str, str]:
        checks = {"database": _state(self._database), "redis": self._cache.check()}
        for name, storage in self._stores:
            checks[f"storage:{name}"] = _state(storage.check)
        with suppress(DatabaseUnavailable):  # already in `checks`
            checks["content"] = self._content()
        return checks

    def _content(self) -> str:
        """The number of missing replicas and lost blobs that are known; "ok" if there are none."""
        missing = replicas.count_missing(self._db, MOST_COUNTED)
        if not missing:
            return "ok"
        lost = replicas.count_lost(self._db, MOST_COUNTED)
        return f"{_count(missing)} objects are missing, {_count(lost)} contents are lost: python -m api lost"

    def _database(self) -> None:
        deployment.identity(self._db)


def _state(check: Callable[[], None]) -> str:
    try:
        check()
    except (DatabaseUnavailable, StorageUnavailable) as ex:
        return str(ex)
    return "ok"


def _count(number: int) -> str:
    return f"{number} or more" if number == MOST_COUNTED else str(number)


def _note(binds: bool | None) -> str:
    if binds is None:
        return "not probed yet: until then uploads are read back"
    return "binds sha256" if binds else "does not bind sha256: objects are read back"


def _probe(name: str, storage: ProbedStorage, wait: Callable[[float], object]) -> None:
    while True:
        try:
            if storage.enforces_sha256 or storage.found is not None:
                _log.info("storage probed", extra={"storage": name, "binds_sha256": storage.found})
                return
        except DatabaseUnavailable as ex:  # the prefix of object keys is in the database
            _log.warning("a storage cannot be probed yet", extra={"storage": name, "error": str(ex)})
        wait(PROBE_RETRY_SECONDS)
