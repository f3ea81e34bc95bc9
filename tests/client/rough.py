"""A TCP proxy that is a bad network: it cuts connections at random, loses responses, or refuses every connection."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
import threading

from tests.listening import Listening
from tests.servers import free_port

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: close sends RST


class RoughProxy:
    """Passes bytes between clients and one port of this machine.

    Args:
        context: speaks TLS with the clients.

    Attributes:
        target: the port.
        cut_within: each connection is cut at random after at most this many bytes; 0: none is cut.
        lose_answers_of: a request that holds this is passed on, and its answer thrown away with the connection.
        refuse: every connection is refused.
        cuts: connections that were cut.
        up: bytes from clients to the server.
    """

    def __init__(self, seed: int = 1, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self.port = free_port()
        self.target = 0
        self.cut_within = 0
        self.lose_answers_of: bytes | None = None
        self.refuse = False
        self.cuts = self.up = self.connections = 0
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def calm(self) -> None:
        """A good network from now on."""
        self.cut_within, self.lose_answers_of, self.refuse = 0, None, False

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                left = self._random.randrange(self.cut_within) if self.cut_within else -1
            if self.refuse:
                _reset(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                _reset(client)
                continue
            if self._context is not None:
                client = self._context.wrap_socket(client, server_side=True)
            _Pair(self, client, server, left).start()

    def count_up(self, count: int) -> None:
        with self._lock:
            self.up += count


class ConnectProxy(Listening):
    """An HTTP proxy that knows CONNECT alone (RFC 9110 section 9.3.6) and lets in who brings the right credentials.

    Attributes:
        asked: the heads of the requests that came, credentials and all.
    """

    def __init__(self, authorization: str) -> None:
        self._authorization = authorization
        self.asked: list[str] = []
        super().__init__()

    def serve(self, client: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        self.asked.append(text := head.decode())
        method, target, _ = text.split(" ", 2)
        if method != "CONNECT" or f"Proxy-Authorization: {self._authorization}\r\n" not in text:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        host, _, port = target.rpartition(":")
        with socket.create_connection((host, int(port))) as server:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=_pass, args=(server, client), daemon=True).start()
            _pass(client, server)


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


class _Pair:
    """One connection through the proxy."""

    def __init__(self, proxy: RoughProxy, client: socket.socket, server: socket.socket, left: int) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._left = left
        self._loses = False
        self._ended = 0
        self._lock = threading.Lock()

    def start(self) -> None:
        for source, sink, up in ((self._client, self._server, True), (self._server, self._client, False)):
            threading.Thread(target=self._pump, args=(source, sink, up), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        self._pass_on(source, sink, up)
        with self._lock:
            self._ended += 1
            both = self._ended == 2
        if both:
            self._client.close()
            self._server.close()

    def _pass_on(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                wanted = self._proxy.lose_answers_of
                if up and wanted and wanted in data:
                    self._loses = True
                elif not up and self._loses:
                    self._cut()
                    return
                if up:
                    self._proxy.count_up(len(data))
                if self._is_over(len(data)):
                    self._cut()
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _is_over(self, count: int) -> bool:
        with self._lock:
            if self._left < 0:
                return False
            self._left = max(0, self._left - count)
            return self._left == 0

    def _cut(self) -> None:
        self._proxy.cuts += 1
        for sock in (self._client, self._server):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                sock.shutdown(socket.SHUT_RDWR)  # wakes the other thread, then both are closed


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()
