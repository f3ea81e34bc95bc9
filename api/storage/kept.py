"""Small requests to one server over connections that are kept: what an SDK spends on a call is ten times the call.

A call that boto3 makes costs the API 1 to 2 ms of CPU, the same request on a kept connection 0.2. The few calls that
every upload needs go this way; all others use the SDK.
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

_TRIES: Final = 3
_AGAIN: Final = frozenset({500, 502, 503, 504})
_MOST_IDLE: Final = 32
_IDLE_SECONDS: Final = 30.0
"""Servers close what is idle for longer (RGW after 65 s, nginx after 75): theirs is the race that this avoids."""


class KeptConnections:
    """Connections to one server, for threads; a request that is not safe to repeat is sent ``once``.

    Args:
        base: scheme, host and port.
        context: whom to believe under TLS; made when it is first needed.
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
        """Sends a request and reads the whole answer; what a server was too busy for is asked again.

        Args:
            target: makes path and query, anew for each try: a signature ages.
            once: it is sent at most once, whatever comes of it.
            read_timeout: seconds, instead of the usual ones.

        Raises:
            StorageUnavailable: there was no answer; the text never holds the query.
        """
        for tries_left in reversed(range(1 if once else _TRIES)):
            try:
                answer = self._ask(method, target(), headers, body, read_timeout or self._read_timeout)
            except TimeoutError as ex:
                raise StorageUnavailable(f"{self._host} does not answer: timeout") from ex
            except (OSError, http.client.HTTPException) as ex:
                if not tries_left:
                    raise StorageUnavailable(f"{self._host} does not answer: {type(ex).__name__}") from ex
            else:
                if answer.status not in _AGAIN or not tries_left:
                    return answer
            time.sleep(random.uniform(0.02, 0.1) * 2 ** (_TRIES - tries_left))  # noqa: S311 - jitter, not a secret
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
        if response.will_close or len(self._idle) >= _MOST_IDLE:
            connection.close()
        else:
            self._idle.append((time.monotonic(), connection))
        return answer

    def _kept(self) -> http.client.HTTPConnection | None:
        """The connection that was used last, while it is likely to be open."""
        while self._idle:
            try:
                since, connection = self._idle.pop()
            except IndexError:
                break
            if time.monotonic() - since < _IDLE_SECONDS and not _hung_up(connection.sock):
                return connection
            connection.close()
        return None

    def close(self) -> None:
        """Closes what is idle; requests go on to make connections of their own."""
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
    """Whether the other end has closed it, or sent what nobody asked for."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
