"""Redis: counters against password guessing. All of its data may be lost at any time.

The only module that imports redis and builds its keys (``sluice:<kind>:<id>``). If Redis is down, each process counts
in its memory: an attacker then has a budget per process.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from typing import Final, cast

import redis

_log = logging.getLogger(__name__)

MOST_LOCAL_COUNTERS: Final = 10_000
RETRY_SECONDS: Final = 1.0
"""Seconds until a Redis that failed is tried again."""

# A script needs one round trip, and cannot leave a key without expiry between two commands.
COUNT_SCRIPT: Final = """
local n = redis.call('INCR', KEYS[1])
if n == 1 or redis.call('TTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return {n, redis.call('TTL', KEYS[1])}
"""


class _LocalCounters:
    """Counters in this process's memory, limited in number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def add(self, key: str, amount: int, window: int) -> tuple[int, int]:
        now = time.monotonic()
        with self._lock:
            count, ends = self._counts.get(key, (0, now + window))
            if ends <= now:
                count, ends = 0, now + window
            count = max(count + amount, 0)
            self._counts[key] = (count, ends)
            self._counts.move_to_end(key)
            while len(self._counts) > MOST_LOCAL_COUNTERS:
                self._counts.popitem(last=False)
        return count, max(int(ends - now), 1)

    def clear(self, key: str) -> None:
        with self._lock:
            self._counts.pop(key, None)


def connect(url: str, timeout: float) -> redis.Redis:
    """A client that connects on first use, times out after ``timeout`` seconds, and does not retry."""
    return redis.Redis.from_url(
        url, socket_connect_timeout=min(timeout, 0.5), socket_timeout=timeout, protocol=2, retry=None
    )


class Cache:
    """See the module's docstring.

    Args:
        url: ``redis://…`` or ``unix:///path``.
    """

    def __init__(self, url: str) -> None:
        self._redis = connect(url, 0.5)
        self._local = _LocalCounters()
        self._silent_until = 0.0

    def _ask(self, *command: str | int) -> object | None:
        """A command's result; None if Redis is down."""
        if time.monotonic() < self._silent_until:
            return None
        try:
            return cast(object, self._redis.execute_command(*command))  # type: ignore[no-untyped-call]
        except redis.RedisError as ex:
            self._silent_until = time.monotonic() + RETRY_SECONDS
            _log.warning("redis is down", extra={"error": type(ex).__name__})
            return None

    def check(self) -> str:
        """Redis's state: "ok", "away", or why it takes no writes (out of memory without eviction, a replica)."""
        try:
            self._redis.set("sluice:check", 1, ex=60)
        except redis.ResponseError as ex:
            return f"takes no writes: {type(ex).__name__}"
        except redis.RedisError:
            return "away"
        return "ok"

    # -- failures: counted before they are judged, in a time window that begins with the first one

    @staticmethod
    def _failures(kind: str, subject: str) -> str:
        return f"sluice:{kind}:{hashlib.sha256(subject.encode()).hexdigest()[:32]}"

    def count(self, kind: str, subject: str, window: int) -> tuple[int, int]:
        """Adds one. Returns the count in the window, and the seconds until the window ends."""
        key = self._failures(kind, subject)
        answer = self._ask("EVAL", COUNT_SCRIPT, 1, key, window)
        if isinstance(answer, list):
            return int(answer[0]), max(int(answer[1]), 1)
        return self._local.add(key, 1, window)

    def uncount(self, kind: str, subject: str, window: int) -> None:
        """Subtracts one."""
        key = self._failures(kind, subject)
        if self._ask("DECR", key) is None:
            self._local.add(key, -1, window)

    def clear(self, kind: str, subject: str) -> None:
        """Deletes the counter."""
        key = self._failures(kind, subject)
        self._local.clear(key)
        self._ask("DEL", key)
