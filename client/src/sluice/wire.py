"""HTTP/1.1 on kept connections: what moves bytes, and knows nothing of Sluice.

The standard library's own response parser over sockets of our own: a request's head and a small body leave in one
packet, a file's bytes go from the page cache to the socket (sendfile), and a download is received into one buffer that
is used again. A general HTTP library costs several times the CPU, which is what a fast network runs out of first.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import select
import socket
import ssl
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from sluice.errors import CertificateRefused, NetworkError, ServerAway

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 90.0
"""As long as a storage may need to find a disk that was restarted."""
KEPT_SECONDS = 20.0
"""Shorter than any server's own patience, so that it is seldom the server that hangs up."""
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
        with _named(self._connection):
            return self._raw.read(limit) if limit else b""

    def read_into(self, view: memoryview) -> int:
        """Fills a buffer; 0 at the end. Raises NetworkError where the body was cut off."""
        with _named(self._connection):
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
    """What connections are kept by."""

    scheme: str
    host: str
    port: int
    proxy: str | None


class Connections:
    """Kept connections, by host; for use by many threads.

    Args:
        ca_file: certificates to trust besides the system's.
        use_proxies: whether HTTP_PROXY, HTTPS_PROXY and NO_PROXY mean something.
    """

    def __init__(self, ca_file: str | None = None, use_proxies: bool = True) -> None:
        self._ca_file = ca_file
        self._use_proxies = use_proxies
        self._tls: ssl.SSLContext | None = None
        self._idle: defaultdict[_Place, list[_Connection]] = defaultdict(list)
        self._busy: set[_Connection] = set()
        self._places: dict[tuple[str, str], _Place] = {}
        self._lock = threading.Lock()
        self._closed = False

    def request(
        self, method: str, url: str, headers: Mapping[str, str] = _NONE, body: bytes | Body | None = None
    ) -> Response:
        """Sends a request and reads the head of its answer.

        Raises:
            NetworkError: nobody was reached, or the connection broke; it says whether the request may have arrived.
        """
        parts = urlsplit(url)
        connection = self._take(self._place(parts))
        try:
            return connection.exchange(method, parts, headers, body)
        except BaseException:
            connection.release(keep=False)
            raise

    def close(self) -> None:
        """Breaks every connection, those in use as well: whoever waits on one is woken by an error."""
        with self._lock:
            self._closed = True
            idle = [connection for kept in self._idle.values() for connection in kept]
            self._idle.clear()
            busy = list(self._busy)
        for connection in idle:
            connection.close()
        for connection in busy:
            connection.interrupt()

    def _place(self, parts: SplitResult) -> _Place:
        """Looked up once: asking the environment for proxies costs more than the rest of a small request's head."""
        found = self._places.get((parts.scheme, parts.netloc))
        if found is None:
            found = self._places[parts.scheme, parts.netloc] = self._find_place(parts)
        return found

    def _find_place(self, parts: SplitResult) -> _Place:
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        proxy = None
        if self._use_proxies and not urllib.request.proxy_bypass(host):
            proxy = urllib.request.getproxies().get(parts.scheme)
        return _Place(parts.scheme, host, port, proxy)

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
        """The system's trusted certificates, and one's own."""
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()
                if self._ca_file:
                    self._tls.load_verify_locations(self._ca_file)
            return self._tls

    def give_back(self, connection: _Connection, keep: bool) -> None:
        """A connection is done with."""
        with self._lock:
            self._busy.discard(connection)
            if keep and not self._closed:
                self._idle[connection.place].append(connection)
                return
        connection.close()


class _Connection:
    """One connection; used by one thread at a time."""

    def __init__(self, owner: Connections, place: _Place) -> None:
        self.place = place
        self.sent = False
        self.used = 0
        self._owner = owner
        self._sock: socket.socket | None = None
        self._used_at = 0.0

    def usable(self) -> bool:
        """False for a kept connection that is too old, or on which the server has hung up."""
        if self._sock is None:
            return True
        return time.monotonic() - self._used_at < KEPT_SECONDS and not _readable(self._sock)

    def exchange(
        self, method: str, parts: SplitResult, headers: Mapping[str, str], body: bytes | Body | None
    ) -> Response:
        self.sent = False
        if self._sock is None:
            with _named(self):
                self._sock = self._connect()
        with _named(self):
            self._sock.settimeout(ANSWER_SECONDS)
            head = self._head(method, parts, headers, body)
            self.sent = True
            try:
                if body is None or isinstance(body, bytes):
                    self._sock.sendall(head + (body or b""))
                else:
                    self._sock.sendall(head)
                    body.send(self._sock)
            except (BrokenPipeError, ConnectionResetError) as ex:
                return self._early_answer(method, ex)
            return Response(self, self._answer(method))

    def _answer(self, method: str) -> http.client.HTTPResponse:
        assert self._sock is not None
        raw = _begin(self._sock, method)
        self.used += 1
        return raw

    def _early_answer(self, method: str, ex: OSError) -> Response:
        """A server that refuses a body hangs up in the middle of it, and may have said why."""
        assert self._sock is not None
        self._sock.settimeout(_EARLY_ANSWER_SECONDS)
        try:
            raw = self._answer(method)
        except (OSError, http.client.HTTPException):
            raise ex from None
        raw.will_close = True
        return Response(self, raw)

    def _head(self, method: str, parts: SplitResult, headers: Mapping[str, str], body: bytes | Body | None) -> bytes:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = []
        if self.place.proxy and parts.scheme == "http":
            target = f"http://{parts.netloc.rpartition('@')[2]}{target}"
            lines += _proxy_headers(self.place.proxy)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc.rpartition('@')[2]}", *lines]
        if body is not None:
            lines.append(f"Content-Length: {len(body) if isinstance(body, bytes) else body.length}")
        elif method in ("POST", "PUT", "PATCH"):
            lines.append("Content-Length: 0")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        text = "\r\n".join(lines)
        if text.count("\r") != len(lines) - 1 or text.count("\n") != len(lines) - 1:
            raise ValueError("a line break in a request's head")
        return f"{text}\r\n\r\n".encode("latin-1")

    def _connect(self) -> socket.socket:
        place = self.place
        host, port = (place.host, place.port) if place.proxy is None else _address(place.proxy)
        sock = socket.create_connection((host, port), CONNECT_SECONDS)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if place.scheme == "https":
                if place.proxy is not None:
                    _tunnel(sock, place)
                sock = self._owner.tls().wrap_socket(sock, server_hostname=place.host)
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
def _named(connection: _Connection) -> Iterator[None]:
    """Makes one kind of error of all that sockets and their parser raise."""
    try:
        yield
    except (OSError, http.client.HTTPException) as ex:
        raise _error(connection, ex) from ex


def _error(connection: _Connection, ex: Exception) -> NetworkError:
    where = f"{connection.place.host}:{connection.place.port}"
    arrived, stale = connection.sent, connection.used > 0
    if isinstance(ex, ssl.SSLCertVerificationError):
        return CertificateRefused(_certificate(where, ex), may_have_arrived=False)
    if isinstance(ex, TimeoutError):
        return ServerAway(f"{where} does not answer", may_have_arrived=arrived)
    if isinstance(ex, socket.gaierror):
        return ServerAway(f"{connection.place.host} is not known: {ex.strerror}", may_have_arrived=False)
    if isinstance(ex, ConnectionRefusedError):
        return ServerAway(f"nobody answers at {where}", may_have_arrived=False)
    if isinstance(ex, (http.client.IncompleteRead, http.client.RemoteDisconnected)):
        return NetworkError(f"{where} hung up", may_have_arrived=arrived, stale=stale)
    if isinstance(ex, http.client.HTTPException):
        return NetworkError(f"{where} does not speak HTTP", may_have_arrived=arrived)
    if isinstance(ex, ssl.SSLError) and not arrived:
        return CertificateRefused(f"no TLS with {where}: {ex.reason}", may_have_arrived=False)
    text = (ex.strerror if isinstance(ex, OSError) else None) or str(ex)
    return NetworkError(f"the connection to {where} broke: {text}", may_have_arrived=arrived, stale=stale)


def _certificate(where: str, ex: ssl.SSLCertVerificationError) -> str:
    text = f"the certificate of {where} is not trusted: {ex.verify_message}"
    if ex.verify_code in (9, 10):  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
        text += f"; by this machine's clock it is {time.strftime('%Y-%m-%d %H:%M:%S')}: is that right?"
    return text


def _begin(sock: socket.socket, method: str) -> http.client.HTTPResponse:
    """Reads an answer's head."""
    raw = http.client.HTTPResponse(sock, method=method)
    try:
        raw.begin()
    except BaseException:
        raw.close()  # it holds the socket open
        raise
    return raw


def _readable(sock: socket.socket) -> bool:
    """Whether something came on a connection that waits for nothing: the server has hung up."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([sock], [], [], 0)[0])


def _address(proxy: str) -> tuple[str, int]:
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return parts.hostname or "", parts.port or 8080


def _proxy_headers(proxy: str) -> list[str]:
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.username is None:
        return []
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return [f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}"]


def _tunnel(sock: socket.socket, place: _Place) -> None:
    """Asks the proxy for a connection to the server itself (RFC 9110 section 9.3.6)."""
    assert place.proxy is not None
    target = f"{place.host}:{place.port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", *_proxy_headers(place.proxy), "", ""]
    sock.sendall("\r\n".join(lines).encode("latin-1"))
    raw = _begin(sock, "CONNECT")
    raw.close()  # its file would keep a refused connection open
    if raw.status != 200:
        host, port = _address(place.proxy)
        raise ServerAway(f"the proxy {host}:{port} refuses {target}: {raw.status} {raw.reason}", may_have_arrived=False)
