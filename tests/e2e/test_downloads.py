"""Downloads by link and by bearer token: ranges, conditions, names of every kind, pages that must not run."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

import httpx
import pytest

from tests.e2e.client import Client, Json, code
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART, Source, Sources
from tests.e2e.wire import Wire

NAMES = [
    "plain.txt",
    "two words.txt",
    'quo"ted".txt',
    "semi;colon=1.txt",
    "per%cent%2F%00.txt",
    "plus+and&amp;.txt",
    "naïve café.txt",
    "汉字与かな.txt",
    "\U0001f389 party \U0001f468‍\U0001f469‍\U0001f467.zip",
    "e\u0301 decomposed",
    "  spaces around  ",
    "..hidden..",
    "...",
    "-rf",
    "'; DROP TABLE file; --",
    "$(reboot) `id`",
    "<svg onload=alert(1)>.html",
    "filename*=UTF-8''evil.exe",
    "q?#fragment",
    "a" * 255,
    "é" * 127,
    "عربي.txt",
]
Fetch = Callable[..., httpx.Response]


@dataclass
class Shared:
    """One file of two and a half parts, and a link to it."""

    source: Source
    file: Json
    url: str
    content: bytes


@pytest.fixture(scope="module")
def shared(user: Client, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    source = Sources(tmp_path_factory.mktemp("shared")).make(2 * PART + PART // 2 + 3, "shared")
    file = user.upload(source, "shared.bin")
    return Shared(source, file, user.link(file), source.path.read_bytes())


@pytest.fixture(params=["link", "bearer"])
def fetch(request: pytest.FixtureRequest, user: Client, shared: Shared) -> Fetch:
    """Downloads the shared file, by each of the two ways."""

    def by_link(method: str = "GET", **headers: str) -> httpx.Response:
        return user.fetch(shared.url, method, **headers)

    def by_bearer(method: str = "GET", **headers: str) -> httpx.Response:
        return user.call(
            method,
            f"/files/{shared.file['id']}/content",
            headers={name.replace("_", "-"): text for name, text in headers.items()},
        )

    return by_link if request.param == "link" else by_bearer


def names_in(response: httpx.Response) -> tuple[str, str, str]:
    """Disposition, ASCII name and real name of a response (RFC 6266)."""
    header = response.headers["Content-Disposition"]
    pattern = r"(attachment|inline); filename=\"([ !#-$&-.0-[\]-~]*)\"; filename\*=UTF-8''([!#$&+.^_`|~0-9A-Za-z%-]+)"
    match = re.fullmatch(pattern, header)
    assert match, header
    return match[1], match[2], unquote(match[3], errors="strict")


def test_the_whole_file_comes_with_every_header(fetch: Fetch, shared: Shared) -> None:
    response = fetch()
    assert response.status_code == 200
    assert response.content == shared.content
    headers = response.headers
    assert headers["ETag"] == f'"{shared.file["digest"]}"'
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Content-Length"] == str(shared.source.size)
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "private, no-cache"
    assert "Last-Modified" not in headers
    assert names_in(response) == ("attachment", "shared.bin", "shared.bin")


def test_head_says_the_same_without_the_bytes(fetch: Fetch) -> None:
    get, head = fetch(), fetch("HEAD")
    assert (head.status_code, head.content) == (200, b"")
    volatile = {"date", "x-request-id"}
    assert {k: v for k, v in head.headers.items() if k not in volatile} == {
        k: v for k, v in get.headers.items() if k not in volatile
    }


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=-1", -1, -1),
        ("bytes=0-", 0, -1),
        ("bytes=100-199", 100, 199),
        (f"bytes={PART - 1}-{PART}", PART - 1, PART),
        (f"bytes={2 * PART}-", 2 * PART, -1),
        ("bytes=-500", -500, -1),
        (f"bytes=-{9 * PART}", 0, -1),
        (f"bytes=5-{9 * PART}", 5, -1),
    ],
)
def test_a_range_is_exactly_that_range(fetch: Fetch, shared: Shared, asked: str, first: int, last: int) -> None:
    size = shared.source.size
    first, last = first % size, last % size
    response = fetch(Range=asked)
    assert response.status_code == 206
    assert response.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
    assert response.content == shared.content[first : last + 1]
    assert response.headers["ETag"] == f'"{shared.file["digest"]}"'


@pytest.mark.parametrize("offset", [0, 1, 10**12])
def test_a_range_past_the_end_is_416_and_says_the_size(fetch: Fetch, shared: Shared, offset: int) -> None:
    response = fetch(Range=f"bytes={shared.source.size + offset}-")
    assert code(response) == (416, "RANGE_NOT_SATISFIABLE")
    assert response.headers["Content-Range"] == f"bytes */{shared.source.size}"


@pytest.mark.parametrize(
    "asked", ["bytes=0-0,5-9", "bytes=0-,0-,0-,0-,0-", "lines=1-2", "bytes=9-3", "bytes=", "bytes=a-b"]
)
def test_other_ranges_get_the_whole_file_or_a_refusal(fetch: Fetch, shared: Shared, asked: str) -> None:
    response = fetch(Range=asked)
    assert response.status_code in (200, 416)
    assert response.status_code == 416 or response.content == shared.content


def test_if_range_with_the_same_content_gives_the_range(fetch: Fetch, shared: Shared) -> None:
    response = fetch(Range="bytes=10-19", If_Range=f'"{shared.file["digest"]}"')
    assert (response.status_code, response.content) == (206, shared.content[10:20])


@pytest.mark.parametrize("validator", ['"another"', "Wed, 21 Oct 2037 07:28:00 GMT", 'W/"weak"'])
def test_if_range_with_other_content_gives_all_of_it(fetch: Fetch, shared: Shared, validator: str) -> None:
    response = fetch(Range="bytes=10-19", If_Range=validator)
    assert (response.status_code, response.content) == (200, shared.content)


@pytest.mark.parametrize("pattern", ['"{}"', 'W/"{}"', '"x", "{}", "y"', "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_if_none_match_is_304_without_a_byte(fetch: Fetch, shared: Shared, pattern: str, method: str) -> None:
    response = fetch(method, If_None_Match=pattern.format(shared.file["digest"]))
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["ETag"] == f'"{shared.file["digest"]}"'
    assert response.headers.get("Content-Type", "application/octet-stream") == "application/octet-stream", "not JSON"


def test_if_none_match_with_other_content_gives_all_of_it(fetch: Fetch, shared: Shared) -> None:
    assert fetch(If_None_Match='"another"').content == shared.content
    assert fetch(If_Modified_Since="Wed, 21 Oct 2037 07:28:00 GMT").status_code == 200, "times are no validators"


def test_if_match_with_other_content_is_refused(fetch: Fetch, shared: Shared) -> None:
    assert fetch(If_Match='"another"').status_code == 412
    assert fetch(If_Match=f'"{shared.file["digest"]}"').content == shared.content


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_link_takes_get_and_head_alone(user: Client, shared: Shared, method: str) -> None:
    response = user.fetch(shared.url, method)
    assert code(response) == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["Allow"] == "GET, HEAD"


def test_an_interrupted_download_goes_on_by_range(user: Client, shared: Shared) -> None:
    with user.http.stream("GET", shared.url) as response:
        begun = next(response.iter_raw(PART))
    rest = user.fetch(shared.url, Range=f"bytes={len(begun)}-", If_Range=response.headers["ETag"])
    assert begun + rest.content == shared.content


def test_an_empty_file_has_no_range(user: Client, sources: Sources) -> None:
    url = user.link(user.upload(sources.make(0), "empty"))
    for headers in ({}, {"Range": "bytes=0-0"}, {"Range": "bytes=-5"}, {"Range": "bytes=7-"}):
        response = user.fetch(url, **headers)
        assert response.status_code in ((200, 416) if headers else (200,))
        assert response.is_error or (response.content, response.headers["Content-Length"]) == (b"", "0")
    head = user.fetch(url, "HEAD")
    assert (head.status_code, head.headers["Content-Length"]) == (200, "0")
    etag = head.headers["ETag"]
    assert user.fetch(url, If_None_Match=etag).status_code == 304


@pytest.mark.parametrize("name", NAMES)
def test_any_name_comes_back_as_it_went(user: Client, sources: Sources, name: str) -> None:
    file = user.upload(sources.make(64, "named"), name)
    assert file["name"] == name
    url = user.link(file)
    for response in (user.fetch(url), user.call("GET", f"/files/{file['id']}/content")):
        disposition, _, real = names_in(response)
        assert (response.status_code, disposition, real) == (200, "attachment", name)


def test_a_new_name_is_in_new_links(user: Client, sources: Sources) -> None:
    file = user.upload(sources.make(65, "renamed"), "old")
    old_url = user.link(file)
    renamed = user.want(200, "PATCH", f"/files/{file['id']}", {"name": "neu.txt"})
    assert renamed["name"] == "neu.txt"
    assert names_in(user.fetch(user.link(file)))[2] == "neu.txt"
    assert user.fetch(old_url).status_code == 200


@pytest.mark.parametrize(
    ("content_type", "inline"),
    [
        ("image/png", True),
        ("text/plain", True),
        ("text/plain; charset=utf-8", True),
        ("application/pdf", True),
        ("text/html", False),
        ("TEXT/HTML", False),
        ("image/svg+xml", False),
        ("application/xhtml+xml", False),
        ("text/javascript", False),
        ("text/html\r\nSet-Cookie: a=b", False),
    ],
)
def test_only_what_cannot_run_is_shown_in_place(
    user: Client, sources: Sources, content_type: str, inline: bool
) -> None:
    file = user.upload(sources.make(66, content_type[:9].replace("/", "")), "page", content_type=content_type)
    for disposition in ("attachment", "inline"):
        url = user.link(file, disposition=disposition)
        content = f"/files/{file['id']}/content?disposition={disposition}"
        for response in (user.fetch(url), user.call("GET", content)):
            shown = "inline" if inline and disposition == "inline" else "attachment"
            assert names_in(response)[0] == shown
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
            assert "Set-Cookie" not in response.headers
            plain = "application/octet-stream" if "\r" in content_type else content_type
            assert response.headers["Content-Type"] == plain


@pytest.mark.parametrize("path", ["/_link/x/y", "/_error", "/internal/revocations", "/internal/targets/" + "0" * 32])
def test_what_is_internal_cannot_be_asked_for(gateway: Gateway, user: Client, path: str) -> None:
    edge_key = (gateway.data / "secrets" / "edge_key").read_text().strip()
    for headers in ({}, {"X_Sluice_Edge": edge_key}, {"X_Accel_Redirect": "/_link/x/y"}):
        assert code(user.fetch(gateway.address + path, **headers)) == (404, "NOT_FOUND")


@pytest.mark.parametrize("suffix", ["/../../secrets/token_keys", "/%2e%2e/%2e%2e/secrets", "//x", "/a/b"])
def test_a_links_path_leads_nowhere_else(gateway: Gateway, shared: Shared, suffix: str) -> None:
    with Wire(shared.url.rpartition("/")[0] + suffix) as wire:
        status, error = wire.begin("GET", Connection="close").answer()
    assert (status, error) in [(404, "NOT_FOUND"), (400, "BAD_REQUEST"), (403, "LINK_INVALID")]


def test_a_file_that_is_not_there_is_404(user: Client, other: Client, shared: Shared) -> None:
    for file_id in ("0" * 32, "x", "../files", shared.file["id"].upper() + "0"):
        assert user.call("GET", f"/files/{file_id}/content").status_code == 404
    for method, path in (("GET", ""), ("GET", "/content"), ("PATCH", ""), ("DELETE", ""), ("POST", "/links")):
        body = {"name": "x"} if method == "PATCH" else {} if method == "POST" else None
        response = other.call(method, f"/files/{shared.file['id']}{path}", body)
        assert code(response) == (404, "FILE_NOT_FOUND"), "another user's file"
    assert user.fetch(shared.url).status_code == 200
