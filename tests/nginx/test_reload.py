"""`nginx -s reload` with requests in progress: none is cut, in either direction."""

import os
import socket
import threading
import uuid
from collections.abc import Callable
from functools import partial

import pytest

from api.core.tiers import Tier
from tests.nginx.edge import Edge, parse
from tests.nginx.stub_api import DEADLINE, wait_for
from tests.nginx.stub_api import Answer as APIAnswer
from tests.nginx.stub_storage import Answer, Request, StubStorage, ranged
from tests.nginx.tiers import document, new_user
from tests.vectors.make_tokens import CLAIMS

MIB = 2**20
CONTENT = os.urandom(MIB) * 24
"""More than the sockets' buffers hold."""


@pytest.fixture
def edge(make_edge: Callable[..., Edge]) -> Edge:
    return make_edge(tiers=document(slow=Tier(rate=16 * MIB)))


class Exchange:
    """A request in progress: its first bytes were sent, or some of its response was read."""

    def __init__(self, edge: Edge, head: str, body: bytes = b"") -> None:
        self.connection = socket.create_connection(("127.0.0.1", edge.port), timeout=DEADLINE)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.connection.sendall(f"{head}\r\nHost: h\r\nConnection: close\r\n".encode())
        self._rest, self.received = b"", b""
        if body:
            self.connection.sendall(f"Content-Length: {len(body)}\r\n\r\n".encode() + body[: len(body) // 2])
            self._rest = body[len(body) // 2 :]
        else:
            self.connection.sendall(b"\r\n")
            while len(self.received) < 100_000:
                self.received += self._read()

    def _read(self) -> bytes:
        data = self.connection.recv(65536)
        assert data, f"cut after {len(self.received)} bytes"
        return data

    def finish(self) -> bytes:
        """Sends the rest. Returns the whole response."""
        self.connection.sendall(self._rest)
        while data := self.connection.recv(2**20):
            self.received += data
        self.connection.close()
        return self.received


def download(edge: Edge, blob: str, **claims: str) -> Exchange:
    token = edge.token("link", file=blob, jti=uuid.uuid4().hex[:16], **claims)
    return Exchange(edge, f"GET /d/{token}/n HTTP/1.1")


def test_nothing_under_way_is_cut(edge: Edge, storage: StubStorage) -> None:
    go = threading.Event()

    def handle(request: Request) -> Answer:
        if request.method == "PUT":
            return Answer(200, {"ETag": '"x"'})
        return ranged(CONTENT)(request)

    def late() -> APIAnswer:
        go.wait(DEADLINE)
        return APIAnswer()

    storage.handle = handle
    local, proxied, cached = (uuid.uuid4().hex for _ in range(3))
    edge.store(local, CONTENT)
    edge.aim(proxied, size=len(CONTENT), uri=storage.url("proxied"), storage="s3")
    edge.aim(cached, size=len(CONTENT), uri=storage.url("cached"), storage="s3", cached=True)
    upload = CLAIMS["part"]["upload"]
    (edge.storage / "parts" / upload).mkdir()
    part = edge.token("part", size=4 * MIB, part=1)
    onward = edge.token("part", size=4 * MIB, part=2, storage="main", to=storage.url("part"), sha256="ab" * 32)
    edge.api.answer = lambda seen: late() if seen.method == "POST" else APIAnswer()

    downloads = {
        "local": download(edge, local),
        "proxied": download(edge, proxied),
        "cached": download(edge, cached),
        "paced": download(edge, local, **new_user("slow")),
        "paced and proxied": download(edge, proxied, **new_user("slow")),
        "paced and cached": download(edge, cached, **new_user("slow")),
    }
    parts = {
        "local part": Exchange(edge, f"PUT /p/{part} HTTP/1.1", CONTENT[: 4 * MIB]),
        "proxied part": Exchange(edge, f"PUT /p/{onward} HTTP/1.1", CONTENT[: 4 * MIB]),
    }
    bearer = edge.bearer()["Authorization"]
    call = Exchange(edge, f"POST /api/v1/files HTTP/1.1\r\nAuthorization: {bearer}", b"{}" * 1000)
    old = edge.reload()
    # the new workers serve while the old ones finish
    assert edge.get("/healthz").status == 200
    go.set()
    assert edge.workers() & old, "the old workers have ended although requests are in progress"
    for what, request in downloads.items():
        reply = parse(request.finish())
        assert (reply.status, reply.body == CONTENT) == (200, True), what
    for what, request in parts.items():
        assert parse(request.finish()).status in (200, 201, 204), what
    assert (edge.storage / "parts" / upload / "1").read_bytes() == CONTENT[: 4 * MIB]
    assert parse(call.finish()).status == 200
    wait_for(lambda: not edge.workers() & old, "end of the old workers", 30)


def test_a_steady_stream_of_requests_sees_no_reload(edge: Edge) -> None:
    blob = uuid.uuid4().hex
    edge.store(blob, b"content")
    link = f"/d/{edge.token('link', file=blob)}/x"
    statuses: set[int] = set()
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.005):  # below the limits
            statuses.add(edge.get(link).status)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()

    def gone(old: set[int]) -> bool:
        return not edge.workers() & old

    for _ in range(3):
        old = edge.reload()
        wait_for(partial(gone, old), "end of the old workers", 30)
    stop.set()
    for thread in threads:
        thread.join()
    assert statuses == {200}
