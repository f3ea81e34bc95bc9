"""A tier's rate applies to its user: over all connections, storages and parts. And other events in paced downloads."""

import http.client
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from api.core.tiers import Tier
from tests.nginx.edge import Edge
from tests.nginx.stub_api import wait_for
from tests.nginx.stub_storage import Answer, StubStorage, ranged
from tests.nginx.tiers import document, new_user

MIB = 1024**2
RATE = 4 * MIB
BLOB = "b" * 32
SIZE = 64 * MIB


@pytest.fixture(scope="module")
def pacing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """An edge with a tier of 4 MiB per second, one with a low rate, and a large file."""
    tiers = document(slow=Tier(rate=RATE, connections=64), tiny=Tier(rate=64 * 1024), few=Tier(connections=2))
    edge = Edge(tmp_path_factory.mktemp("pacing"), tiers=tiers)
    edge.store(BLOB, b"")
    path = edge.storage / "objects" / "00000000" / BLOB[:2] / BLOB
    path.write_bytes(os.urandom(MIB) * (SIZE // MIB))
    edge.aim(BLOB, size=SIZE, uri=f"/00000000/{BLOB[:2]}/{BLOB}")
    yield edge
    edge.stop()


class Download:
    """A download in a separate thread, whose bytes are counted as they arrive."""

    def __init__(self, edge: Edge, blob: str = BLOB, *, headers: dict[str, str] | None = None, **claims: Any) -> None:
        token = edge.token("link", **{"file": blob, "jti": uuid.uuid4().hex[:16], **claims})
        self.received = 0
        self.status = 0
        self.ended = False
        self.error: Exception | None = None
        self.connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=15)
        self._path, self._headers = f"/d/{token}/n", headers or {}
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.connection.request("GET", self._path, headers=self._headers)
            response = self.connection.getresponse()
            self.status = response.status
            with response:
                while data := response.read1(65536):
                    self.received += len(data)
                if response.length:
                    raise http.client.IncompleteRead(b"", response.length)
        except Exception as ex:  # including the result of stop()
            self.error = ex
        finally:
            self.connection.close()
            self.ended = True

    def stop(self) -> None:
        with suppress(OSError, AttributeError):
            self.connection.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join(10)


def rate_of(downloads: list[Download], seconds: float) -> float:
    """Bytes per second over some downloads, from now on."""
    before, began = sum(item.received for item in downloads), time.monotonic()
    time.sleep(seconds)  # the time of the measurement
    return (sum(item.received for item in downloads) - before) / (time.monotonic() - began)


def test_eight_connections_of_a_user_share_the_rate_and_no_other_user_is_slowed(pacing: Edge) -> None:
    user, other = new_user("slow"), new_user("slow")
    piece = SIZE // 8
    ranges = [{"Range": f"bytes={n * piece}-{(n + 1) * piece - 1}"} for n in range(8)]
    eight = [Download(pacing, headers=header, **user) for header in ranges]
    wait_for(lambda: all(item.received for item in eight), "first bytes")
    time.sleep(1)  # until the first burst has passed, whose end nothing tells
    assert 0.7 * RATE <= rate_of(eight, 2) <= 1.1 * RATE
    alone = [Download(pacing, **other)]
    wait_for(lambda: alone[0].received, "first bytes")
    time.sleep(0.5)  # until the rates have settled; nothing tells it
    both = rate_of(eight + alone, 2)
    assert 0.7 * RATE <= rate_of(alone, 2) <= 1.1 * RATE
    assert both <= 2.2 * RATE
    shares = sorted(item.received for item in eight)
    assert shares[-1] <= 1.5 * shares[0], "each has its share"
    began = time.monotonic()
    assert len(pacing.get(f"/d/{pacing.token('link', file=BLOB)}/n").body) == SIZE, "no rate, no wait"
    assert time.monotonic() - began < 8
    for item in eight + alone:
        assert item.status in (200, 206)
        item.stop()


def test_whoever_is_left_has_it_all_again(pacing: Edge) -> None:
    user = new_user("slow")
    four = [Download(pacing, **user) for _ in range(4)]
    wait_for(lambda: all(item.received for item in four), "first bytes")
    for item in four[1:]:
        item.stop()
    time.sleep(0.5)  # until the rates have settled; nothing tells it
    assert 0.7 * RATE <= rate_of(four[:1], 2) <= 1.1 * RATE
    four[0].stop()


def test_the_bytes_are_right(pacing: Edge) -> None:
    path = pacing.storage / "objects" / "00000000" / BLOB[:2] / BLOB
    for first, last in ((0, 3 * MIB), (5, 5), (SIZE - 100_000, SIZE - 1)):
        token = pacing.token("link", file=BLOB, **new_user("slow"))
        reply = pacing.get(f"/d/{token}/n", Range=f"bytes={first}-{last}")
        assert reply.status == 206
        assert reply.headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
        assert len(reply.headers.get_all("ETag", [])) == len(reply.headers.get_all("Content-Type", [])) == 1
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        with path.open("rb") as file:
            file.seek(first)
            assert reply.body == file.read(last - first + 1)


def test_what_sends_no_bytes_is_not_paced(pacing: Edge) -> None:
    etag = pacing.aim(BLOB, size=SIZE, uri=f"/00000000/{BLOB[:2]}/{BLOB}")
    path = f"/d/{pacing.token('link', file=BLOB, **new_user('tiny'))}/n"
    began = time.monotonic()
    head = pacing.ask("HEAD", path)
    assert (head.status, head.headers["Content-Length"]) == (200, str(SIZE))
    assert pacing.ask("HEAD", path, headers={"Range": "bytes=0-9"}).status == 206
    assert pacing.get(path, If_None_Match=etag).status == 304
    assert pacing.get(path, Range=f"bytes={SIZE}-").status == 416
    assert time.monotonic() - began < 2


def test_a_client_that_does_not_read_delays_no_other_client(pacing: Edge) -> None:
    user = new_user("slow")
    token = pacing.token("link", file=BLOB, **user)
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect(("127.0.0.1", pacing.port))
        lazy.sendall(f"GET /d/{token}/n HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        busy = [Download(pacing, **user)]
        wait_for(lambda: busy[0].received > MIB, "bytes")
        time.sleep(1.5)  # until the first burst has passed, whose end nothing tells
        assert rate_of(busy, 2) >= 0.7 * RATE
        busy[0].stop()


def test_concurrent_downloads_are_limited_and_released_at_their_end(pacing: Edge) -> None:
    user = new_user("few")
    slow = [{"Range": f"bytes={n}-"} for n in range(2)]

    def held() -> socket.socket:
        """A download that is not read, so it does not end."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", pacing.port))
        token = pacing.token("link", file=BLOB, **user)
        connection.sendall(f"GET /d/{token}/n HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
        return connection

    two = [held() for _ in slow]
    path = f"/d/{pacing.token('link', file=BLOB, **user)}/n"
    reply = pacing.get(path, Range="bytes=0-9")
    assert (reply.status, reply.code) == (429, "CONNECTIONS_LIMITED")
    assert reply.headers["Retry-After"] == "1"
    assert pacing.ask("HEAD", path).status == 200, "sends nothing, so it costs nothing"
    other = pacing.token("link", file=BLOB, **new_user("few"))
    assert pacing.get(f"/d/{other}/n", Range="bytes=0-9").status == 206
    for connection in two:
        connection.close()
    wait_for(lambda: pacing.get(path, Range="bytes=0-9").status == 206, "room")
    for _ in range(20):
        assert pacing.get(path, Range="bytes=0-9").status == 206


def test_a_killed_workers_downloads_are_forgotten(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge(tiers=document(few=Tier(connections=2, rate=64 * 1024)))
    edge.store(BLOB, b"x" * 4 * MIB)
    user = new_user("few") | {"jti": uuid.uuid4().hex}
    two = [Download(edge, **user, size=4 * MIB) for _ in range(2)]
    wait_for(lambda: all(item.received for item in two), "bytes")
    path = f"/d/{edge.token('link', file=BLOB, **user)}/n"
    assert edge.get(path, Range="bytes=0-9").status == 429
    assert edge.process
    for pid in children(edge.process.pid):
        os.kill(pid, 9)
    wait_for(lambda: all(item.ended for item in two), "cut connections")

    def passes() -> bool:
        with suppress(OSError, http.client.HTTPException):
            return edge.get(path, Range="bytes=0-9").status == 206
        return False

    wait_for(passes, "room after the workers were killed")


def has_ended(pid: int) -> bool:
    """Whether a process has ended, or waits to be reaped by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


class TestProxied:
    """Proxied storages, with a rate."""

    @pytest.fixture
    def blob(self, pacing: Edge, storage: StubStorage) -> str:
        blob = uuid.uuid4().hex
        storage.handle = ranged(b"0123456789abcdef" * (SIZE // 16))
        pacing.aim(blob, size=SIZE, uri=storage.url(), storage="s3")
        return blob

    def test_share_the_rate_too(self, pacing: Edge, blob: str) -> None:
        user = new_user("slow")
        four = [Download(pacing, blob, **user) for _ in range(2)] + [Download(pacing, **user) for _ in range(2)]
        wait_for(lambda: all(item.received for item in four), "first bytes")
        time.sleep(1)  # until the first burst has passed, whose end nothing tells
        assert 0.7 * RATE <= rate_of(four, 2) <= 1.1 * RATE
        for item in four:
            item.stop()

    def test_the_bytes_are_right(self, pacing: Edge, blob: str, storage: StubStorage) -> None:
        token = pacing.token("link", file=blob, type="text/x-thing", **new_user("slow"))
        reply = pacing.get(f"/d/{token}/n", Range=f"bytes=5-{MIB}")
        assert (reply.status, reply.body) == (206, (b"0123456789abcdef" * (MIB // 16 + 1))[5 : MIB + 1])
        assert reply.headers.get_all("Content-Type") == ["text/x-thing"]
        assert "x-amz-request-id" not in reply.headers

    def test_that_die_in_the_middle_end_the_response(self, pacing: Edge, blob: str, storage: StubStorage) -> None:
        storage.handle = lambda request: Answer(200, {}, b"x" * MIB, length=SIZE, stop=MIB)
        item = Download(pacing, blob, **new_user("slow"))
        wait_for(lambda: item.ended, "end")
        assert item.status == 200
        assert item.error is not None, "too short, and the client notices"
        assert item.received <= MIB

    @pytest.mark.parametrize(("status", "wanted"), [(403, 503), (404, 503), (500, 503), (301, 503)])
    def test_that_refuse_are_one_of_the_projects_errors(
        self, pacing: Edge, blob: str, storage: StubStorage, status: int, wanted: int
    ) -> None:
        storage.handle = lambda request: Answer(status, {}, b"the store's own words")
        token = pacing.token("link", file=blob, **new_user("slow"))
        reply = pacing.get(f"/d/{token}/n")
        assert (reply.status, reply.code) == (wanted, "STORAGE_UNAVAILABLE")


class TestParts:
    """A part waits for its budget before it is accepted."""

    def put(self, edge: Edge, size: int, **claims: Any) -> tuple[int, float]:
        upload = uuid.uuid4().hex
        (edge.storage / "parts" / upload).mkdir()
        began = time.monotonic()
        reply = edge.ask("PUT", f"/p/{edge.token('part', upload=upload, size=size, **claims)}", body=b"x" * size)
        return reply.status, time.monotonic() - began

    def test_take_as_long_as_the_rate_says(self, pacing: Edge) -> None:
        user = new_user("slow")
        status, took = self.put(pacing, 8 * MIB, **user)
        assert status < 300
        assert took >= 1.5

    def test_and_downloads_share_one_rate(self, pacing: Edge) -> None:
        user = new_user("slow")
        download = [Download(pacing, **user)]
        wait_for(lambda: download[0].received > MIB, "bytes")
        before, began = download[0].received, time.monotonic()
        status, took = self.put(pacing, 6 * MIB, **user)
        moved = download[0].received - before + 6 * MIB
        assert status < 300
        assert moved / (time.monotonic() - began) <= 1.15 * RATE
        assert took > 2, "the download had its half"
        download[0].stop()

    def test_of_users_without_a_rate_do_not_wait(self, pacing: Edge) -> None:
        status, took = self.put(pacing, 8 * MIB, **new_user("default"))
        assert status < 300
        assert took < 2

    def test_too_far_ahead_are_told_to_wait(self, make_edge: Callable[..., Edge]) -> None:
        edge = make_edge(
            tiers=document(tiny=Tier(rate=64 * 1024)),
            change={"snippets/lua.conf": lambda text: text},
        )
        user = new_user("tiny")
        token = edge.token("part", upload=uuid.uuid4().hex, size=64 * MIB, **user)
        head = f"PUT /p/{token} HTTP/1.1\r\nHost: h\r\nContent-Length: {64 * MIB}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", edge.port)) as first:
            first.sendall(head)
            # after twenty seconds it is accepted on credit; from then on no other part is
            wait_for(lambda: self.put(edge, 1024, **user)[0] == 429, "refusal", 60)
        upload = uuid.uuid4().hex
        (edge.storage / "parts" / upload).mkdir()
        reply = edge.ask("PUT", f"/p/{edge.token('part', upload=upload, size=10, **user)}", body=b"x" * 10)
        assert (reply.status, reply.code) == (429, "BANDWIDTH_LIMITED")
        assert 800 < int(reply.headers["Retry-After"]) < 1024


def test_a_reload_cuts_no_request(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge(tiers=document(slow=Tier(rate=MIB)))
    content = os.urandom(4 * MIB)
    edge.store(BLOB, content)
    user = new_user("slow")
    two = [Download(edge, size=len(content), **user) for _ in range(2)]
    wait_for(lambda: all(item.received for item in two), "first bytes")
    assert edge.process
    edge.process.send_signal(signal.SIGHUP)
    wait_for(lambda: all(item.ended for item in two), "the end", 30)
    assert [(item.received, item.error) for item in two] == [(len(content), None)] * 2


def test_no_other_client_is_served_by_the_inner_socket(pacing: Edge) -> None:
    path = str(pacing.socket_folder / "edge.sock")
    for secret in ("", "X-Sluice-Inner: \r\n", f"X-Sluice-Inner: {'0' * 32}\r\n"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            connection.sendall(f"GET /{BLOB} HTTP/1.0\r\nHost: edge\r\n{secret}\r\n".encode())
            answer = b""
            while data := connection.recv(65536):
                answer += data
        assert answer.startswith(b"HTTP/1.1 404 ")
    for path in ("/_paced", f"/{BLOB}"):
        assert pacing.get(path).status == 404


def test_a_killed_nginx_starts_again_by_its_socket(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge(tiers=document(slow=Tier(rate=RATE)))
    edge.store(BLOB, b"content")
    assert edge.process
    workers = children(edge.process.pid)
    for pid in (edge.process.pid, *workers):
        os.kill(pid, 9)
    edge.process.wait()
    # until then they hold the port, and reset new connections
    wait_for(lambda: all(has_ended(pid) for pid in workers), "end of the workers")
    assert (edge.socket_folder / "edge.sock").exists()
    edge.start()
    assert edge.get(f"/d/{edge.token('link', file=BLOB, tier='slow')}/n").body == b"content"
