"""A stand-in for a proxied storage. It responds right or wrong, as a test sets, and records its requests."""

import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any


@dataclass
class Request:
    """A request that reached the storage; ``connection`` tells connections apart."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: tuple[str, int]

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) < 2, values
        return values[0] if values else None

    @property
    def names(self) -> set[str]:
        return {name.lower() for name, _ in self.headers}


@dataclass
class Answer:
    """How to respond to a request.

    Attributes:
        status: 0: no response; the connection is closed.
        length: Content-Length, if it is not the body's; negative: none, in chunks.
        stop: number of bytes of the body to send.
        then: what to do there: "close", or "hang" until `StubStorage.release`.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None
    stop: int | None = None
    then: str = "close"


Handle = Callable[[Request], Answer]


def ranged(content: bytes) -> Handle:
    """A correct storage, with headers that no client may see."""

    def handle(request: Request) -> Answer:
        noise = {
            "ETag": '"store"', "Content-Type": "text/html", "Last-Modified": "Sat, 01 Jan 2000 00:00:00 GMT",
            "Accept-Ranges": "none", "Content-Disposition": "inline", "Cache-Control": "public", "Set-Cookie": "a=b",
            "x-amz-request-id": "tx01", "x-amz-meta-x": "y", "Server": "Ceph", "X-Accel-Redirect": "/_error",
            "X-Accel-Limit-Rate": "1", "Refresh": "0; url=http://evil", "Access-Control-Allow-Origin": "*",
        }  # fmt: skip
        wanted = request.header("Range")
        if wanted is None:
            return Answer(200, noise, content)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        piece = content[int(first) : int(last) + 1]
        last = str(min(int(last), len(content) - 1))  # RFC 9110 section 14.1.2
        return Answer(206, {**noise, "Content-Range": f"bytes {first}-{last}/{len(content)}"}, piece)

    return handle


class StubStorage:
    """The stand-in, see the module's docstring.

    Attributes:
        handle: makes the response to a request.
        seen: every request.
        ended: number of responses that were sent, or cut by nginx.
        reads: whether the body of a request is read before the response.
    """

    def __init__(self, port: int, scheme: str) -> None:
        self.port = port
        self.base = f"{scheme}://127.0.0.1:{port}"
        self.seen: list[Request] = []
        self.handle: Handle = lambda request: Answer()
        self.ended = 0
        self.reads = True
        self.connections: list[socket.socket] = []
        self.release = threading.Event()

    def url(self, name: str = "key", signature: str = "good") -> str:
        """A URL as the API signs it."""
        return f"{self.base}/bucket/{name}?uploadId=2~x%2Fy&X-Amz-Credential=a%2Fb&X-Amz-Signature={signature}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    stub: StubStorage

    def setup(self) -> None:
        super().setup()
        self.stub.connections.append(self.request)

    def _read(self) -> Request:
        length = int(self.headers.get("Content-Length") or 0) if self.stub.reads else 0
        body = self.rfile.read(length)
        return Request(self.command, self.path, list(self.headers.items()), body, self.client_address)

    def handle_any(self) -> None:
        request = self._read()
        self.stub.seen.append(request)
        self._send(self.stub.handle(request))

    def _send(self, answer: Answer) -> None:
        if not answer.status:
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.length is None or answer.length >= 0:
            self.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        body = answer.body if answer.stop is None else answer.body[: answer.stop]
        if answer.length is not None and answer.length < 0:
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        with suppress(OSError):
            self.wfile.write(body)
            self.wfile.flush()
        self.stub.ended += 1
        if answer.stop is not None:
            if answer.then == "hang":
                self.stub.release.wait(20)
            self.close_connection = True
        if not self.stub.reads:
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815 - the base class's names

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def running(context: ssl.SSLContext | None = None) -> Iterator[StubStorage]:
    """Runs a storage, and ends it."""

    class Handler(_Handler):
        """A separate class per stand-in, because it holds the stand-in."""

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True
        request_queue_size = 64

        def get_request(self) -> tuple[Any, Any]:
            connection, address = super().get_request()
            if context:
                connection = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            return connection, address

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # nginx closed the connection

    with Server(("127.0.0.1", 0), Handler) as server:
        stub = Handler.stub = StubStorage(server.server_address[1], "https" if context else "http")
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield stub
        finally:
            stub.release.set()
            server.shutdown()
            # Closes kept connections too.
            for connection in stub.connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
