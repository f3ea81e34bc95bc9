"""A download returns the same response from any storage: local disk, a real Ceph, OSS's stand-in."""

import hashlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from api.core.config import S3Config
from api.storage.oss.storage import OSSStorage
from api.storage.s3.storage import S3Storage
from tests.nginx.edge import Edge, Reply
from tests.nginx.stub_api import Answer
from tests.storage import oss_standin
from tests.storage.contract import PREFIX
from tests.storage.oss_bucket import Bucket, Stored

CONTENT = bytes(range(256)) * 40
SIZE = len(CONTENT)
TYPE = "application/x-thing"


@dataclass(frozen=True)
class Place:
    """A storage with the blob in it.

    Attributes:
        kind: local, s3 or oss.
        blob: its id.
        etag: the ETag of downloads.
        reads: number of reads at the storage, if it is known.
    """

    kind: str
    blob: str
    etag: str
    reads: Callable[[], int]


def in_local(edge: Edge, blob: str) -> Iterator[Place]:
    yield Place("local", blob, edge.store(blob, CONTENT), lambda: 0)


def in_s3(edge: Edge, blob: str, config: S3Config, cached: bool = False) -> Iterator[Place]:
    storage, key = S3Storage(config, lambda: PREFIX), f"{PREFIX}/aa/{blob}"
    storage._client.put_object(Bucket=config.bucket, Key=key, Body=CONTENT, ContentType="text/html")
    etag = edge.aim(blob, size=SIZE, uri=storage.internal_uri(key), storage="s3", cached=cached)
    yield Place("s3", blob, etag, lambda: 0)
    storage.delete(key)


def in_oss(edge: Edge, blob: str, cached: bool = False) -> Iterator[Place]:
    with oss_standin.running(oss_standin.ACCOUNT, Bucket()) as standin:
        storage, key = OSSStorage(standin.settings(), lambda: PREFIX), f"{PREFIX}/aa/{blob}"
        standin.bucket.objects[key] = Stored(CONTENT, hashlib.md5(CONTENT).hexdigest())  # noqa: S324 - OSS's ETag
        etag = edge.aim(blob, size=SIZE, uri=storage.internal_uri(key), storage="oss", cached=cached)
        yield Place("oss", blob, etag, lambda: standin.count("get"))


@pytest.fixture(params=["local", "s3", "oss", "s3 cached", "oss cached"])
def place(request: pytest.FixtureRequest, edge: Edge) -> Iterator[Place]:
    blob, (kind, _, cached) = uuid.uuid4().hex, request.param.partition(" ")
    if kind == "s3":
        yield from in_s3(edge, blob, request.getfixturevalue("s3_config"), bool(cached))
    elif kind == "oss":
        yield from in_oss(edge, blob, bool(cached))
    else:
        yield from in_local(edge, blob)


Fetch = Callable[..., Reply]


@pytest.fixture(params=["link", "content"])
def fetch(request: pytest.FixtureRequest, edge: Edge, place: Place) -> Fetch:
    """Requests the blob by a link, or through the API's response to a bearer token."""
    token = edge.token("link", file=place.blob, filename="thing", type=TYPE)

    def ask(method: str = "GET", **headers: str) -> Reply:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if request.param == "link":
            return edge.ask(method, f"/d/{token}/thing", headers=given)
        redirect = {"X-Accel-Redirect": f"/_link/{token}/content", "Content-Type": "text/html"}
        edge.api.answer = lambda seen: Answer(200, redirect, b"the API's own body")
        return edge.ask(method, "/api/v1/files/1/content", headers={**edge.bearer(), **given})

    return ask


def check_headers(place: Place, reply: Reply, **more: str) -> None:
    """All headers of a successful response, and no others: none of the storage's headers pass."""
    expected = {
        "ETag": place.etag, "Content-Type": TYPE, "Cache-Control": "private, no-cache",
        "Content-Disposition": "attachment; filename=\"thing\"; filename*=UTF-8''thing",
        "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'",
        "Referrer-Policy": "no-referrer", "Server": "nginx", "Connection": "keep-alive",
    }  # fmt: skip
    expected |= {name.replace("_", "-"): value for name, value in more.items()}
    if reply.status == 200:
        expected["Accept-Ranges"] = "bytes"
    found = {name: value for name, value in reply.headers.items() if name not in ("Date", "X-Request-Id")}
    assert found == expected
    assert len(reply.headers) == len(expected) + 2


def test_the_whole(place: Place, fetch: Fetch) -> None:
    for _ in range(2):
        reply = fetch()
        assert (reply.status, reply.body) == (200, CONTENT)
        check_headers(place, reply, Content_Length=str(SIZE))


RANGES = [
    ("0-0", 0, 0),
    ("100-199", 100, 199),
    ("0-", 0, SIZE - 1),
    ("10000-", 10000, SIZE - 1),
    ("-1", SIZE - 1, SIZE - 1),
    (f"-{SIZE}", 0, SIZE - 1),
    ("-99999", 0, SIZE - 1),
    ("10000-99999", 10000, SIZE - 1),
    (f"0-{SIZE}", 0, SIZE - 1),
    ("0-99999999999999999999", 0, SIZE - 1),
]


@pytest.mark.parametrize(("text", "first", "last"), RANGES)
def test_a_range(place: Place, fetch: Fetch, text: str, first: int, last: int) -> None:
    for condition in ({}, {"If_Range": place.etag}):
        reply = fetch(Range=f"bytes={text}", **condition)
        assert (reply.status, reply.body) == (206, CONTENT[first : last + 1])
        length = str(last - first + 1)
        check_headers(place, reply, Content_Length=length, Content_Range=f"bytes {first}-{last}/{SIZE}")


@pytest.mark.parametrize(
    "text", ["bytes=0-1,5-6", "bytes=0-,0-,0-,0-", "bytes=9-5", "bytes=x", "lines=0-1", "bytes=", "0-1", "bytes=-"]
)
def test_what_is_no_single_range_gets_the_whole(place: Place, fetch: Fetch, text: str) -> None:
    reply = fetch(Range=text)
    assert (reply.status, reply.body) == (200, CONTENT)
    check_headers(place, reply, Content_Length=str(SIZE))


@pytest.mark.parametrize(
    "condition", ['"other"', "W/{0}", "{0}x", "Sat, 01 Jan 2000 00:00:00 GMT", "Sat, 01 Jan 2099 00:00:00 GMT"]
)
def test_if_range_that_does_not_hold_gets_the_whole(place: Place, fetch: Fetch, condition: str) -> None:
    reply = fetch(Range="bytes=5-9", If_Range=condition.format(place.etag))
    assert (reply.status, reply.body) == (200, CONTENT)
    check_headers(place, reply, Content_Length=str(SIZE))


@pytest.mark.parametrize("text", [f"{SIZE}-", "99999-100000", "-0", "99999999999999999999-"])
def test_a_range_beyond_the_end(place: Place, fetch: Fetch, text: str) -> None:
    asked = place.reads()
    for method in ("GET", "HEAD"):
        reply = fetch(method, Range=f"bytes={text}")
        assert reply.status == 416
        assert reply.headers["Content-Range"] == f"bytes */{SIZE}"
        assert not {"ETag", "Accept-Ranges", "Content-Disposition"} & set(reply.headers)
        if method == "GET":
            assert reply.code == "RANGE_NOT_SATISFIABLE"
    assert place.reads() == asked


def test_head(place: Place, fetch: Fetch) -> None:
    asked = place.reads()
    reply = fetch("HEAD")
    assert (reply.status, reply.body) == (200, b"")
    check_headers(place, reply, Content_Length=str(SIZE))
    for text, first, last in RANGES:
        reply = fetch("HEAD", Range=f"bytes={text}")
        assert (reply.status, reply.body) == (206, b"")
        length = str(last - first + 1)
        check_headers(place, reply, Content_Length=length, Content_Range=f"bytes {first}-{last}/{SIZE}")
    assert place.reads() == asked


@pytest.mark.parametrize("condition", ["{0}", "W/{0}", '"x", {0}', "*"])
def test_not_modified(place: Place, fetch: Fetch, condition: str) -> None:
    asked = place.reads()
    for method in ("GET", "HEAD"):
        for more in ({}, {"Range": "bytes=0-1"}, {"If_Modified_Since": "Sat, 01 Jan 2000 00:00:00 GMT"}):
            reply = fetch(method, If_None_Match=condition.format(place.etag), **more)
            assert (reply.status, reply.body) == (304, b"")
            assert reply.headers["ETag"] == place.etag
            assert reply.headers["Cache-Control"] == "private, no-cache"
    assert place.reads() == asked


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If_None_Match": '"x"'}, 200),
        ({"If_Match": "{0}"}, 200),
        ({"If_Match": "*"}, 200),
        ({"If_Match": '"x", {0}', "Range": "bytes=1-2"}, 206),
        ({"If_Match": '"x"'}, 412),
        ({"If_Match": "W/{0}"}, 412),
        ({"If_Match": '"x"', "If_None_Match": "{0}"}, 412),
        ({"If_Match": "{0}", "If_None_Match": "{0}"}, 304),
        # Dates are no validators here.
        ({"If_Modified_Since": "Sat, 01 Jan 2099 00:00:00 GMT"}, 200),
        ({"If_Unmodified_Since": "Sat, 01 Jan 2000 00:00:00 GMT"}, 200),
        ({"If_Unmodified_Since": "Sat, 01 Jan 2000 00:00:00 GMT", "Range": "bytes=1-2"}, 206),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_other_conditions(place: Place, fetch: Fetch, method: str, headers: dict[str, str], status: int) -> None:
    reply = fetch(method, **{name: value.format(place.etag) for name, value in headers.items()})
    assert reply.status == status
    if method == "GET":
        assert status != 412 or reply.code == "PRECONDITION_FAILED"
        assert reply.body == {200: CONTENT, 206: CONTENT[1:3], 304: b"", 412: reply.body}[status]


def test_what_a_client_says_beside_it_changes_nothing(place: Place, fetch: Fetch) -> None:
    headers = {
        "Cookie": "a=b", "Accept_Encoding": "gzip", "X_Amz_Content_Sha256": "0" * 64, "X_Oss_Process": "image/resize",
        "X_Amz_Server_Side_Encryption_Customer_Algorithm": "AES256", "Content_Type": "text/html", "Host": "evil",
        "X_HTTP_Method_Override": "DELETE", "Expect": "", "TE": "trailers", "X_Forwarded_Host": "evil",
    }  # fmt: skip
    reply = fetch(**headers)
    assert (reply.status, reply.body) == (200, CONTENT)
    check_headers(place, reply, Content_Length=str(SIZE))


def test_a_body_is_thrown_away(edge: Edge, place: Place) -> None:
    token = edge.token("link", file=place.blob, type=TYPE)
    for _ in range(2):
        reply = edge.ask("GET", f"/d/{token}/thing", body=b"x" * 100_000)
        assert (reply.status, reply.body) == (200, CONTENT)
