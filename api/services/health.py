"""Whether the process can do its work: each dependency by name, asked at most once in 2 s."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from api.cache import Cache
from api.db import deployment
from api.db.pool import Database
from api.errors import DatabaseUnavailable, StorageUnavailable
from api.services.stores import Stores

_FRESH = 2.0


class Health:
    """See the module's docstring."""

    def __init__(self, db: Database, cache: Cache, stores: Stores) -> None:
        self._db = db
        self._cache = cache
        self._stores = stores
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._checks: dict[str, str] = {}

    def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether requests can be served, and how each dependency is: "ok", or what is wrong.

        Redis may be away: nothing but its counters' sharing between processes is missed then.
        """
        with self._lock:
            if time.monotonic() - self._asked > _FRESH:
                self._checks = self._ask()
                self._asked = time.monotonic()
            checks = dict(self._checks)
        return all(state == "ok" for name, state in checks.items() if name != "redis"), checks

    def _ask(self) -> dict[str, str]:
        checks = {"database": _state(self._database), "redis": "ok" if self._cache.check() else "away"}
        for name, storage in self._stores:
            checks[f"storage:{name}"] = _state(storage.check)
        return checks

    def _database(self) -> None:
        deployment.identity(self._db)


def _state(check: Callable[[], None]) -> str:
    try:
        check()
    except (DatabaseUnavailable, StorageUnavailable) as ex:
        return str(ex)
    return "ok"
