"""HTTP/1.1 on kept connections: it moves bytes, and knows nothing of Sluice.

The standard library's own response parser over plain sockets: a request's head and a small body leave in one
packet, a file's bytes go from the page cache to the socket (sendfile), and a download is received into one buffer that
is used again. A general HTTP library costs several times the CPU, which is what a fast network runs out of first.

No redirect is followed, so no server or portal can direct credentials to another host.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from sluice.address import PORTS
from sluice.errors import ConfigError, NetworkError, ServerAway
from sluice.faults import Exchange, named
from sluice.proxies import Proxy, proxy_for

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 90.0
"""As long as a storage may need to find a disk that was restarted."""
KEPT_SECONDS = 20.0
"""Shorter than any server's own patience, so that it is seldom the server that hangs up."""
_SLOW_SECONDS = 2.0
"""After this time without a connection or a response, the user is told which server the client waits for."""
_EARLY_ANSWER_SECONDS = 2.0
_NONE: Mapping[str, str] = MappingProxyType({})


class Body(Protocol):
    """A request's body that is sent piece by piece."""

    length: int

    def send(self, sock: socket.socket) -> None:
        """Sends all of it; may be called again for another try."""


class Response:
    """An answer whose body is read by the caller; it must be closed.

    Attributes:
        status: the HTTP status.
        headers: by their lower-case names.
    """

    def __init__(self, connection: _Connection, raw: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._raw = raw
        self.status = raw.status
        self.headers = {name.lower(): value for name, value in raw.getheaders()}

    def read(self, limit: int = 64 * 1024**2) -> bytes:
        """The whole body, or its first ``limit`` bytes."""
        with named(self._connection.exchange):
            return self._raw.read(limit) if limit else b""

    def read_into(self, view: memoryview) -> int:
        """Fills a buffer; 0 at the end. Raises NetworkError if the body was cut off."""
        with named(self._connection.exchange):
            count = self._raw.readinto(view)
            if not count and self._raw.length:
                raise http.client.IncompleteRead(b"", self._raw.length)
        return count

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the connection back, if all of the body was read."""
        whole = self._raw.isclosed() or self._raw.length == 0
        self._connection.release(keep=whole and not self._raw.will_close)
        self._raw.close()


@dataclass(frozen=True)
class _Place:
    """The key under which connections are kept."""

    scheme: str
    host: str
    port: int
    proxy: Proxy | None


class Connections:
    """Kept connections, by host; for use by many threads.

    Args:
        ca_file: certificates to trust besides the system's.

    Attributes:
        on_slow: called with a message that names the request, if a response takes longer than a moment.
        on_request: called for each request: method, URL, status or None, seconds, and the answer's request id.
    """

    def __init__(self, ca_file: str | None = None) -> None:
        if ca_file is not None and not os.path.isfile(ca_file):
            raise ConfigError(f"ca_file {ca_file} is not there")
        self.on_slow: Callable[[str], None] = lambda _: None
        self.on_request: Callable[[str, str, int | None, float, str], None] | None = None
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None
        self._places: dict[tuple[str, str], _Place] = {}
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._idle: defaultdict[_Place, list[_Connection]] = defaultdict(list)
        self._busy: set[_Connection] = set()
        self._lock = threading.Lock()

    def request(
        self, method: str, url: str, headers: Mapping[str, str] = _NONE, body: bytes | Body | None = None
    ) -> Response:
        """Sends a request and reads the head of its answer.

        Raises:
            NetworkError: no connection, or it broke; the error says whether the request may have arrived.
        """
        parts = urlsplit(url)
        connection, begun = self._take(self._place(parts)), time.monotonic()
        response = None
        try:
            response = connection.ask(method, parts, headers, body)
            return response
        except BaseException:
            connection.release(keep=False)
            raise
        finally:
            if self.on_request is not None:
                status = response.status if response is not None else None
                request_id = response.headers.get("x-request-id", "") if response is not None else ""
                self.on_request(method, url, status, time.monotonic() - begun, request_id)

    def close(self) -> None:
        """Breaks every connection, those in use as well: a thread that waits on one gets an error."""
        with self._lock:
            self._closed = True
            idle = [connection for kept in self._idle.values() for connection in kept]
            self._idle.clear()
            busy = list(self._busy)
        for connection in idle:
            connection.close()
        for connection in busy:
            connection.interrupt()

    def after_fork(self) -> None:
        """In a forked child, closes only the child's ends: the parent still uses the connections."""
        inherited = [*self._busy, *(connection for kept in self._idle.values() for connection in kept)]
        self._begin()
        for connection in inherited:
            connection.close()

    def _place(self, parts: SplitResult) -> _Place:
        """Looked up once: asking the environment for proxies costs more than the rest of a small request's head."""
        found = self._places.get((parts.scheme, parts.netloc))
        if found is None:
            try:
                host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
            except (ValueError, KeyError):
                raise NetworkError("the server names an address that is none", may_have_arrived=False) from None
            found = _Place(parts.scheme, host, port, proxy_for(parts.scheme, host, port))
            self._places[parts.scheme, parts.netloc] = found
        return found

    def _take(self, place: _Place) -> _Connection:
        while True:
            with self._lock:
                if self._closed:
                    raise NetworkError("the client is closed", may_have_arrived=False)
                kept = self._idle[place]
                connection = kept.pop() if kept else _Connection(self, place)
                self._busy.add(connection)
            if connection.usable():
                return connection
            connection.release(keep=False)

    def tls(self) -> ssl.SSLContext:
        """The system's trusted certificates, and one's own. Raises ConfigError for a file that holds none."""
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()
                try:
                    if self._ca_file:
                        self._tls.load_verify_locations(self._ca_file)
                except OSError as ex:
                    self._tls = None
                    raise ConfigError(f"ca_file {self._ca_file} cannot be used: {ex.strerror or ex}") from ex
            return self._tls

    def give_back(self, connection: _Connection, keep: bool) -> None:
        """A connection is done with."""
        with self._lock:
            own = connection in self._busy  # not one of the parent process
            self._busy.discard(connection)
            if keep and own and not self._closed:
                self._idle[connection.place].append(connection)
                return
        connection.close()


class _Connection:
    """One connection; used by one thread at a time."""

    def __init__(self, owner: Connections, place: _Place) -> None:
        self.place = place
        self.exchange = Exchange(place.host, place.port, place.proxy)
        self._owner = owner
        self._sock: socket.socket | None = None
        self._used_at = 0.0

    def usable(self) -> bool:
        """False for a kept connection that is too old, or on which the server has hung up."""
        if self._sock is None:
            return True
        return time.monotonic() - self._used_at < KEPT_SECONDS and not _readable(self._sock, 0.0)

    def ask(self, method: str, parts: SplitResult, headers: Mapping[str, str], body: bytes | Body | None) -> Response:
        self.exchange.sent = False
        head = self._head(method, parts, headers, body)
        with named(self.exchange):
            sock = self._sock = self._sock or self._connect()
            sock.settimeout(ANSWER_SECONDS)
            self.exchange.sent = True
            try:
                if body is None or isinstance(body, bytes):
                    sock.sendall(head + (body or b""))
                else:
                    sock.sendall(head)
                    body.send(sock)
            except (BrokenPipeError, ConnectionResetError) as ex:
                return self._early_answer(sock, method, ex)
            if not _readable(sock, _SLOW_SECONDS):
                self._owner.on_slow(f"{self.exchange} is slow to answer")
            return Response(self, self._answer(sock, method))

    def _answer(self, sock: socket.socket, method: str) -> http.client.HTTPResponse:
        raw = _begin(sock, method)
        self.exchange.used += 1
        return raw

    def _early_answer(self, sock: socket.socket, method: str, ex: OSError) -> Response:
        """A server that refuses a body hangs up in the middle of it, and may have said why."""
        sock.settimeout(_EARLY_ANSWER_SECONDS)
        try:
            raw = self._answer(sock, method)
        except (OSError, http.client.HTTPException):
            raise ex from None
        raw.will_close = True
        return Response(self, raw)

    def _head(self, method: str, parts: SplitResult, headers: Mapping[str, str], body: bytes | Body | None) -> bytes:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        netloc = parts.netloc.rpartition("@")[2]
        lines = [f"Host: {netloc}"]
        if self.place.proxy is not None and parts.scheme == "http":
            target = f"http://{netloc}{target}"
            lines += self.place.proxy.headers
        if body is not None:
            lines.append(f"Content-Length: {len(body) if isinstance(body, bytes) else body.length}")
        elif method in ("POST", "PUT", "PATCH"):
            lines.append("Content-Length: 0")
        lines = [f"{method} {target} HTTP/1.1", *lines, *(f"{name}: {value}" for name, value in headers.items())]
        text = "\r\n".join(lines)
        if text.count("\r") != len(lines) - 1 or text.count("\n") != len(lines) - 1:
            raise ConfigError("an address or a token holds a line break")
        try:
            return f"{text}\r\n\r\n".encode("latin-1")
        except UnicodeEncodeError:
            raise ConfigError("an address or a token holds characters that no request can") from None

    def _connect(self) -> socket.socket:
        place = self.place
        host, port = (place.host, place.port) if place.proxy is None else (place.proxy.host, place.proxy.port)
        self.exchange.connected = False
        with _after(_SLOW_SECONDS, lambda: self._owner.on_slow(f"{self.exchange} does not answer yet")):
            sock = socket.create_connection((host, port), CONNECT_SECONDS)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if place.scheme == "https":
                    if place.proxy is not None:
                        _tunnel(sock, place, place.proxy)
                    self.exchange.connected = True
                    sock = self._owner.tls().wrap_socket(sock, server_hostname=place.host)
                self.exchange.connected = True
                return sock
            except BaseException:
                sock.close()
                raise

    def release(self, keep: bool) -> None:
        self._used_at = time.monotonic()
        self._owner.give_back(self, keep and self._sock is not None)

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def interrupt(self) -> None:
        """Wakes the thread that uses it."""
        sock = self._sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _after(seconds: float, then: Callable[[], None]) -> Iterator[None]:
    """Calls ``then`` if what is done inside takes longer."""
    timer = threading.Timer(seconds, then)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _begin(sock: socket.socket, method: str) -> http.client.HTTPResponse:
    """Reads an answer's head."""
    raw = http.client.HTTPResponse(sock, method=method)
    try:
        raw.begin()
    except BaseException:
        raw.close()  # it holds the socket open
        raise
    return raw


def _readable(sock: socket.socket, seconds: float) -> bool:
    """Tells if data comes within some time. If no request was sent, it means that the server closed the connection."""
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(int(seconds * 1000)))
    return bool(select.select([sock], [], [], seconds)[0])


def _tunnel(sock: socket.socket, place: _Place, proxy: Proxy) -> None:
    """Asks the proxy for a connection to the server itself (RFC 9110 section 9.3.6)."""
    target = f"[{place.host}]:{place.port}" if ":" in place.host else f"{place.host}:{place.port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", *proxy.headers, "", ""]
    sock.sendall("\r\n".join(lines).encode("latin-1"))
    raw = _begin(sock, "CONNECT")
    raw.close()  # its file would keep a refused connection open
    if raw.status != 200:
        raise ServerAway(f"{proxy} refuses {target}: {raw.status} {raw.reason}", may_have_arrived=False)
