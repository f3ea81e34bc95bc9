"""SLUICE_CONTENT_HOST: users' content from a separate host, which serves only content."""

from collections.abc import Callable

import pytest

from tests.nginx.edge import Edge, parse
from tests.nginx.stub_api import Answer

BLOB = "b" * 32


@pytest.fixture
def edge(make_edge: Callable[..., Edge]) -> Edge:
    made = make_edge(api=True, SLUICE_CONTENT_HOST="content.example:8443")
    made.store(BLOB, b"content")
    return made


@pytest.mark.parametrize("host", ["content.example", "content.example:8443", "CONTENT.example"])
def test_downloads_are_there_and_nothing_else(edge: Edge, host: str) -> None:
    link = f"/d/{edge.token('link', file=BLOB)}/x"
    assert edge.get(link, Host=host).status == 200
    for path in ("/api/v1/files", "/healthz", "/readyz", "/metrics", f"/p/{edge.token('part')}", "/"):
        reply = edge.ask("GET", path, headers={**edge.bearer(), "Host": host})
        assert (reply.status, reply.code) == (404, "NOT_FOUND")
    assert [seen.path for seen in edge.api.seen if seen.path != "/readyz"] == []


def test_they_are_nowhere_else(edge: Edge) -> None:
    link = f"/d/{edge.token('link', file=BLOB)}/x"
    for host in ("127.0.0.1", "files.example", "content.example.evil", "xcontent.example", ""):
        assert edge.get(link, Host=host).status in (404, 400)
    assert edge.ask("GET", "/api/v1/files", headers=edge.bearer()).status == 200
    assert edge.get("/healthz").status == 200


def test_the_request_lines_host_counts_before_the_header(edge: Edge) -> None:
    path = f"/d/{edge.token('link', file=BLOB)}/x"
    raw = edge.raw(
        f"GET http://files.example{path} HTTP/1.1\r\nHost: content.example\r\nConnection: close\r\n\r\n".encode()
    )
    assert parse(raw).status == 404
    raw = edge.raw(
        b"GET http://content.example/api/v1/files HTTP/1.1\r\nHost: files.example\r\nConnection: close\r\n\r\n"
    )
    assert parse(raw).status == 404


def test_the_owners_content_stays_with_the_api(edge: Edge) -> None:
    """It needs an Authorization header, which browsers do not send when a page is opened."""
    link = edge.token("link", file=BLOB)
    edge.api.answer = lambda seen: Answer(200, {"X-Accel-Redirect": f"/_link/{link}/x"})
    reply = edge.ask("GET", "/api/v1/files/1/content", headers=edge.bearer())
    assert (reply.status, reply.body) == (200, b"content")


@pytest.mark.parametrize("of", [BLOB, "0" * 32])
def test_the_target_that_comes_along_is_not_asked_for(make_edge: Callable[..., Edge], of: str) -> None:
    edge = make_edge(api=True)
    edge.store(BLOB, b"content")
    told = edge.api.targets[BLOB].body.decode().replace(BLOB, of, 1)
    redirect = f"/_link/{edge.token('link', file=BLOB)}/x"
    edge.api.answer = lambda seen: Answer(200, {"X-Accel-Redirect": redirect, "X-Sluice-Target": told})
    reply = edge.ask("GET", "/api/v1/files/1/content", headers=edge.bearer())
    assert (reply.status, reply.body) == (200, b"content")
    assert edge.api.targets_asked == ([] if of == BLOB else [BLOB]), "a response about another blob is ignored"
    assert not [name for name in reply.headers if name.lower().startswith("x-sluice")]
