"""Downloads from a proxied storage: requests that reach it, responses that pass, and failures."""

import hashlib
import http.client
import re
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.nginx import stub_storage
from tests.nginx.edge import Edge, Reply
from tests.nginx.proxied import CONTENT, EVIL, SIZE, download, impatient
from tests.nginx.stub_api import Answer as APIAnswer
from tests.nginx.stub_api import wait_for
from tests.nginx.stub_storage import Answer, Request, StubStorage, ranged

MakeEdge = Callable[..., Edge]


@pytest.fixture(autouse=True)
def content(storage: StubStorage) -> None:
    storage.handle = ranged(CONTENT)


@pytest.fixture
def blob(edge: Edge, storage: StubStorage) -> str:
    """A blob that the storage has."""
    blob = uuid.uuid4().hex
    edge.aim(blob, size=SIZE, uri=storage.url(), storage="s3")
    return blob


class TestWhatReachesTheStorage:
    @pytest.mark.parametrize("kind", ["s3", "oss"])
    def test_is_the_signed_url_and_a_fixed_list_of_headers(self, edge: Edge, storage: StubStorage, kind: str) -> None:
        blob = uuid.uuid4().hex
        edge.aim(blob, size=SIZE, uri=storage.url(), storage=kind)
        headers = {"Authorization": "Bearer x", "Cookie": "a=b", "Accept_Encoding": "gzip", "Range": "bytes=5-"}
        more = {"X_Amz_Acl": "public-read", "If_None_Match": '"x"', "X_Forwarded_For": "1.2.3.4", "User_Agent": "u"}
        assert download(edge, blob, **headers, **more).status == 206
        assert download(edge, blob).status == 200
        part, whole = storage.seen
        for seen in storage.seen:
            assert (seen.method, seen.body) == ("GET", b"")
            assert seen.target == storage.url().removeprefix(storage.base)
            assert seen.header("Host") == f"127.0.0.1:{storage.port}"
        oss = {"x-oss-range-behavior"} if kind == "oss" else set()
        assert part.names == {"host", "range"} | oss
        assert whole.names == {"host"} | oss
        assert part.header("Range") == f"bytes=5-{SIZE - 1}"
        assert part.header("X-Oss-Range-Behavior") == ("standard" if kind == "oss" else None)

    def test_is_never_a_range_past_the_end(self, edge: Edge, storage: StubStorage, blob: str) -> None:
        last = SIZE - 1
        for text, sent in (("0-999999999", f"0-{last}"), ("-999999999", f"0-{last}"), ("-1", f"{last}-{last}")):
            assert download(edge, blob, Range=f"bytes={text}").status == 206
            assert storage.seen[-1].header("Range") == f"bytes={sent}"

    def test_comes_on_connections_that_are_kept(self, edge: Edge, storage: StubStorage, blob: str) -> None:
        assert {download(edge, blob).body for _ in range(30)} == {CONTENT}
        # At most one for each of nginx's workers.
        assert len({seen.connection for seen in storage.seen}) <= 8
        assert len(storage.seen) == 30

    def test_comes_again_when_a_kept_connection_was_just_closed(
        self, edge: Edge, storage: StubStorage, blob: str
    ) -> None:
        """The storage closes the connection after each response, without saying so."""

        def handle(request: Request) -> Answer:
            answer = ranged(CONTENT)(request)
            answer.stop = SIZE
            return answer

        storage.handle = handle
        for _ in range(20):
            assert download(edge, blob).body == CONTENT

    def test_answers_with_nothing_that_comes_through_but_the_bytes(
        self, edge: Edge, storage: StubStorage, blob: str
    ) -> None:
        ours = {
            "Server", "Date", "Connection", "X-Request-Id", "Content-Type", "Content-Length", "ETag",
            "Content-Disposition", "Cache-Control", "X-Content-Type-Options", "Content-Security-Policy",
            "Referrer-Policy",
        }  # fmt: skip
        whole, part = download(edge, blob), download(edge, blob, Range="bytes=0-1")
        assert set(whole.headers) == ours | {"Accept-Ranges"}
        assert set(part.headers) == ours | {"Content-Range"}
        for reply in (whole, part):
            assert len(reply.headers) == len(set(reply.headers))
            assert reply.headers["ETag"] == f'"{hashlib.sha256(blob.encode()).hexdigest()}"'
            assert reply.headers["Content-Type"] == "text/x-thing"
            assert reply.headers["Content-Disposition"].startswith("attachment")

    def test_is_nothing_for_head_and_not_modified(self, edge: Edge, storage: StubStorage, blob: str) -> None:
        etag = download(edge, blob).headers["ETag"]
        assert download(edge, blob, "HEAD").status == 200
        assert download(edge, blob, "HEAD", Range="bytes=0-1").status == 206
        assert download(edge, blob, If_None_Match=etag).status == 304
        assert download(edge, blob, If_Match='"x"').status == 412
        assert download(edge, blob, Range=f"bytes={SIZE}-").status == 416
        assert len(storage.seen) == 1


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://127.0.0.1/key",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "//127.0.0.1/key",
        "/key",
        "http:///key",
        "http://127.0.0.1:{port}",
        "http://user@127.0.0.1:{port}/key",
        "http://127.0.0.1:{port}/key#fragment",
        "http://127.0.0.1:{port}/a b",
        "http://127.0.0.1:{port}/a\r\nX-Evil: 1",
        "http://127.0.0.1:{port}/a\0b",
        "http://127.0.0.1:{port}:1/key",
        "http://127.0.0.1:{port}x/key",
        "http://[::1/key",
        "unix:/tmp/socket",
        "",
    ],
)
def test_a_target_that_is_no_plain_url_is_not_asked(edge: Edge, storage: StubStorage, uri: str) -> None:
    blob = uuid.uuid4().hex
    edge.aim(blob, size=SIZE, uri=uri.replace("{port}", str(storage.port)), storage="s3")
    reply = download(edge, blob)
    assert (reply.status, reply.code) == (501, "STORAGE_UNSUPPORTED")
    assert storage.seen == []


class TestAFailure:
    @pytest.mark.parametrize(
        "status", [204, 205, 226, 301, 304, 307, 400, 401, 402, 409, 418, 429, 451, 500, 503, 507, 599]
    )
    def test_in_the_storages_status_is_ours(self, edge: Edge, storage: StubStorage, blob: str, status: int) -> None:
        headers = {"Location": "http://evil/", "WWW-Authenticate": "Evil", "Retry-After": "77", "X-Evil": EVIL}
        body = EVIL.encode() if status not in (204, 304) else b""
        storage.handle = lambda request: Answer(status, headers, body, length=None if body else 0)
        for wanted in ({}, {"Range": "bytes=0-1"}):
            self.check(download(edge, blob, **wanted))

    def check(self, reply: Reply, status: int = 503, code: str = "STORAGE_UNAVAILABLE") -> None:
        assert (reply.status, reply.code) == (status, code)
        text = str(reply.headers) + reply.body.decode()
        for word in (EVIL, "evil", "Evil"):
            assert word not in text
        assert set(reply.headers) <= {
            "Server", "Date", "Content-Type", "Content-Length", "Connection", "X-Request-Id", "Cache-Control",
            "Retry-After", "X-Content-Type-Options", "Referrer-Policy", "Content-Security-Policy",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("wanted", "answer"),
        [
            ("", Answer(206, {"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}"}, CONTENT)),
            ("", Answer(200, {}, CONTENT[:-1])),
            ("", Answer(200, {}, CONTENT + b"x")),
            ("", Answer(200, {}, CONTENT, length=-1)),
            ("", Answer(200, {}, b"")),
            ("bytes=5-9", Answer(200, {}, CONTENT)),
            ("bytes=5-9", Answer(200, {}, CONTENT[5:10])),
            ("bytes=5-9", Answer(206, {}, CONTENT[5:10])),
            ("bytes=5-9", Answer(206, {"Content-Range": f"bytes 5-9/{SIZE + 1}"}, CONTENT[5:10])),
            ("bytes=5-9", Answer(206, {"Content-Range": "bytes 5-9/*"}, CONTENT[5:10])),
            ("bytes=5-9", Answer(206, {"Content-Range": f"bytes 6-10/{SIZE}"}, CONTENT[6:11])),
            ("bytes=5-9", Answer(206, {"Content-Range": f"bytes 5-9/{SIZE}"}, CONTENT[5:11])),
            ("bytes=5-9", Answer(206, {"Content-Range": f"bytes 5-9/{SIZE}"}, CONTENT[5:10], length=-1)),
            ("bytes=5-9", Answer(416, {"Content-Range": f"bytes */{SIZE}"})),
        ],
    )  # fmt: skip
    def test_in_its_response_is_no_200(
        self, edge: Edge, storage: StubStorage, blob: str, wanted: str, answer: Answer
    ) -> None:
        """Bytes that are not exactly the requested ones do not pass."""
        storage.handle = lambda request: answer
        reply = download(edge, blob, **({"Range": wanted} if wanted else {}))
        self.check(reply)
        storage.handle = ranged(CONTENT)
        assert download(edge, blob).body == CONTENT

    def test_to_connect(self, edge: Edge) -> None:
        blob = uuid.uuid4().hex
        with stub_storage.running() as storage:
            storage.handle = ranged(CONTENT)
            edge.aim(blob, size=SIZE, uri=storage.url(), storage="s3")
            assert download(edge, blob).body == CONTENT
        self.check(download(edge, blob))

    def test_before_the_headers(self, edge: Edge, storage: StubStorage, blob: str) -> None:
        storage.handle = lambda request: Answer(200, {"X": "x" * 300_000}, CONTENT)
        self.check(download(edge, blob))

    def test_that_is_silence_before_the_headers(self, make_edge: MakeEdge, storage: StubStorage) -> None:
        edge, blob = make_edge(change={"snippets/storage_get.conf": impatient}), uuid.uuid4().hex
        edge.aim(blob, size=SIZE, uri=storage.url(), storage="s3")

        def hang(request: Request) -> Answer:
            storage.release.wait(20)
            return Answer()

        storage.handle = hang
        self.check(download(edge, blob), 504, "STORAGE_TIMEOUT")
        storage.handle = ranged(CONTENT)
        assert download(edge, blob).body == CONTENT

    @pytest.mark.parametrize("wanted", [{}, {"Range": f"bytes=100-{SIZE - 1}"}])
    @pytest.mark.parametrize("stop", [0, 1, 60_000])
    @pytest.mark.parametrize("then", ["close", "hang"])
    def test_in_mid_stream_is_no_whole_answer(
        self, make_edge: MakeEdge, storage: StubStorage, wanted: dict[str, str], stop: int, then: str
    ) -> None:
        edge, blob = make_edge(change={"snippets/storage_get.conf": impatient}), uuid.uuid4().hex
        edge.aim(blob, size=SIZE, uri=storage.url(), storage="s3")

        def handle(request: Request) -> Answer:
            answer = ranged(CONTENT)(request)
            answer.stop, answer.then = stop, then
            return answer

        storage.handle = handle
        begun = time.monotonic()
        received = b""
        try:
            # nginx may see the end of the body before it has sent its response.
            assert download(edge, blob, **wanted).code == "STORAGE_UNAVAILABLE"
            assert stop == 0
        except http.client.IncompleteRead as ex:
            received = ex.partial
        except ConnectionResetError:
            assert stop == 0
        assert received == (CONTENT[100:] if wanted else CONTENT)[:stop]
        assert time.monotonic() - begun < 5
        storage.handle = ranged(CONTENT)
        assert download(edge, blob).body == CONTENT


@pytest.mark.parametrize("place", ["/_storage/get", "/_storage/put", "/_storage/get?x=http://127.0.0.1/", "/_storage/"])
def test_the_way_to_storages_is_closed_from_outside(edge: Edge, storage: StubStorage, place: str) -> None:
    for method in ("GET", "PUT", "POST"):
        reply = edge.ask(method, place, headers=edge.bearer(), body=b"" if method == "GET" else b"x")
        assert (reply.status, reply.code) == (404, "NOT_FOUND")
    # A misled API could not use it either: Lua has not set a target.
    edge.api.answer = lambda seen: APIAnswer(200, {"X-Accel-Redirect": place})
    reply = edge.ask("GET", "/api/v1/files/1/content", headers=edge.bearer())
    assert reply.status in (404, 500)
    assert reply.code in ("NOT_FOUND", "INTERNAL_ERROR")
    assert storage.seen == []


def test_no_log_holds_a_signature(make_edge: MakeEdge, storage: StubStorage) -> None:
    edge, blob = make_edge(), uuid.uuid4().hex
    signature = "5ecre7" * 8
    edge.aim(blob, size=SIZE, uri=storage.url(signature=signature), storage="s3")
    good = download(edge, blob)
    for handle in (lambda request: Answer(500), lambda request: Answer(200, {}, CONTENT, stop=5)):
        storage.handle = handle
        with suppress(http.client.IncompleteRead):
            download(edge, blob)
    gone = uuid.uuid4().hex
    edge.aim(gone, size=SIZE, uri=f"http://127.0.0.1:9/{signature}?{signature}", storage="s3")
    assert download(edge, gone).code == "STORAGE_UNAVAILABLE"
    line = edge.log_line(good.headers["X-Request-Id"])
    assert (line["route"], line["path"], line["status"], line["bytes_sent"] > SIZE) == ("link", "", 200, True)
    assert re.fullmatch(r"\d\.\d{3}", line["upstream_time"])
    wait_for(
        lambda: re.search(r"storage main could not give file [0-9a-f]{32} \(error\)", edge.error_log.read_text()),
        "line in the error log",
    )
    assert signature not in edge.access_log.read_text() + edge.error_log.read_text()


def test_a_client_that_goes_away_ends_the_storages_answer(edge: Edge, storage: StubStorage) -> None:
    size, blob, written = 2**30, uuid.uuid4().hex, []

    def handle(request: Request) -> Answer:
        written.append(request)
        return Answer(200, {}, bytes(2**26), length=size, stop=2**26)

    storage.handle = handle
    edge.aim(blob, size=size, uri=storage.url(), storage="s3")
    token = edge.token("link", file=blob)
    with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as client:
        client.sendall(f"GET /d/{token}/n HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    # More than the buffers in between hold: it was aborted, otherwise it would still be writing.
    wait_for(lambda: storage.ended == 1, "end of the storage's answer")
