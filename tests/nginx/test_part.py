"""PUT /p/<part token>: one part of an upload to local storage."""

import json
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.nginx.edge import Edge, parse
from tests.nginx.stub_api import wait_for
from tests.vectors import make_tokens

VECTORS = json.loads(make_tokens.FILE.read_text())
INVALID = [vector for vector in VECTORS["invalid"] if vector["purpose"] == "part"]

# In a path these are no segment, the parent folder, and two segments.
NO_SEGMENT = {"empty", "dots", "standard alphabet"}


@pytest.fixture
def upload(edge: Edge) -> Iterator[Path]:
    """The folder of an open upload."""
    folder = edge.storage / "parts" / uuid.uuid4().hex
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def incoming(edge: Edge) -> list[Path]:
    return list((edge.storage / "incoming").iterdir())


def head(token: str, *lines: str) -> bytes:
    return "\r\n".join([f"PUT /p/{token} HTTP/1.1", "Host: h", "Connection: close", *lines, "", ""]).encode()


def test_a_part_is_stored(edge: Edge, upload: Path) -> None:
    body = bytes(range(256)) * 5000
    token = edge.token("part", upload=upload.name, part=7, size=len(body))
    reply = edge.ask("PUT", f"/p/{token}", body=body, headers={"Date": "Fri, 01 Jan 2038 00:00:00 GMT"})
    assert (reply.status, reply.body) == (201, b"")
    assert len(reply.headers["ETag"]) > 10
    assert reply.headers["ETag"][0] == reply.headers["ETag"][-1] == '"'
    assert "Location" not in reply.headers
    assert len(reply.headers.get_all("X-Request-Id", [])) == 1
    stored = upload / "7"
    assert stored.read_bytes() == body
    assert stored.stat().st_mode & 0o077 == 0
    assert abs(stored.stat().st_mtime - (edge.storage / "incoming").stat().st_mtime) < 60
    assert incoming(edge) == []

    again = edge.ask("PUT", f"/p/{token}", body=body[::-1])
    assert again.status == 204
    assert again.headers["ETag"] not in (None, reply.headers["ETag"])
    assert stored.read_bytes() == body[::-1]


@pytest.mark.parametrize("size", [0, 1, 65535, 2**21 + 1])
def test_sizes(edge: Edge, upload: Path, size: int) -> None:
    token = edge.token("part", upload=upload.name, part=1, size=size)
    assert edge.ask("PUT", f"/p/{token}", body=b"x" * size, headers={"Content-Length": str(size)}).status == 201
    assert (upload / "1").stat().st_size == size


def test_the_largest_part_is_taken_on(edge: Edge, upload: Path) -> None:
    size = 5 * 2**30
    token = edge.token("part", upload=upload.name, part=1, size=size)
    with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as client:
        client.sendall(head(token, f"Content-Length: {size}", "Expect: 100-continue"))
        assert client.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize("given", [0, 2, 4, 2**40, 2**63, 10**30])
def test_another_length(edge: Edge, upload: Path, given: int) -> None:
    token = edge.token("part", upload=upload.name, part=1, size=3)
    reply = edge.ask("PUT", f"/p/{token}", body=b"abc"[:given], headers={"Content-Length": str(given)})
    assert reply.status == 400
    # nginx accepts lengths up to 2^63 - 1.
    assert reply.code == ("LENGTH_MISMATCH" if given < 2**63 else "BAD_REQUEST")
    assert not list(upload.iterdir())


def test_no_length(edge: Edge, upload: Path) -> None:
    token = edge.token("part", upload=upload.name, part=1, size=3)
    for raw in (
        edge.raw(head(token)),
        edge.raw(head(token, "Transfer-Encoding: chunked"), b"3\r\nabc\r\n0\r\n\r\n"),
    ):
        reply = parse(raw)
        assert (reply.status, reply.code) == (411, "LENGTH_REQUIRED")
    both = parse(edge.raw(head(token, "Content-Length: 3", "Transfer-Encoding: chunked"), b"3\r\nabc\r\n0\r\n\r\n"))
    assert (both.status, both.code) == (400, "BAD_REQUEST")
    assert not list(upload.iterdir())


def test_a_cut_body_stores_nothing(edge: Edge, upload: Path) -> None:
    size = 2**20
    token = edge.token("part", upload=upload.name, part=1, size=size)
    with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as client:
        client.sendall(head(token, f"Content-Length: {size}") + b"x" * (size - 1))
        wait_for(lambda: incoming(edge), "temporary file")
    wait_for(lambda: not incoming(edge), "end of the temporary file")
    assert not list(upload.iterdir())


def test_more_than_the_length_is_not_stored(edge: Edge, upload: Path) -> None:
    token = edge.token("part", upload=upload.name, part=1, size=3)
    raw = edge.raw(head(token, "Content-Length: 3").replace(b"Connection: close\r\n", b""), b"abcGARBAGE\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 201")
    assert (upload / "1").read_bytes() == b"abc"
    assert b"HTTP/1.1 400" in raw


def test_expect_100_continue(edge: Edge, upload: Path) -> None:
    good = edge.token("part", upload=upload.name, part=1, size=3)
    with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as client:
        client.sendall(head(good, "Content-Length: 3", "Expect: 100-continue"))
        assert client.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert client.recv(4096).startswith(b"HTTP/1.1 201")
    assert (upload / "1").read_bytes() == b"abc"


@pytest.mark.parametrize("refused", ["token", "length", "upload"])
def test_no_body_is_asked_for_when_it_is_refused(edge: Edge, upload: Path, refused: str) -> None:
    token = edge.token("part", upload=upload.name, part=1, size=3)
    if refused == "token":
        token = token[:-1]
    if refused == "upload":
        upload.rmdir()
    length = 4 if refused == "length" else 3
    with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as client:
        client.sendall(head(token, f"Content-Length: {length}", "Expect: 100-continue"))
        assert client.recv(4096).startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize("vector", INVALID, ids=lambda vector: vector["why"])
def test_a_bad_token(edge: Edge, vector: dict[str, str]) -> None:
    reply = edge.ask("PUT", f"/p/{quote(vector['token'], safe='')}", body=b"abc")
    if vector["why"] in NO_SEGMENT:
        assert (reply.status, reply.code) == (404, "NOT_FOUND")
    elif vector["why"] == "NUL after":
        assert (reply.status, reply.code) == (400, "BAD_REQUEST")
    else:
        code = "PART_URL_EXPIRED" if vector["why"] == "expired" else "PART_URL_INVALID"
        assert (reply.status, reply.code) == (403, code)


def test_a_refusal_of_a_large_body_says_why(edge: Edge, upload: Path) -> None:
    token = edge.token("part", upload=upload.name, part=1, size=2**23, exp=1)
    for _ in range(2):
        reply = edge.ask("PUT", f"/p/{token}", body=b"x" * 2**23)
        assert (reply.status, reply.code) == (403, "PART_URL_EXPIRED")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "MKCOL", "COPY", "MOVE", "PROPFIND", "OPTIONS"])
def test_other_methods(edge: Edge, upload: Path, method: str) -> None:
    (upload / "1").write_bytes(b"abc")
    token = edge.token("part", upload=upload.name, part=1, size=3)
    reply = edge.ask(method, f"/p/{token}", headers={"Destination": "/p/x", "Depth": "infinity"})
    assert reply.status == 405
    assert reply.headers["Allow"] == "PUT"
    if method != "HEAD":
        assert reply.code == "METHOD_NOT_ALLOWED"
    assert (upload / "1").read_bytes() == b"abc"


@pytest.mark.parametrize("tail", ["/", "/2", "/..", "/../../objects/x", "%2f2", "%2f..%2f2"])
def test_nothing_may_follow_the_token(edge: Edge, upload: Path, tail: str) -> None:
    token = edge.token("part", upload=upload.name, part=1, size=3)
    assert edge.ask("PUT", f"/p/{token}{tail}", body=b"abc").status in (403, 404)
    assert not list(upload.iterdir())


def test_an_upload_that_is_closed(edge: Edge, upload: Path) -> None:
    upload.rmdir()
    reply = edge.ask("PUT", f"/p/{edge.token('part', upload=upload.name, part=1, size=3)}", body=b"abc")
    assert (reply.status, reply.code) == (409, "UPLOAD_NOT_OPEN")
    assert not upload.exists()


def test_an_upload_that_is_closed_while_the_body_comes(edge: Edge, upload: Path) -> None:
    token = edge.token("part", upload=upload.name, part=1, size=2**20)
    with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as client:
        client.sendall(head(token, f"Content-Length: {2**20}") + b"x" * (2**20 - 1))
        wait_for(lambda: incoming(edge), "temporary file")
        upload.rename(upload.with_name("taken" + upload.name))
        client.sendall(b"x")
        received = b""
        while data := client.recv(4096):
            received += data
    reply = parse(received)
    assert (reply.status, reply.code) == (409, "UPLOAD_NOT_OPEN")
    assert incoming(edge) == []
    assert not list(upload.with_name("taken" + upload.name).iterdir())


def test_a_storage_that_cannot_take_it(edge: Edge, upload: Path) -> None:
    (upload / "1").mkdir()
    (upload / "1" / "in the way").write_bytes(b"")
    reply = edge.ask("PUT", f"/p/{edge.token('part', upload=upload.name, part=1, size=3)}", body=b"abc")
    assert (reply.status, reply.code) == (503, "STORAGE_UNAVAILABLE")
    assert incoming(edge) == []


def test_a_content_range_is_not_taken_for_a_whole(edge: Edge, upload: Path) -> None:
    """A PUT with Content-Range sends a piece (RFC 9110 section 14.5): nginx refuses it, or ignores the header."""
    token = edge.token("part", upload=upload.name, part=1, size=3)
    reply = edge.ask("PUT", f"/p/{token}", body=b"abc", headers={"Content-Range": "bytes 5-7/10"})
    assert reply.status in (201, 501)
    assert [path.stat().st_size for path in upload.iterdir()] in ([], [3])


def test_the_same_part_from_two_clients_is_one_of_them_whole(edge: Edge, upload: Path) -> None:
    size = 2**20
    token = edge.token("part", upload=upload.name, part=1, size=size)
    clients = [socket.create_connection(("127.0.0.1", edge.port), timeout=10) for _ in range(2)]
    for client, byte in zip(clients, b"ab", strict=True):
        client.sendall(head(token, f"Content-Length: {size}") + bytes([byte]) * (size // 2))
    for client, byte in zip(clients, b"ab", strict=True):
        client.sendall(bytes([byte]) * (size // 2))
    for client in clients:
        with suppress(ConnectionError):
            assert client.recv(4096)[:11] == b"HTTP/1.1 20"
        client.close()
    assert (upload / "1").read_bytes() in (b"a" * size, b"b" * size)


def test_a_full_disk_is_reported_before_a_byte_is_accepted(edge: Edge, upload: Path) -> None:
    token = edge.token("part", upload=upload.name, part=1, size=4)
    edge.api.room = 0
    try:
        wait_for(lambda: edge.ask("PUT", f"/p/{token}", body=b"data").status == 507, "full disk")
        (upload / "1").unlink(missing_ok=True)  # from before the edge knew of it
        assert edge.ask("PUT", f"/p/{token}", body=b"data").code == "STORAGE_FULL"
        assert list(upload.iterdir()) == incoming(edge) == []
    finally:
        edge.api.room = None
    wait_for(lambda: edge.ask("PUT", f"/p/{token}", body=b"data").status == 201, "room again")


def test_concurrent_bodies_get_no_more_space_than_there_is(edge: Edge, upload: Path) -> None:
    size = 2**20
    tokens = [edge.token("part", upload=upload.name, part=number, size=size) for number in (1, 2, 3)]
    edge.api.room = 2 * size
    edge.api.wait_for_feed()
    try:
        with ExitStack() as stack:
            for token in tokens[:2]:
                client = stack.enter_context(socket.create_connection(("127.0.0.1", edge.port), timeout=10))
                client.sendall(head(token, f"Content-Length: {size}") + b"x" * (size - 1))
            wait_for(lambda: len(incoming(edge)) == 2, "two bodies on their way")
            reply = edge.ask("PUT", f"/p/{tokens[2]}", body=b"x" * size)
            assert (reply.status, reply.code) == (507, "STORAGE_FULL")
        wait_for(lambda: edge.ask("PUT", f"/p/{tokens[2]}", body=b"x" * size).status == 201, "room for the third")
    finally:
        edge.api.room = None
        edge.api.wait_for_feed()


def test_one_part_has_few_concurrent_bodies(edge: Edge, upload: Path) -> None:
    size = 2**20
    token = edge.token("part", upload=upload.name, part=1, size=size)
    with ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", edge.port), timeout=10))
            connection.sendall(head(token, f"Content-Length: {size}") + b"x" * (size - 1))
        wait_for(lambda: len(incoming(edge)) == 4, "four bodies on their way")
        reply = edge.ask("PUT", f"/p/{token}", body=b"x" * size)
        assert (reply.status, reply.code) == (429, "PART_BUSY")
        assert reply.headers["Retry-After"]
        other = edge.token("part", upload=upload.name, part=2, size=size)
        assert edge.ask("PUT", f"/p/{other}", body=b"x" * size).status == 201
    wait_for(lambda: edge.ask("PUT", f"/p/{token}", body=b"x" * size).status == 201, "end of the others")
