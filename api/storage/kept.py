"""Small requests to one server over keep-alive connections, without an SDK.

A call by boto3 costs 1 to 2 ms of CPU, the same request on a kept connection 0.2 ms. The few calls that every upload
needs use this module; all others use the SDK.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from api.core.errors import StorageUnavailable
from api.storage.http import Answer

MOST_TRIES: Final = 3
RETRIED_STATUSES: Final = frozenset({500, 502, 503, 504})
MOST_IDLE_CONNECTIONS: Final = 32
IDLE_SECONDS: Final = 30.0
"""Shorter than the servers' idle timeouts (RGW 65 s, nginx 75 s), so that no request meets a closing connection."""


class KeptConnections:
    """Keep-alive connections to one server; thread-safe.

    Args:
        base: scheme, host and port.
        context: creates the TLS context; only called for https.
        connect_timeout, read_timeout: seconds.
    """

    def __init__(
        self,
        base: str,
        context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        connect_timeout: float = 3.0,
        read_timeout: float = 60.0,
    ) -> None:
        parts = urlsplit(base)
        self._idle: deque[tuple[float, http.client.HTTPConnection]] = deque()
        self._host = parts.netloc
        self._context = context() if parts.scheme == "https" else None
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout

    def ask(
        self,
        method: str,
        target: Callable[[], str],
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        once: bool = False,
        read_timeout: float | None = None,
    ) -> Answer:
        """Sends a request and reads the whole response. Retries if the server was too busy.

        Args:
            target: returns path and query; called for each try, since signatures expire.
            once: send the request at most once; for requests that are not safe to repeat.
            read_timeout: seconds, instead of the default.

        Raises:
            StorageUnavailable: there was no response. The text never contains the query.
        """
        for tries_left in reversed(range(1 if once else MOST_TRIES)):
            try:
                answer = self._ask(method, target(), headers, body, read_timeout or self._read_timeout)
            except TimeoutError as ex:
                raise StorageUnavailable(f"{self._host} is unreachable: timeout") from ex
            except (OSError, http.client.HTTPException) as ex:
                if not tries_left:
                    raise StorageUnavailable(f"{self._host} is unreachable: {type(ex).__name__}") from ex
            else:
                if answer.status not in RETRIED_STATUSES or not tries_left:
                    return answer
            time.sleep(random.uniform(0.02, 0.1) * 2 ** (MOST_TRIES - tries_left))  # noqa: S311 - jitter, not a secret
        raise AssertionError("unreachable")

    def _ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes, read_timeout: float) -> Answer:
        connection = self._kept() or self._connect()
        try:
            connection.sock.settimeout(read_timeout)
            connection.request(method, target, body or None, dict(headers))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            answer = Answer(response.status, found, response.read())
        except BaseException:
            connection.close()
            raise
        if response.will_close or len(self._idle) >= MOST_IDLE_CONNECTIONS:
            connection.close()
        else:
            self._idle.append((time.monotonic(), connection))
        return answer

    def _kept(self) -> http.client.HTTPConnection | None:
        """The most recently used idle connection that is probably open; None if there is none."""
        while self._idle:
            try:
                since, connection = self._idle.pop()
            except IndexError:
                break
            if time.monotonic() - since < IDLE_SECONDS and not _hung_up(connection.sock):
                return connection
            connection.close()
        return None

    def close(self) -> None:
        """Closes idle connections. Later requests open new ones."""
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread took it
                self._idle.pop()[1].close()

    def __del__(self) -> None:
        self.close()

    def _connect(self) -> http.client.HTTPConnection:
        timeout = self._connect_timeout
        connection = (
            http.client.HTTPConnection(self._host, timeout=timeout)
            if self._context is None
            else http.client.HTTPSConnection(self._host, timeout=timeout, context=self._context)
        )
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def _hung_up(sock: socket.socket) -> bool:
    """Whether the server has closed the connection, or sent unexpected data."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
