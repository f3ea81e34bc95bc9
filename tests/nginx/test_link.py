"""/d/<link token>/<name>, also by X-Accel-Redirect from the API."""

import json
import uuid
from collections.abc import Callable
from email.utils import formatdate
from urllib.parse import quote

import pytest

from tests.nginx.edge import Edge, Reply
from tests.nginx.stub_api import Answer
from tests.vectors import make_tokens

VECTORS = json.loads(make_tokens.FILE.read_text())
INVALID = [v for v in VECTORS["invalid"] if v["purpose"] == "link"]
# In a path these are no segment, the parent folder, and two segments.
NO_SEGMENT = {"empty", "dots", "standard alphabet"}
CONTENT = bytes(range(256)) * 40


@pytest.fixture
def blob() -> str:
    return uuid.uuid4().hex


@pytest.fixture(params=["link", "content"])
def fetch(request: pytest.FixtureRequest, edge: Edge) -> Callable[..., Reply]:
    """Requests a link's content, by the link itself or through the API's response to a bearer token."""

    def by_link(token: str, method: str = "GET", **headers: str) -> Reply:
        return edge.ask(method, f"/d/{token}/name", headers={k.replace("_", "-"): v for k, v in headers.items()})

    def by_bearer(token: str, method: str = "GET", **headers: str) -> Reply:
        redirect = {
            "X-Accel-Redirect": f"/_link/{token}/content",
            "Content-Type": "text/html",
            "Cache-Control": "no-store",
        }
        edge.api.answer = lambda seen: Answer(200, redirect, b"the API's own body")
        given = {k.replace("_", "-"): v for k, v in headers.items()}
        return edge.ask(method, "/api/v1/files/1/content", headers={**edge.bearer(), **given})

    return by_link if request.param == "link" else by_bearer


Fetch = Callable[..., Reply]


def test_the_whole(edge: Edge, fetch: Fetch, blob: str) -> None:
    etag = edge.store(blob, CONTENT)
    for _ in range(3):
        reply = fetch(edge.token("link", file=blob, filename="naïve.bin", type="application/x-bin"))
        assert (reply.status, reply.body) == (200, CONTENT)
        for name, value in {
            "Content-Length": str(len(CONTENT)),
            "Content-Type": "application/x-bin",
            "Content-Disposition": "attachment; filename=\"na_ve.bin\"; filename*=UTF-8''na%C3%AFve.bin",
            "ETag": etag,
            "Accept-Ranges": "bytes",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "sandbox; default-src 'none'",
            "Cache-Control": "private, no-cache",
            "Referrer-Policy": "no-referrer",
        }.items():
            assert reply.headers.get_all(name) == [value]
        assert len(reply.headers.get_all("X-Request-Id", [])) == 1
        assert "Last-Modified" not in reply.headers
        assert reply.headers["Server"] == "nginx"


def test_inline_and_without_a_type(edge: Edge, fetch: Fetch, blob: str) -> None:
    edge.store(blob, b"x")
    reply = fetch(edge.token("link", file=blob, disp="inline", filename="", type=""))
    assert reply.headers["Content-Disposition"] == "inline"
    assert reply.headers["Content-Type"] == "application/octet-stream"


def test_head(edge: Edge, fetch: Fetch, blob: str) -> None:
    etag = edge.store(blob, CONTENT)
    token = edge.token("link", file=blob)
    got, head = fetch(token), fetch(token, "HEAD")
    assert (head.status, head.body) == (200, b"")
    for name in ("Content-Length", "Content-Type", "Content-Disposition", "ETag", "Accept-Ranges", "Cache-Control"):
        assert head.headers[name] == got.headers[name]
    assert head.headers["ETag"] == etag


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [("0-0", 0, 0), ("100-199", 100, 199), ("10000-", 10000, 10239), ("-1", 10239, 10239), ("-99999", 0, 10239),
     ("10000-99999", 10000, 10239), ("0-", 0, 10239)],
)  # fmt: skip
def test_a_range(edge: Edge, fetch: Fetch, blob: str, text: str, first: int, last: int) -> None:
    etag = edge.store(blob, CONTENT)
    token = edge.token("link", file=blob)
    for condition in ({}, {"If_Range": etag}):
        reply = fetch(token, Range=f"bytes={text}", **condition)
        assert (reply.status, reply.body) == (206, CONTENT[first : last + 1])
        assert reply.headers["Content-Range"] == f"bytes {first}-{last}/{len(CONTENT)}"
        assert reply.headers["ETag"] == etag
    assert fetch(token, "HEAD", Range=f"bytes={text}").status == 206


@pytest.mark.parametrize(
    "condition", ['"other"', "W/{0}", "Sat, 01 Jan 2000 00:00:00 GMT", "Sat, 01 Jan 2099 00:00:00 GMT", "{0}x"]
)
def test_if_range_that_does_not_hold_gets_the_whole(edge: Edge, fetch: Fetch, blob: str, condition: str) -> None:
    etag = edge.store(blob, CONTENT)
    reply = fetch(edge.token("link", file=blob), Range="bytes=5-9", If_Range=condition.format(etag))
    assert (reply.status, reply.body) == (200, CONTENT)


@pytest.mark.parametrize("text", ["bytes=0-1,5-6", "bytes=0-,0-,0-,0-", "bytes=1-0", "bytes=x", "lines=0-1", "bytes="])
def test_ranges_that_are_not_served(edge: Edge, fetch: Fetch, blob: str, text: str) -> None:
    edge.store(blob, CONTENT)
    reply = fetch(edge.token("link", file=blob), Range=text)
    assert reply.status in (200, 416)
    if reply.status == 200:
        assert reply.body == CONTENT
    else:
        assert reply.code == "RANGE_NOT_SATISFIABLE"


@pytest.mark.parametrize("text", ["10240-", "99999-100000", "-0"])
def test_a_range_beyond_the_end(edge: Edge, fetch: Fetch, blob: str, text: str) -> None:
    edge.store(blob, CONTENT)
    reply = fetch(edge.token("link", file=blob), Range=f"bytes={text}")
    assert (reply.status, reply.code) == (416, "RANGE_NOT_SATISFIABLE")
    assert reply.headers["Content-Range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize("condition", ["{0}", "W/{0}", '"x", {0}', "*"])
def test_not_modified(edge: Edge, fetch: Fetch, blob: str, condition: str) -> None:
    etag = edge.store(blob, CONTENT)
    token = edge.token("link", file=blob)
    for method in ("GET", "HEAD"):
        for more in ({}, {"Range": "bytes=0-1"}, {"If_Modified_Since": "Sat, 01 Jan 2000 00:00:00 GMT"}):
            reply = fetch(token, method, If_None_Match=condition.format(etag), **more)
            assert (reply.status, reply.body) == (304, b"")
            assert reply.headers["ETag"] == etag
            assert reply.headers["Cache-Control"] == "private, no-cache"
            assert len(reply.headers.get_all("X-Request-Id", [])) == 1


def test_other_conditions(edge: Edge, fetch: Fetch, blob: str) -> None:
    etag = edge.store(blob, CONTENT)
    token = edge.token("link", file=blob)
    stored = edge.storage / "objects" / "00000000" / blob[:2] / blob
    for date in ("Sat, 01 Jan 2099 00:00:00 GMT", formatdate(stored.stat().st_mtime, usegmt=True)):
        assert fetch(token, If_Modified_Since=date).body == CONTENT
    assert fetch(token, If_Unmodified_Since="Sat, 01 Jan 2000 00:00:00 GMT").body == CONTENT
    assert fetch(token, If_None_Match='"x"').body == CONTENT
    assert fetch(token, If_Match=etag).body == CONTENT
    reply = fetch(token, If_Match='"x"')
    assert (reply.status, reply.code) == (412, "PRECONDITION_FAILED")


def test_an_empty_file(edge: Edge, fetch: Fetch, blob: str) -> None:
    etag = edge.aim(blob, size=0, storage="empty")
    token = edge.token("link", file=blob, filename="e")
    for method in ("GET", "HEAD"):
        for headers in ({}, {"Range": "bytes=0-"}, {"Range": "bytes=-5"}):
            reply = fetch(token, method, **headers)
            assert (reply.status, reply.body) == (200, b"")
            assert reply.headers["Content-Length"] == "0"
            assert reply.headers["ETag"] == etag
            assert reply.headers["Content-Disposition"] == "attachment; filename=\"e\"; filename*=UTF-8''e"
            assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert fetch(token, If_None_Match=etag).status == 304


@pytest.mark.parametrize("vector", INVALID, ids=lambda vector: vector["why"])
def test_a_bad_token(edge: Edge, vector: dict[str, str]) -> None:
    reply = edge.get(f"/d/{quote(vector['token'], safe='')}/name")
    if vector["why"] in NO_SEGMENT:
        assert (reply.status, reply.code) == (404, "NOT_FOUND")
    elif vector["why"] == "expired":
        assert (reply.status, reply.code) == (410, "LINK_EXPIRED")
    elif vector["why"] == "NUL after":
        assert (reply.status, reply.code) == (400, "BAD_REQUEST")
    else:
        assert (reply.status, reply.code) == (403, "LINK_INVALID")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize("storage", ["local", "empty"])
def test_other_methods(edge: Edge, blob: str, method: str, storage: str) -> None:
    edge.store(blob, CONTENT) if storage == "local" else edge.aim(blob, size=0, storage=storage)
    reply = edge.ask(method, f"/d/{edge.token('link', file=blob)}/name", body=b"x")
    assert (reply.status, reply.code) == (405, "METHOD_NOT_ALLOWED")
    assert reply.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("name", ["a", "%E4%B8%96", "a%20b", "a%3Fb", "%2e%2e%2e", "x" * 255, "%F0%9F%9A%80" * 60])
def test_the_name_is_decoration(edge: Edge, blob: str, name: str) -> None:
    edge.store(blob, CONTENT)
    assert edge.get(f"/d/{edge.token('link', file=blob)}/{name}?any=thing").body == CONTENT


def test_the_longest_name(edge: Edge, blob: str) -> None:
    edge.store(blob, CONTENT)
    assert edge.get(f"/d/{edge.token('link', file=blob)}/{'%41' * 255}").body == CONTENT


@pytest.mark.parametrize("answer", [404, 410])
def test_a_blob_that_is_gone(edge: Edge, fetch: Fetch, blob: str, answer: int) -> None:
    edge.api.targets[blob] = Answer(answer, body=b'{"error":{"code":"X"}}')
    reply = fetch(edge.token("link", file=blob))
    assert (reply.status, reply.code) == ((404, "FILE_NOT_FOUND") if answer == 404 else (410, "FILE_CORRUPT"))


@pytest.mark.parametrize("storage", ["s3", "oss", "new"])
def test_a_storage_that_the_edge_does_not_know(edge: Edge, fetch: Fetch, blob: str, storage: str) -> None:
    edge.aim(blob, size=1, uri="/key", storage=storage)
    reply = fetch(edge.token("link", file=blob))
    assert (reply.status, reply.code) == (501, "STORAGE_UNSUPPORTED")


def test_a_file_that_the_disk_has_lost(edge: Edge, fetch: Fetch, blob: str) -> None:
    edge.aim(blob, size=len(CONTENT), uri=f"/00000000/{blob[:2]}/{blob}")
    token = edge.token("link", file=blob)
    reply = fetch(token)
    assert (reply.status, reply.code) == (503, "STORAGE_UNAVAILABLE")
    # The API was asked for another replica, and has none. The disk is checked each time.
    edge.store(blob, CONTENT)
    assert fetch(token).body == CONTENT
    assert edge.api.targets_asked.count(blob) == 2


def test_a_hostile_name_cannot_leave_its_header(edge: Edge, fetch: Fetch, blob: str) -> None:
    edge.store(blob, b"x")
    reply = fetch(edge.token("link", file=blob, filename='a"\r\nX-Evil: 1\r\n\r\n', type="text/plain\r\nX-Evil: 1"))
    assert reply.status == 200
    assert reply.body == b"x"
    assert "X-Evil" not in reply.headers


def test_the_apis_redirect_needs_a_good_token_too(edge: Edge, blob: str) -> None:
    edge.store(blob, CONTENT)
    redirect = {"X-Accel-Redirect": f"/_link/{edge.token('part')}/content"}
    edge.api.answer = lambda seen: Answer(200, redirect)
    reply = edge.ask("GET", "/api/v1/files/1/content", headers=edge.bearer())
    assert (reply.status, reply.code) == (403, "LINK_INVALID")


def test_a_gigabyte_is_sent_by_ranges_from_many_places(edge: Edge, blob: str) -> None:
    edge.store(blob, b"")
    size = 2**30
    path = edge.storage / "objects" / "00000000" / blob[:2] / blob
    with path.open("wb") as file:  # sparse
        file.truncate(size)
        file.seek(2**29)
        file.write(b"middle")
    edge.aim(blob, size=size, uri=f"/00000000/{blob[:2]}/{blob}")
    reply = edge.get(f"/d/{edge.token('link', file=blob)}/n", Range=f"bytes={2**29}-{2**29 + 5}")
    assert (reply.status, reply.body) == (206, b"middle")
    assert reply.headers["Content-Range"] == f"bytes {2**29}-{2**29 + 5}/{size}"
    path.unlink()
