"""Attacks: smuggled requests, internal locations, clients that never finish."""

import re
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.nginx.edge import Edge, parse
from tests.nginx.stub_api import DEADLINE, wait_for

MakeEdge = Callable[..., Edge]
END = "\r\n"


def send(edge: Edge, *lines: str, body: str = "") -> bytes:
    """Sends exactly these lines. Returns all bytes until nginx closes the connection."""
    head = "".join(line + END for line in lines)
    return edge.raw((head + END + body).encode("latin-1"), b"")


def call(edge: Edge, *lines: str, method: str = "POST", body: str = "", last: str = "Connection: close") -> bytes:
    bearer = f"Authorization: {edge.bearer()['Authorization']}"
    return send(edge, f"{method} /api/v1/files HTTP/1.1", "Host: h", bearer, *lines, last, body=body)


def statuses(raw: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb"(?:^|\r\n|\})HTTP/1\.1 (\d{3}) ", raw)]


HIDDEN = "GET /internal/revocations?after=0 HTTP/1.1\r\nHost: h\r\n\r\n"
SMUGGLED = {
    "a length and chunks": (["Content-Length: 6", "Transfer-Encoding: chunked"], "0\r\n\r\nX" + HIDDEN),
    "chunks and a length": (["Transfer-Encoding: chunked", "Content-Length: 4"], "5c\r\n" + HIDDEN + "\r\n0\r\n\r\n"),
    "two lengths": (["Content-Length: 0", f"Content-Length: {len(HIDDEN)}"], HIDDEN),
    "the same length twice": (["Content-Length: 3", "Content-Length: 3"], "abc"),
    "lengths in a list": ([f"Content-Length: 0, {len(HIDDEN)}"], HIDDEN),
    "a length with a sign": (["Content-Length: +3"], "abc"),
    "a negative length": (["Content-Length: -1"], HIDDEN),
    "a length in hex": (["Content-Length: 0x3"], "abc"),
    "a length with a space": ([f"Content-Length: 0 {len(HIDDEN)}"], HIDDEN),
    "two encodings": (["Transfer-Encoding: chunked", "Transfer-Encoding: identity"], "0\r\n\r\n" + HIDDEN),
    "an encoding in a list": (["Transfer-Encoding: identity, chunked"], "0\r\n\r\n" + HIDDEN),
    "an unknown encoding": (["Transfer-Encoding: xchunked"], "0\r\n\r\n" + HIDDEN),
    "an encoding with a tab": (["Transfer-Encoding:\tchunked", "Content-Length: 3"], "0\r\n\r\n" + HIDDEN),
    "an encoding behind a vertical tab": (["Transfer-Encoding: \x0bchunked"], "0\r\n\r\n" + HIDDEN),
    "a size that is none": (["Transfer-Encoding: chunked"], "zz\r\nabc\r\n0\r\n\r\n" + HIDDEN),
    "a size that overflows": (["Transfer-Encoding: chunked"], "fffffffffffffffff\r\nabc\r\n0\r\n\r\n" + HIDDEN),
}


@pytest.mark.parametrize(("lines", "body"), SMUGGLED.values(), ids=SMUGGLED.keys())
def test_a_body_whose_end_is_in_doubt_is_refused(edge: Edge, lines: list[str], body: str) -> None:
    answers = statuses(call(edge, *lines, body=body))
    assert len(answers) == 1, answers
    assert answers[0] in (400, 411, 501), answers
    assert edge.api.seen == []


DECORATED = {
    "a name with a space": ["Content-Length : 3"],
    "a folded line": ["X-A: 1", " Content-Length: 0", "Content-Length: 3"],
    "an underscore": ["Content_Length: 0", "Content-Length: 3"],
    "a folded encoding": ["X-A: 1", "\tTransfer-Encoding: chunked", "Content-Length: 3"],
    "an encoding with a space": ["Transfer-Encoding : chunked", "Content-Length: 3"],
    "a bare line feed": ["X-A: 1\nTransfer-Encoding_: chunked", "Content-Length: 3"],
}


@pytest.mark.parametrize("lines", DECORATED.values(), ids=DECORATED.keys())
def test_bytes_that_only_look_like_a_header_reach_no_upstream(edge: Edge, lines: list[str]) -> None:
    """It is refused, or the API gets one request of three bytes with one length."""
    call(edge, *lines, body="abc")
    assert len(edge.api.seen) <= 1
    for seen in edge.api.seen:
        assert seen.header("Transfer-Encoding") == []
        assert seen.header("Content-Length") in (["3"], [], ["0"])
        assert [name for name, _ in seen.headers if "_" in name or name.endswith(" ")] == []
        assert seen.body in (b"abc", b"")


def test_a_body_of_chunks_reaches_the_api_with_a_length(edge: Edge) -> None:
    call(edge, "Transfer-Encoding: chunked", body="3\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n")
    (seen,) = edge.api.seen
    assert (seen.body, seen.header("Content-Length"), seen.header("Transfer-Encoding")) == (b"abc", ["3"], [])
    assert seen.header("X-Trailer") == []


PATHS = [
    "/internal/revocations?after=0",
    "//internal/revocations",
    "/api/v1/../internal/revocations",
    "/api/v1/..%2finternal/revocations",
    "/api/v1/%2e%2e/%2e%2e/internal/revocations",
    "/api/v1/./../../internal/metrics",
    "http://h/internal/metrics",
    "http://internal/internal/metrics",
    "/api/v1/..;/internal/metrics",
    "/api/v1\\..\\internal/metrics",
    "/healthz/../internal/metrics",
    "/healthz/internal/metrics",
    "/metrics/internal",
]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", PATHS)
def test_the_apis_internal_calls_are_not_reached(edge: Edge, method: str, path: str) -> None:
    bearer, key = f"Authorization: {edge.bearer()['Authorization']}", f"X-Sluice-Edge: {'e' * 64}"
    raw = send(edge, f"{method} {path} HTTP/1.1", "Host: h", bearer, key, "Content-Length: 0", "Connection: close")
    assert parse(raw).status in (400, 403, 404, 200)
    for seen in edge.api.seen:
        assert seen.path.startswith("/api/v1/")
        assert seen.header("X-Sluice-Edge") in ([], [""])


def internal_locations(edge: Edge) -> list[str]:
    """Every location of the rendered configuration that is marked internal."""
    text = "".join(path.read_text() for path in edge.config.parent.rglob("*.conf"))
    text = re.sub(r"#.*", "", text)
    return [place for place, body in re.findall(r"location(?: =| \^~)? (\S+) \{([^}]*)\}", text) if "internal;" in body]


def test_no_internal_location_is_reached(edge: Edge) -> None:
    found = internal_locations(edge)
    assert {"/_error", "/_link/", "/_storage/get", "/_storage/put"} <= set(found)
    blob = uuid.uuid4().hex
    edge.store(blob, b"content")
    link = edge.token("link", file=blob)
    for place in found:
        for path in (
            place,
            f"{place}{link}/x",
            f"{place}/{link}/x",
            f"//{place[1:]}",
            f"/x/..{place}",
            f"/%5f{place[2:]}",
        ):
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
                reply = edge.ask(method, path, headers={**edge.bearer(), "X-Accel-Redirect": "/_link/x/y"})
                assert reply.status in (404, 400), (method, path, reply)


@pytest.mark.parametrize("path", ["/api/v1/files", "/d/{link}/x", "/p/{part}", "/healthz", "/metrics", "/nowhere"])
@pytest.mark.parametrize("method", ["BREW", "TRACE", "CONNECT", "PROPFIND", "MKCOL", "get", "G=T", "X" * 300])
def test_odd_methods_do_nothing(edge: Edge, method: str, path: str) -> None:
    where = path.format(link=edge.token("link"), part=edge.token("part"))
    bearer = f"Authorization: {edge.bearer()['Authorization']}"
    reply = parse(send(edge, f"{method} {where} HTTP/1.1", "Host: h", bearer, "Connection: close"))
    assert reply.status in (400, 404, 405, 501) or (path == "/healthz" and reply.status == 200)
    if path == "/api/v1/files":
        assert edge.api.seen == []
    if reply.status >= 400 and path != "/healthz":
        assert reply.code in ("BAD_REQUEST", "METHOD_NOT_ALLOWED", "METHOD_NOT_IMPLEMENTED", "NOT_FOUND")


def test_an_unknown_method_is_reported_as_unknown(edge: Edge) -> None:
    bearer = f"Authorization: {edge.bearer()['Authorization']}"
    reply = parse(send(edge, "BREW /api/v1/files HTTP/1.1", "Host: h", bearer, "Connection: close"))
    assert (reply.status, reply.code) == (501, "METHOD_NOT_IMPLEMENTED")


def test_no_response_names_a_version(edge: Edge) -> None:
    for path in ("/", "/d/x/y", "/healthz", "/api/v1/files"):
        reply = edge.get(path)
        assert reply.headers["Server"] == "nginx"
        assert b"nginx/" not in reply.body


def test_answers_cannot_be_framed_or_sniffed(edge: Edge) -> None:
    for reply in (edge.ask("GET", "/api/v1/files", headers=edge.bearer()), edge.get("/nowhere"), edge.get("/d/x/y")):
        assert reply.headers.get_all("X-Content-Type-Options") == ["nosniff"]
        assert reply.headers.get_all("Referrer-Policy") == ["no-referrer"]
        assert reply.headers.get_all("Content-Security-Policy") == ["default-src 'none'; frame-ancestors 'none'"]


def test_bodies_are_refused_by_calls_without_one(edge: Edge) -> None:
    assert edge.ask("GET", "/healthz", body=b"x" * 5000).status == 413
    assert edge.ask("GET", f"/d/{edge.token('link')}/x", body=b"x" * 3 * 2**20).status == 413


def test_headers_have_an_end(edge: Edge) -> None:
    assert edge.get("/healthz", X_Large="x" * 9000).status == 431
    many = {f"X-{n}": "y" * 7000 for n in range(6)}
    assert edge.ask("GET", "/healthz", headers=many).status == 431


def impatient(text: str) -> str:
    changed = re.sub(r"client_(header|body)_timeout \d+s", r"client_\1_timeout 1s", text)
    assert changed.count("timeout 1s") == 2
    return changed


def test_clients_that_never_finish_are_hung_up_on(make_edge: MakeEdge) -> None:
    edge = make_edge(change={"snippets/limits.conf": impatient})
    part = edge.token("part", size=1000)
    (edge.storage / "parts" / make_part_folder(edge)).mkdir(exist_ok=True)
    begun = time.monotonic()
    openings = {
        "nothing": b"",
        "half a request line": b"GET /heal",
        "half a header": b"GET /healthz HTTP/1.1\r\nHost: h\r\nX-",
        "half a call's body": b"POST /api/v1/sessions HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{",
        "half a part": f"PUT /p/{part} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nabc".encode(),
    }
    connections = {}
    for what, opening in openings.items():
        connections[what] = socket.create_connection(("127.0.0.1", edge.port), timeout=DEADLINE)
        connections[what].sendall(opening)
    for connection in connections.values():
        with suppress(ConnectionResetError):
            while connection.recv(65536):
                pass
        connection.close()
    assert time.monotonic() - begun < DEADLINE - 2
    assert edge.api.seen[1:] == [] or all(seen.path == "/readyz" for seen in edge.api.seen)
    wait_for(lambda: list((edge.storage / "incoming").iterdir()) == [], "end of the half-received part")


def make_part_folder(edge: Edge) -> str:
    from tests.vectors.make_tokens import CLAIMS

    return str(CLAIMS["part"]["upload"])


def test_a_header_that_comes_byte_by_byte_has_no_longer(make_edge: MakeEdge) -> None:
    """The timeout applies to the whole header, not to the time between two bytes."""
    edge = make_edge(change={"snippets/limits.conf": impatient})
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", edge.port), timeout=DEADLINE) as connection, suppress(OSError):
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        connection.settimeout(0.1)
        while time.monotonic() - begun < DEADLINE:
            connection.sendall(b"x")
            with suppress(TimeoutError):
                if not connection.recv(1000):
                    break
    assert time.monotonic() - begun < 5
