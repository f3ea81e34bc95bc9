"""Kept connections: used again, given up when the other end has, and asked again where a server was too busy."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from api.config import S3Config
from api.errors import ObjectNotFound, StorageUnavailable, UploadGone
from api.storage.kept import KeptConnections
from api.storage.s3_bucket import Address
from api.storage.s3_calls import Calls
from api.storage.sigv4 import Credentials

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"
HANG_UP = b""
SETTINGS = S3Config(
    single_put_max=0,
    endpoint="http://127.0.0.1:1",
    public_endpoint="",
    bucket="b",
    access_key="a",
    secret_key="s",
    session_token="",
    region="us-east-1",
    virtual_hosted=False,
    via_edge=False,
)


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


class Server:
    """Gives one scripted answer a request; an empty one closes the connection instead."""

    def __init__(self, *answers: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._answers = list(answers)
        self.connections = 0
        self.targets: list[str] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while self._answers:
            connection, _ = self._listener.accept()
            self.connections += 1
            with connection, connection.makefile("rb") as lines:
                while self._answers and self._request(lines):
                    given = self._answers.pop(0)
                    if given == HANG_UP:
                        break
                    connection.sendall(given)

    def _request(self, lines: object) -> bool:
        first = lines.readline()  # type: ignore[attr-defined]
        if not first:
            return False
        self.targets.append(first.decode().split()[1])
        length = 0
        while (line := lines.readline().strip()) != b"":  # type: ignore[attr-defined]
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        lines.read(length)  # type: ignore[attr-defined]
        return True

    def close(self) -> None:
        self._listener.close()
        self._thread.join(10)


@contextmanager
def serving(*answers: bytes) -> Iterator[tuple[Server, KeptConnections]]:
    server = Server(*answers)
    connections = KeptConnections(server.base, read_timeout=5)
    try:
        yield server, connections
    finally:
        connections.close()
        server.close()


def test_a_connection_is_used_again() -> None:
    with serving(OK, OK, OK) as (server, connections):
        assert [connections.ask("GET", lambda: "/a", {}).body for _ in range(3)] == [b"ok"] * 3
        assert server.connections == 1


def test_a_server_that_hangs_up_is_asked_again() -> None:
    with serving(OK, HANG_UP, OK) as (server, connections):
        connections.ask("GET", lambda: "/a", {})
        assert connections.ask("GET", lambda: "/b", {}).status == 200
        assert (server.connections, server.targets) == (2, ["/a", "/b", "/b"])


def test_a_busy_server_is_asked_three_times_with_a_new_signature_each() -> None:
    targets = iter(["/1", "/2", "/3"])
    with serving(BUSY, BUSY, BUSY) as (server, connections):
        assert connections.ask("GET", lambda: next(targets), {}).status == 503
        assert server.targets == ["/1", "/2", "/3"]


def test_nobody_there_is_unavailable_without_the_query() -> None:
    with pytest.raises(StorageUnavailable) as caught:
        KeptConnections("http://127.0.0.1:1").ask("GET", lambda: "/a?X-Amz-Signature=secret", {})
    assert "secret" not in str(caught.value)


@contextmanager
def calling(*answers: bytes) -> Iterator[tuple[Server, Calls]]:
    server = Server(*answers)
    calls = Calls(Address(SETTINGS, server.base), Credentials("a", "s", "us-east-1"), lambda: 1_700_000_000.0)
    try:
        yield server, calls
    finally:
        calls._connections.close()
        server.close()


def test_a_refusal_behind_a_200_is_a_refusal() -> None:
    refused = answer(b"  <Error><Code>InternalError</Code></Error>")
    with calling(refused) as (_, calls), pytest.raises(StorageUnavailable, match="InternalError"):
        calls.complete("k", "u", {1: (5, '"e"')})


def test_an_upload_that_is_gone_is_so_by_either_name() -> None:
    for code in (b"NoSuchKey", b"NoSuchUpload"):
        refused = answer(b"<Error><Code>%s</Code></Error>" % code, b"404 Not Found")
        with calling(refused) as (_, calls), pytest.raises(UploadGone):
            calls.list_parts("k", "u")


def test_an_object_that_is_not_there() -> None:
    with calling(answer(b"", b"404 Not Found")) as (_, calls), pytest.raises(ObjectNotFound):
        calls.head("k")


def test_lists_go_on_where_they_were_cut() -> None:
    page = (
        b'<R xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>%s</IsTruncated>'
        b"<NextPartNumberMarker>%d</NextPartNumberMarker>"
        b"<Part><PartNumber>%d</PartNumber><ETag>&quot;e&quot;</ETag><Size>7</Size></Part></R>"
    )
    with calling(answer(page % (b"true", 1, 1)), answer(page % (b"false", 2, 2))) as (server, calls):
        assert calls.list_parts("k", "u") == {1: (7, '"e"'), 2: (7, '"e"')}
        assert ["part-number-marker=0&" in server.targets[0], "part-number-marker=1&" in server.targets[1]] == [
            True
        ] * 2
