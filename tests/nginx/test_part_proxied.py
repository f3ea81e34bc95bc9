"""PUT /p/<part token> for a part that is passed on to a proxied storage (SLUICE_S3_VIA_EDGE)."""

import socket
from collections.abc import Callable
from contextlib import nullcontext, suppress

import pytest

from tests.nginx.edge import Edge, Reply, parse
from tests.nginx.proxied import BODY, EVIL, SHA256, Part, impatient
from tests.nginx.stub_api import wait_for
from tests.nginx.stub_storage import Answer, Request, StubStorage

MakeEdge = Callable[..., Edge]


@pytest.fixture(autouse=True)
def stored(storage: StubStorage) -> None:
    storage.handle = lambda request: Answer(200, {"ETag": '"md5"', "x-amz-request-id": "tx1", "X-Evil": EVIL})


@pytest.fixture
def part(edge: Edge, storage: StubStorage) -> Part:
    return Part(edge, storage.url())


class TestAPart:
    def test_is_passed_on_with_a_fixed_list_of_headers(self, storage: StubStorage, part: Part) -> None:
        reply = part.put(
            Authorization="Bearer x",
            Cookie="a=b",
            Content_Type="text/html",
            Content_Encoding="gzip",
            Content_MD5="x",
            X_Amz_Acl="public-read",
            X_Amz_Copy_Source="/bucket/other",
            X_Amz_Content_Sha256="0" * 64,
            X_Amz_Meta_A="b",
            X_Amz_Server_Side_Encryption_Customer_Key="k",
            Accept_Encoding="gzip",
            Date="Sat, 01 Jan 2000 00:00:00 GMT",
            If_None_Match="*",
        )
        assert (reply.status, reply.body) == (200, b"")
        assert reply.headers["ETag"] == '"md5"'
        ours = {"X-Request-Id", "X-Content-Type-Options", "Referrer-Policy", "Content-Security-Policy"}
        assert set(reply.headers) == {"Server", "Date", "Connection", "Content-Length", "ETag"} | ours
        (seen,) = storage.seen
        assert (seen.method, seen.body) == ("PUT", BODY)
        assert seen.target == storage.url().removeprefix(storage.base)
        assert seen.names == {"host", "content-length", "content-type", "x-amz-content-sha256"}
        assert seen.header("Host") == f"127.0.0.1:{storage.port}"
        assert seen.header("Content-Type") == "application/octet-stream"
        assert seen.header("X-Amz-Content-Sha256") == SHA256

    def test_whose_hash_is_not_bound_sends_none(self, edge: Edge, storage: StubStorage) -> None:
        assert Part(edge, storage.url(), sha256="").put().status == 200
        assert storage.seen[0].names == {"host", "content-length", "content-type"}

    def test_is_streamed_while_it_comes(self, edge: Edge) -> None:
        """The storage has the first half before the client sends the second."""
        size = 2**22
        with socket.create_server(("127.0.0.1", 0)) as server:
            part = Part(edge, f"http://127.0.0.1:{server.getsockname()[1]}/key", size=size)
            with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as client:
                client.sendall(part.head(f"Content-Length: {size}") + b"a" * (size // 2))
                server.settimeout(10)
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(10)
                    received = b""
                    while received.count(b"a", received.find(b"\r\n\r\n")) < size // 2:
                        received += connection.recv(2**20)
                    client.sendall(b"b" * (size // 2))
                    while received.count(b"b", received.find(b"\r\n\r\n") + 4 + size // 2) < size // 2:
                        received += connection.recv(2**20)
                    connection.sendall(b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\n\r\n')
                    assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        assert not list((edge.folder / "nginx" / "body").rglob("*/*"))
        assert not list((edge.storage / "incoming").iterdir())

    def test_may_expect_100_continue(self, edge: Edge, storage: StubStorage, part: Part) -> None:
        with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as client:
            client.sendall(part.head(f"Content-Length: {len(BODY)}", "Expect: 100-continue", "Connection: close"))
            assert client.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(BODY)
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
        assert storage.seen[0].body == BODY

    def test_with_the_longest_token(self, edge: Edge, storage: StubStorage) -> None:
        long = storage.url() + "&X-Amz-Security-Token=" + "t" * 2600
        part = Part(edge, long)
        assert 3900 < len(part.token) <= 4096
        assert part.put().status == 200
        assert storage.seen[0].target == long.removeprefix(storage.base)
        reply = Part(edge, long + "t" * 400).put()
        assert (reply.status, reply.code) == (403, "PART_URL_INVALID")


class TestNothingReachesTheStorage:
    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "COPY", "OPTIONS"])
    def test_by_another_method(self, storage: StubStorage, part: Part, method: str) -> None:
        reply = part.put(method=method)
        assert (reply.status, reply.headers["Allow"]) == (405, "PUT")
        assert storage.seen == []

    @pytest.mark.parametrize("length", [0, 1, len(BODY) - 1, len(BODY) + 1])
    def test_of_another_length(self, storage: StubStorage, part: Part, length: int) -> None:
        reply = part.put((BODY + b"x")[:length], Content_Length=str(length))
        assert (reply.status, reply.code) == (400, "LENGTH_MISMATCH")
        assert storage.seen == []

    def test_of_no_length(self, edge: Edge, storage: StubStorage, part: Part) -> None:
        for lines in (("Transfer-Encoding: chunked",), ()):
            reply = parse(edge.raw(part.head(*lines, "Connection: close"), b"0\r\n\r\n"))
            assert (reply.status, reply.code) == (411, "LENGTH_REQUIRED")
        assert storage.seen == []

    def test_when_the_url_has_expired_or_is_not_ours(self, edge: Edge, storage: StubStorage) -> None:
        for part, code in (
            (Part(edge, storage.url(), exp=1), "PART_URL_EXPIRED"),
            (Part(edge, storage.url(), part=-1), "PART_URL_INVALID"),
        ):
            reply = part.put()
            assert (reply.status, reply.code) == (403, code)
        forged = Part(edge, storage.url())
        forged.token = forged.token[:-3] + "AAA"
        assert forged.put().code == "PART_URL_INVALID"
        assert storage.seen == []

    def test_when_the_user_was_revoked(self, make_edge: MakeEdge, storage: StubStorage) -> None:
        edge = make_edge()
        part = Part(edge, storage.url(), sub="9" * 32, gen=1)
        edge.api.revoke("user", "9" * 32, 2)
        reply = part.put()
        assert (reply.status, reply.code) == (403, "PART_URL_REVOKED")
        assert storage.seen == []

    @pytest.mark.parametrize("to", ["", "/key", "ftp://127.0.0.1/x", "http://127.0.0.1:{port}/a b", "unix:/x"])
    def test_when_its_place_is_no_plain_url(self, edge: Edge, storage: StubStorage, to: str) -> None:
        reply = Part(edge, to.replace("{port}", str(storage.port))).put()
        assert (reply.status, reply.code) == (501, "STORAGE_UNSUPPORTED")
        assert storage.seen == []

    @pytest.mark.parametrize("claims", [{"exp": 1}, {"size": 7}])
    def test_and_no_body_is_asked_for(self, edge: Edge, storage: StubStorage, claims: dict[str, int]) -> None:
        part = Part(edge, storage.url(), **claims)
        with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as client:
            client.sendall(part.head(f"Content-Length: {len(BODY)}", "Expect: 100-continue"))
            assert client.recv(4096).startswith(b"HTTP/1.1 4")


ANSWERS = [
    (400, 400, "PART_HASH_MISMATCH"),
    (404, 409, "UPLOAD_NOT_OPEN"),
    (403, 503, "STORAGE_UNAVAILABLE"),
    (411, 503, "STORAGE_UNAVAILABLE"),
    (416, 503, "STORAGE_UNAVAILABLE"),
    (418, 503, "STORAGE_UNAVAILABLE"),
    (500, 503, "STORAGE_UNAVAILABLE"),
    (503, 503, "STORAGE_UNAVAILABLE"),
    (507, 503, "STORAGE_UNAVAILABLE"),
    (301, 503, "STORAGE_UNAVAILABLE"),
    (204, 503, "STORAGE_UNAVAILABLE"),
    (206, 503, "STORAGE_UNAVAILABLE"),
]


class TestTheStoragesAnswer:
    def check(self, reply: Reply, status: int, code: str) -> None:
        assert (reply.status, reply.code) == (status, code)
        assert EVIL not in str(reply.headers) + reply.body.decode()

    @pytest.mark.parametrize(("status", "ours", "code"), ANSWERS)
    @pytest.mark.parametrize("size", [len(BODY), 2**23])
    @pytest.mark.parametrize("reads", [True, False])
    def test_becomes_ours(
        self, edge: Edge, storage: StubStorage, status: int, ours: int, code: str, size: int, reads: bool
    ) -> None:
        storage.reads = reads
        body = EVIL.encode() if status != 204 else b""
        storage.handle = lambda request: Answer(status, {"X-Evil": EVIL, "Location": EVIL, "ETag": '"x"'}, body)
        part = Part(edge, storage.url(), size=size)
        allowed = {(ours, code)} | (set() if reads else {(503, "STORAGE_UNAVAILABLE")})
        for _ in range(2):
            # A storage that closes during the body may lose its response; nginx closes after invalid responses.
            with suppress(ConnectionError) if not reads and status in (204, 206, 418) else nullcontext():
                reply = part.put(bytes(size))
                assert (reply.status, reply.code) in allowed
                assert EVIL not in str(reply.headers) + reply.body.decode()

    def test_that_does_not_come(self, make_edge: MakeEdge, storage: StubStorage) -> None:
        edge = make_edge(change={"snippets/storage_put.conf": impatient})

        def hang(request: Request) -> Answer:
            storage.release.wait(20)
            return Answer()

        storage.handle = hang
        self.check(Part(edge, storage.url()).put(), 504, "STORAGE_TIMEOUT")

    def test_when_nobody_listens(self, edge: Edge) -> None:
        self.check(Part(edge, "http://127.0.0.1:9/key").put(), 503, "STORAGE_UNAVAILABLE")

    def test_when_it_dies_in_mid_body(self, edge: Edge, storage: StubStorage) -> None:
        storage.reads = False
        storage.handle = lambda request: Answer(0)
        self.check(Part(edge, storage.url(), size=2**24).put(bytes(2**24)), 503, "STORAGE_UNAVAILABLE")
        storage.reads = True
        storage.handle = lambda request: Answer(200)
        assert Part(edge, storage.url()).put().status == 200

    def test_is_not_waited_for_when_the_client_goes_away(self, edge: Edge, storage: StubStorage, part: Part) -> None:
        with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as client:
            client.sendall(part.head(f"Content-Length: {len(BODY)}") + BODY[:-1])
            wait_for(lambda: storage.connections, "connection to the storage")
        wait_for(lambda: storage.seen, "end of the body")
        assert len(storage.seen[0].body) < len(BODY)


def test_no_log_contains_a_signature(make_edge: MakeEdge, storage: StubStorage) -> None:
    edge, signature = make_edge(), "5ecre7" * 8
    part = Part(edge, storage.url(signature=signature))
    reply = part.put()
    storage.handle = lambda request: Answer(500)
    assert part.put().code == "STORAGE_UNAVAILABLE"
    with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as client:
        client.sendall(part.head(f"Content-Length: {len(BODY)}") + b"x")
    line = edge.log_line(reply.headers["X-Request-Id"])
    assert (line["route"], line["path"], line["status"], line["method"]) == ("part", "", 200, "PUT")
    wait_for(lambda: "a storage could not take a part of upload" in edge.error_log.read_text(), "line in the error log")
    logs = edge.access_log.read_text() + edge.error_log.read_text()
    assert signature not in logs
    assert part.token[:40] not in logs
