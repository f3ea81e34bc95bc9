"""Requests that must be refused, and that each refusal has the one shape."""

import socket

import pytest

from tests.nginx.edge import Edge, parse


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/favicon.ico",
        "/api",
        "/api/",
        "/api/v1",
        "/api/v2/files",
        "/internal/revocations?after=0",
        "/internal/targets/00000000000000000000000000000000",
        "/_link/{link}/name",
        "/_error",
        "/_error?x",
        "/p",
        "/p/",
        "/d",
        "/d/",
        "/d/{link}",
        "/d/{link}/a/b",
        "/d/{link}/a%2fb",
        "//d/{link}/name",
        "/d//{link}/name",
        "/d/{link}//name",
        "/api//v1/files",
        "//internal/revocations",
        "/./internal/revocations",
        "/d/../_link/{link}/name",
        "/d/%2e%2e/_link/{link}/name",
        "/d/..%2f_link/{link}/name",
        "/api/v1/../../internal/revocations?after=0",
        "/api/v1/%2e%2e/%2e%2e/internal/revocations?after=0",
        "/api/v1/..%2f..%2finternal/revocations?after=0",
        "/d/x/..%2f..%2f..%2fetc/passwd",
        "/%5finternal/",
        "/%5flink/{link}/name",
        "/%69nternal/revocations",
        "/p/../00000000000000000000000000000000/1",
        "/objects/x",
        "/nginx_status",
    ],
)
def test_there_is_nothing_there(edge: Edge, path: str) -> None:
    blob = "c" * 32
    edge.store(blob, b"content")
    target = path.format(link=edge.token("link", file=blob))
    for headers in ({}, edge.bearer()):
        raw_head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        reply = parse(edge.raw(f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{raw_head}\r\n".encode()))
        # For paths above the root nginx reports a bad request.
        assert (reply.status, reply.code) in [(404, "NOT_FOUND"), (400, "BAD_REQUEST")]
        assert b"content" not in reply.body
    assert not edge.api.seen
    assert edge.get(f"/d/{edge.token('link', file=blob)}/name").body == b"content"


@pytest.mark.parametrize("path", ["/api/v1//internal/revocations", "/api/v1/./x/../../v1/internal/revocations"])
def test_the_api_sees_the_path_that_was_checked(edge: Edge, path: str) -> None:
    assert edge.ask("GET", path, headers=edge.bearer()).status == 200
    assert edge.api.seen[-1].path in ("/api/v1//internal/revocations", "/api/v1/internal/revocations")


@pytest.mark.parametrize(
    ("request_text", "status", "code"),
    [
        ("GET /api/v1/x HTTP/1.1\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "BAD_REQUEST"),
        ("POST /api/v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         400, "BAD_REQUEST"),
        ("POST /api/v1/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "METHOD_NOT_IMPLEMENTED"),
        ("GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET /../x HTTP/1.1\r\nHost: h\r\n\r\n", 400, "BAD_REQUEST"),
        ("get / HTTP/1.1\r\nHost: h\r\n\r\n", 400, "BAD_REQUEST"),
        ("GARBAGE\r\n\r\n", 400, "BAD_REQUEST"),
        ("TRACE /api/v1/x HTTP/1.1\r\nHost: h\r\n\r\n", 405, "METHOD_NOT_ALLOWED"),
        ("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505, "HTTP_VERSION_UNSUPPORTED"),
        (f"GET /{'a' * 9000} HTTP/1.1\r\nHost: h\r\n\r\n", 414, "URI_TOO_LONG"),
        (f"GET / HTTP/1.1\r\nHost: h\r\nX: {'a' * 9000}\r\n\r\n", 431, "HEADERS_TOO_LARGE"),
        ("GET / HTTP/1.1\r\nHost: h\r\n" + "".join(f"X{n}: {'a' * 4000}\r\n" for n in range(20)) + "\r\n",
         431, "HEADERS_TOO_LARGE"),
    ],
)  # fmt: skip
def test_what_nginx_refuses_itself(edge: Edge, request_text: str, status: int, code: str) -> None:
    text = request_text.replace("Host: h\r\n", "Host: h\r\nConnection: close\r\n", 1)
    reply = parse(edge.raw(text.encode()))
    assert (reply.status, reply.code) == (status, code)
    assert not edge.api.seen


@pytest.mark.parametrize("target", ["/api/v1/x", "/p/nonsense", "/d/nonsense/name", "/nothing"])
def test_a_refused_body_is_not_the_next_request(edge: Edge, target: str) -> None:
    """The body looks like a request. On a kept connection it must not become one."""
    inner = b"GET /healthz HTTP/1.1\r\nHost: smuggled\r\n\r\n"
    first = f"POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(inner)}\r\n\r\n".encode()
    last = b"GET /nothing-else HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    raw = edge.raw(first + inner + last)
    assert raw.count(b"HTTP/1.1 ") <= 2
    assert not edge.api.seen
    with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as client:
        client.sendall(first)
        assert client.recv(4096).startswith(b"HTTP/1.1 4")
        client.sendall(inner + last)
        received = b""
        while data := client.recv(4096):
            received += data
    assert received.count(b"HTTP/1.1 ") <= 1
    assert not edge.api.seen


def test_a_connection_goes_on_after_a_refusal(edge: Edge) -> None:
    with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as client:
        for _ in range(3):
            client.sendall(b"GET /api/v1/x HTTP/1.1\r\nHost: h\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 401")


def test_head_of_a_refusal_has_no_body(edge: Edge) -> None:
    for path in ("/nothing", "/api/v1/x", "/d/x/y", "/p/x"):
        raw = edge.raw(f"HEAD {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        assert raw.endswith(b"\r\n\r\n")
        assert raw.count(b"\r\n\r\n") == 1


def test_the_api_cannot_be_made_to_name_a_file(edge: Edge) -> None:
    """An X-Accel-Redirect from a client has no effect."""
    edge.store("d" * 32, b"content")
    token = edge.token("link", file="d" * 32)
    reply = edge.get("/healthz", X_Accel_Redirect=f"/_link/{token}/x")
    assert reply.body == b"{}"
