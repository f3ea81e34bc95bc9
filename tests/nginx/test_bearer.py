"""/api/v1: the bearer token at the edge, and which requests reach the API."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import pytest

from tests.nginx.edge import Edge, parse
from tests.nginx.stub_api import Answer, Seen
from tests.vectors import make_tokens

VECTORS = json.loads(make_tokens.FILE.read_text())
# White space around a header's value is not part of it (RFC 9110 section 5.5), and no client can send these.
UNSENDABLE = {"newline after", "NUL after", "space before", "space after", "empty"}
INVALID = [v for v in VECTORS["invalid"] if v["purpose"] == "access" and v["why"] not in UNSENDABLE]
PUBLIC = ["/api/v1/users", "/api/v1/sessions", "/api/v1/sessions/refresh"]


def test_vectors_are_what_their_program_writes() -> None:
    assert make_tokens.FILE.read_text() == make_tokens.render()


def test_a_good_token_reaches_the_api(edge: Edge) -> None:
    for token in (v["token"] for v in VECTORS["valid"] if v["purpose"] == "access" and "keys" not in v):
        for scheme in ("Bearer", "bearer", "BEARER", "Bearer  "):
            reply = edge.get("/api/v1/files?limit=3", Authorization=f"{scheme} {token}")
            assert reply.status == 200
            assert edge.api.seen[-1].path == "/api/v1/files?limit=3"
            assert edge.api.seen[-1].header("Authorization") == [f"{scheme} {token}"]


def test_no_token(edge: Edge) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        reply = edge.ask(method, "/api/v1/files")
        assert reply.status == 401
        if method != "HEAD":
            assert reply.code == "TOKEN_MISSING"
    assert not edge.api.seen


@pytest.mark.parametrize("vector", INVALID, ids=lambda vector: vector["why"])
def test_a_bad_token_does_not(edge: Edge, vector: dict[str, str]) -> None:
    for path in ("/api/v1/files", "/api/v1/users/me", "/api/v1/sessions/current"):
        reply = edge.get(path, Authorization=f"Bearer {vector['token']}")
        assert reply.status == 401
        assert reply.code == ("TOKEN_EXPIRED" if vector["why"] == "expired" else "TOKEN_INVALID")
    assert not edge.api.seen


@pytest.mark.parametrize(
    "form", ["", "Bearer", "Bearer ", "{0}", "Basic {0}", "Bearer {0} {0}", "Bearer {0},", "Bearer\t{0}"]
)
def test_other_forms_of_the_header(edge: Edge, form: str) -> None:
    reply = edge.get("/api/v1/files", Authorization=form.format(edge.token("access")))
    assert (reply.status, reply.code) == (401, "TOKEN_INVALID")
    assert not edge.api.seen


def test_two_authorization_headers_are_refused(edge: Edge) -> None:
    lines = "".join(f"Authorization: Bearer {token}\r\n" for token in (edge.token("access"), "x"))
    raw = edge.raw(f"GET /api/v1/files HTTP/1.1\r\nHost: h\r\n{lines}Connection: close\r\n\r\n".encode())
    assert parse(raw).status in (400, 401)
    assert not edge.api.seen


def test_a_token_that_expires_while_it_is_cached(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge()
    expires = int(time.time()) + 2
    headers = edge.bearer(exp=expires)
    assert edge.ask("GET", "/api/v1/files", headers=headers).status == 200
    while (reply := edge.ask("GET", "/api/v1/files", headers=headers)).status == 200:
        assert time.time() < expires + 1
    assert reply.code == "TOKEN_EXPIRED"


@pytest.mark.parametrize("path", PUBLIC)
def test_calls_before_there_is_a_token_ignore_the_header(edge: Edge, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic eDp5"}, edge.bearer()):
        assert edge.ask("POST", path, headers=headers, body=b"{}").status == 200
        assert edge.api.seen[-1].header("Authorization") == []
    for other in ("GET", "PUT", "PATCH", "DELETE"):
        assert edge.ask(other, path).code == "TOKEN_MISSING"
    for near in (f"{path}/", f"{path}/x", f"{path};x", f"{path}%20", path.upper()):
        assert edge.ask("POST", near).status in (401, 404)


def test_public_calls_by_another_spelling_arrive_as_what_was_checked(edge: Edge) -> None:
    assert edge.ask("POST", "/api/v1/files/../%73essions?x=%2e").status == 200
    assert edge.api.seen[-1].path == "/api/v1/sessions?x=%2e"


def test_what_the_api_is_told(edge: Edge) -> None:
    spoofed = {
        "X-Sluice-Edge": "e" * 64,
        "X_Sluice_Edge": "e" * 64,
        "X-Real-IP": "192.0.2.1",
        "X-Request-Id": "mine",
        "X-Forwarded-For": "192.0.2.1",
        "X-Forwarded-Proto": "https",
    }
    reply = edge.ask(
        "POST", "/api/v1/uploads", headers={**edge.bearer(), **spoofed, "Host": "files.example:1"}, body=b"{}"
    )
    seen = edge.api.seen[-1]
    assert seen.header("X-Sluice-Edge") == []
    assert seen.header("X_Sluice_Edge") == []
    assert seen.header("X-Real-IP") == ["127.0.0.1"]
    assert seen.header("X-Forwarded-For") == ["127.0.0.1"]
    assert seen.header("X-Forwarded-Proto") == ["http"]
    assert seen.header("Host") == ["files.example:1"]
    assert seen.header("X-Request-Id") == reply.headers.get_all("X-Request-Id")
    assert seen.body == b"{}"


@pytest.mark.parametrize("status", [201, 400, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504, 507])
def test_the_apis_answers_pass_untouched(edge: Edge, status: int) -> None:
    body = b'{"error":{"code":"OF_THE_API"}}'
    headers = {"Content-Type": "application/json", "Retry-After": "7", "X-Request-Id": "of the API", "ETag": '"e"'}
    edge.api.answer = lambda seen: Answer(status, headers, body)
    reply = edge.ask("GET", "/api/v1/files", headers=edge.bearer())
    assert (reply.status, reply.body) == (status, body)
    assert reply.headers["Retry-After"] == "7"
    assert reply.headers["ETag"] == '"e"'
    assert reply.headers.get_all("X-Request-Id") == edge.api.seen[-1].header("X-Request-Id")


def test_bodies_up_to_2_mib(edge: Edge) -> None:
    headers = edge.bearer()
    assert edge.ask("POST", "/api/v1/uploads", headers=headers, body=b"x" * 2**21).status == 200
    assert len(edge.api.seen[-1].body) == 2**21
    edge.api.seen.clear()
    reply = edge.ask("POST", "/api/v1/uploads", headers=headers, body=b"x" * (2**21 + 1))
    assert (reply.status, reply.code) == (413, "BODY_TOO_LARGE")
    chunked = (b"x" * 2**20 for _ in range(3))
    raw = edge.ask(
        "POST", "/api/v1/uploads", headers={**headers, "Transfer-Encoding": "chunked"}, body=_chunks(chunked)
    )
    assert (raw.status, raw.code) == (413, "BODY_TOO_LARGE")
    assert not edge.api.seen


def _chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
    yield b"0\r\n\r\n"


def test_a_chunked_body_arrives_whole(edge: Edge) -> None:
    headers = {**edge.bearer(), "Transfer-Encoding": "chunked"}
    assert edge.ask("POST", "/api/v1/uploads", headers=headers, body=_chunks([b"a" * 70000, b"b"])).status == 200
    assert edge.api.seen[-1].body == b"a" * 70000 + b"b"
    assert edge.api.seen[-1].header("Content-Length") == ["70001"]


def test_health_needs_no_token(edge: Edge) -> None:
    for path in ("/healthz", "/readyz"):
        assert edge.get(path, Authorization="Bearer nonsense").status == 200
        assert edge.api.seen[-1].path == path
        assert edge.api.seen[-1].header("X-Sluice-Edge") == []


def test_ready_is_for_allowed_networks(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge(api=False, SLUICE_READY_NETWORKS="192.0.2.0/24")
    reply = edge.get("/readyz")
    assert (reply.status, reply.code) == (403, "FORBIDDEN")


def test_the_api_away(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge()
    edge.api.stop()
    reply = edge.ask("GET", "/api/v1/files", headers=edge.bearer())
    assert (reply.status, reply.code) == (503, "API_UNAVAILABLE")
    assert edge.get("/healthz").code == "API_UNAVAILABLE"
    edge.api.start()
    assert edge.get("/healthz").status == 200


def test_the_api_too_slow(make_edge: Callable[..., Edge]) -> None:
    def shorten(text: str) -> str:
        assert "proxy_read_timeout 75s" in text
        return text.replace("proxy_read_timeout 75s", "proxy_read_timeout 200ms")

    edge = make_edge(change={"snippets/api.conf": shorten})
    release = threading.Event()

    def answer(seen: Seen) -> Answer:
        if seen.path == "/api/v1/files":
            release.wait(10)
        return Answer()

    edge.api.answer = answer
    reply = edge.ask("GET", "/api/v1/files", headers=edge.bearer())
    release.set()
    assert (reply.status, reply.code) == (504, "API_TIMEOUT")
