"""A replica that cannot be read: the edge reads another one, reports which failed and why, and sends no other bytes."""

import hashlib
import http.client
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from api.core.tiers import Tier
from tests.nginx import stub_storage
from tests.nginx.edge import Edge, Reply
from tests.nginx.proxied import CONTENT, SIZE, download
from tests.nginx.stub_api import Answer as APIAnswer
from tests.nginx.stub_api import wait_for
from tests.nginx.stub_storage import Answer, Request, StubStorage, ranged
from tests.nginx.tiers import document

MakeEdge = Callable[..., Edge]
LAST = SIZE - 1


def key_of(file: str) -> str:
    return f"00000000/{file[:2]}/{file}"


def spoil(edge: Edge, file: str, how: str) -> None:
    """Breaks the file's object of local storage."""
    path = edge.storage / "objects" / key_of(file)
    if how == "gone":
        path.unlink()
    elif how == "unreadable":
        # A folder cannot be opened as a file, even by root.
        path.unlink()
        path.symlink_to(path)
    else:
        path.write_bytes(CONTENT[:-1] if how == "shorter" else CONTENT + b"x" if how == "longer" else b"")


REASONS = {"gone": "missing", "shorter": "length", "longer": "length", "empty": "length", "unreadable": "error"}


@pytest.fixture
def file() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def local(edge: Edge, file: str) -> str:
    """A file in local storage and on the proxied storage ``second``."""
    edge.store(file, CONTENT)
    edge.aim(file, size=SIZE, uri=f"/{key_of(file)}", name="local", others=True)
    return file


@pytest.fixture
def second(edge: Edge, storage: StubStorage, file: str) -> StubStorage:
    """The second replica's storage, which works."""
    storage.handle = ranged(CONTENT)
    edge.aim(file, size=SIZE, uri=storage.url(file), storage="s3", name="second", also=True)
    return storage


WANTED = [({}, 200, 0, LAST), ({"Range": "bytes=5-9"}, 206, 5, 9), ({"Range": f"bytes={LAST}-"}, 206, LAST, LAST)]


def check(reply: Reply, status: int, first: int, last: int, etag: str) -> None:
    assert (reply.status, reply.body) == (status, CONTENT[first : last + 1])
    assert reply.headers.get_all("ETag") == [etag]
    assert reply.headers.get_all("Content-Length") == [str(last - first + 1)]
    assert reply.headers.get_all("Content-Range") == ([f"bytes {first}-{last}/{SIZE}"] if status == 206 else None)
    assert reply.headers.get_all("Content-Type") == ["text/x-thing"]
    assert reply.headers["Content-Disposition"].startswith("attachment")
    assert reply.headers["Cache-Control"] == "private, no-cache"


def etag_of(file: str) -> str:
    """As in `Edge.aim`."""
    return f'"{hashlib.sha256(file.encode()).hexdigest()}"'


@pytest.mark.parametrize("how", REASONS)
class TestAnObjectOfLocalStorage:
    @pytest.mark.parametrize(("headers", "status", "first", "last"), WANTED)
    def test_is_read_elsewhere(
        self, edge: Edge, local: str, second: StubStorage, how: str, headers: dict[str, str], status: int, first: int,
        last: int,
    ) -> None:  # fmt: skip
        assert download(edge, local).body == CONTENT
        spoil(edge, local, how)
        for _ in range(2):
            check(download(edge, local, **headers), status, first, last, etag_of(local))
        assert [row for row in edge.api.reported if row[0] == local] == [(local, "local", REASONS[how])]
        assert second.seen[0].header("Range") == (f"bytes={first}-{last}" if headers else None)

    def test_by_head(self, edge: Edge, local: str, second: StubStorage, how: str) -> None:
        spoil(edge, local, how)
        reply = download(edge, local, "HEAD")
        assert (reply.status, reply.headers["Content-Length"]) == (200, str(SIZE))
        reply = download(edge, local, "HEAD", Range="bytes=5-9")
        assert (reply.status, reply.headers["Content-Range"]) == (206, f"bytes 5-9/{SIZE}")
        assert second.seen == []

    def test_for_a_bearer_token(self, edge: Edge, local: str, second: StubStorage, how: str) -> None:
        spoil(edge, local, how)
        redirect = {"X-Accel-Redirect": f"/_link/{edge.token('link', file=local, type='text/x-thing')}/x"}
        edge.api.answer = lambda seen: APIAnswer(200, redirect, b"{}")
        reply = edge.ask("GET", "/api/v1/files/1/content", headers=edge.bearer())
        check(reply, 200, 0, LAST, etag_of(local))

    def test_at_a_pace(self, make_edge: MakeEdge, storage: StubStorage, file: str, how: str) -> None:
        edge = make_edge(tiers=document(default=Tier(rate=2**30)))
        edge.store(file, CONTENT)
        edge.aim(file, size=SIZE, uri=f"/{key_of(file)}", name="local", others=True)
        storage.handle = ranged(CONTENT)
        edge.aim(file, size=SIZE, uri=storage.url(file), storage="s3", name="second", also=True)
        assert download(edge, file).body == CONTENT
        spoil(edge, file, how)
        check(download(edge, file), 200, 0, LAST, etag_of(file))
        check(download(edge, file, Range="bytes=5-9"), 206, 5, 9, etag_of(file))

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("wanted", ["", "bytes=5-9", f"bytes={LAST}-", "bytes=-1"])
    def test_that_is_the_only_one_names_no_other_size(
        self, edge: Edge, file: str, how: str, method: str, wanted: str
    ) -> None:
        edge.store(file, CONTENT)
        headers = {"Range": wanted} if wanted else {}
        assert download(edge, file, method, **headers).status == (206 if wanted else 200)
        spoil(edge, file, how)
        reply = download(edge, file, method, **headers)
        assert reply.status == 503
        assert reply.headers["Retry-After"] == "1"
        assert "Content-Range" not in reply.headers
        if method == "GET":
            assert reply.code == "STORAGE_UNAVAILABLE"
        assert download(edge, file, Range=f"bytes={SIZE}-").headers["Content-Range"] == f"bytes */{SIZE}"

    def test_that_is_lost_everywhere_says_so(self, edge: Edge, file: str, how: str) -> None:
        edge.store(file, CONTENT)
        assert download(edge, file).status == 200
        spoil(edge, file, how)
        edge.api.targets[file] = APIAnswer(410, body=b'{"error":{"code":"CONTENT_LOST"}}')
        reply = download(edge, file)
        assert (reply.status, reply.code) == (410, "CONTENT_LOST")
        assert "Retry-After" not in reply.headers


def fail(status: int) -> Callable[[Request], Answer]:
    return lambda request: Answer(status, {}, b"an error", length=8)


class TestAProxiedReplica:
    @pytest.fixture(params=["plain", "cached"])
    def first(self, request: pytest.FixtureRequest, edge: Edge, file: str) -> Iterator[StubStorage]:
        with stub_storage.running() as made:
            edge.aim(
                file, size=SIZE, uri=made.url(file), storage="s3", name="first", others=True,
                cached=request.param == "cached",
            )  # fmt: skip
            yield made

    @pytest.mark.parametrize(("status", "reason"), [(404, "missing"), (403, "error"), (500, "error"), (503, "error")])
    @pytest.mark.parametrize(("headers", "answered", "begin", "end"), WANTED)
    def test_that_fails_is_read_elsewhere(
        self, edge: Edge, file: str, first: StubStorage, second: StubStorage, status: int, reason: str,
        headers: dict[str, str], answered: int, begin: int, end: int,
    ) -> None:  # fmt: skip
        first.handle = fail(status)
        for _ in range(2):
            check(download(edge, file, **headers), answered, begin, end, etag_of(file))
        assert [row for row in edge.api.reported if row[0] == file] == [(file, "first", reason)]
        assert len(first.seen) == 1

    @pytest.mark.parametrize(("headers", "answered", "begin", "end"), WANTED)
    def test_is_read_from_local_storage(
        self, edge: Edge, file: str, first: StubStorage, headers: dict[str, str], answered: int, begin: int, end: int
    ) -> None:
        first.handle = fail(404)
        proxied = edge.api.targets[file]
        edge.store(file, CONTENT)
        edge.api.targets[file] = proxied
        edge.aim(file, size=SIZE, uri=f"/{key_of(file)}", name="local", also=True)
        check(download(edge, file, **headers), answered, begin, end, etag_of(file))
        check(download(edge, file, **headers), answered, begin, end, etag_of(file))

    def test_and_the_next_one_too(self, edge: Edge, file: str, first: StubStorage, second: StubStorage) -> None:
        """Three are tried: the third is on local storage."""
        first.handle = second.handle = fail(500)
        proxied = edge.api.targets[file]
        edge.store(file, CONTENT)
        edge.api.targets[file] = proxied
        edge.aim(file, size=SIZE, uri=f"/{key_of(file)}", name="local", also=True)
        check(download(edge, file), 200, 0, LAST, etag_of(file))
        assert [row for row in edge.api.reported if row[0] == file] == [
            (file, "first", "error"),
            (file, "first,second", "error"),
        ]

    def test_tries_are_bounded(self, edge: Edge, file: str, first: StubStorage) -> None:
        first.handle = fail(500)
        for n in range(9):
            name = "first" if n == 0 else f"s{n}"
            edge.aim(
                file, size=SIZE, uri=first.url(file, signature=str(n)), storage="s3", name=name, others=True, also=n > 0
            )
        reply = download(edge, file)
        assert (reply.status, reply.code) == (503, "STORAGE_UNAVAILABLE")
        assert len(first.seen) == 3

    def test_of_another_length_is_not_read_a_second_time(
        self, edge: Edge, file: str, first: StubStorage, second: StubStorage
    ) -> None:
        """nginx has begun its response when it sees the length, so the first request must be repeated."""
        first.handle = ranged(CONTENT[:-1])
        try:
            assert download(edge, file).code == "STORAGE_UNAVAILABLE"
        except http.client.RemoteDisconnected:
            pytest.fail("no answer")
        wait_for(lambda: (file, "first", "length") in edge.api.reported, "report")
        wait_for(lambda: download(edge, file).status == 200, "another replica")
        check(download(edge, file), 200, 0, LAST, etag_of(file))

    def test_that_is_silent_is_given_up_while_there_is_another(
        self, edge: Edge, file: str, first: StubStorage, second: StubStorage
    ) -> None:
        def hang(request: Request) -> Answer:
            first.release.wait(40)
            return Answer()

        first.handle = hang
        begun = time.monotonic()
        check(download(edge, file), 200, 0, LAST, etag_of(file))
        assert 9 < time.monotonic() - begun < 20
        assert (file, "first", "timeout") in edge.api.reported
        first.release.set()

    def test_is_counted(self, edge: Edge, file: str, first: StubStorage, second: StubStorage) -> None:
        first.handle = fail(404)
        assert download(edge, file).status == 200

        def counted() -> bool:
            text = edge.get("/metrics").body.decode()
            return 'sluice_edge_fallbacks_total{storage="first",reason="missing"}' in text

        wait_for(counted, "figure")


@pytest.mark.parametrize(("headers", "status", "first", "last"), WANTED)
def test_what_nginx_cannot_open_is_read_elsewhere(
    make_edge: MakeEdge, storage: StubStorage, file: str, headers: dict[str, str], status: int, first: int, last: int
) -> None:
    """Lua has seen the object with its size, but nginx finds none."""
    edge = make_edge(change={"snippets/download.conf": lambda text: text.replace("/objects", "/nothing")})
    edge.store(file, CONTENT)
    edge.aim(file, size=SIZE, uri=f"/{key_of(file)}", name="local", others=True)
    storage.handle = ranged(CONTENT)
    edge.aim(file, size=SIZE, uri=storage.url(file), storage="s3", name="second", also=True)
    check(download(edge, file, **headers), status, first, last, etag_of(file))
    assert edge.api.reported == [(file, "local", "missing")]


def test_one_that_is_alone_is_not_asked_about_for_each_request(edge: Edge, storage: StubStorage, file: str) -> None:
    storage.handle = fail(500)
    edge.aim(file, size=SIZE, uri=storage.url(file), storage="s3")
    edge.api.targets_asked.clear()
    begun = time.monotonic()
    for _ in range(20):
        assert download(edge, file).status == 503
    # The first lookup, then one per second in each worker.
    assert edge.api.targets_asked.count(file) <= 3 + 2 * (time.monotonic() - begun)
    assert [row for row in edge.api.reported if row[0] == file] == [(file, "main", "error")]


def test_another_files_content_is_no_replica(edge: Edge, local: str, second: StubStorage) -> None:
    """The file got other content after the request was judged by the old content's ETag."""
    other = uuid.uuid4().hex
    edge.aim(other, size=SIZE, uri=second.url(other), storage="s3", name="second")
    edge.api.others[local] = [edge.api.targets[other]]
    spoil(edge, local, "gone")
    reply = download(edge, local)
    assert (reply.status, reply.code) == (503, "STORAGE_UNAVAILABLE")
