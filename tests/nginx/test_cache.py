"""Hot content on the edge's disk: requests to the storage and their number, and content that is never cached."""

import http.client
import os
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from api.core.tiers import Tier
from tests.nginx import tiers
from tests.nginx.edge import Edge, Reply
from tests.nginx.stub_api import Answer as APIAnswer
from tests.nginx.stub_api import wait_for
from tests.nginx.stub_storage import Answer, Handle, Request, StubStorage, ranged
from tests.vectors.make_tokens import CLAIMS

MIB = 2**20
CONTENT = os.urandom(4 * MIB + 12345)
SIZE = len(CONTENT)
PIECES = 5
MakeEdge = Callable[..., Edge]


class Blob:
    """A blob on the stand-in that the edge caches."""

    def __init__(self, edge: Edge, storage: StubStorage, handle: Handle | None = None) -> None:
        self.edge, self.storage, self.id = edge, storage, uuid.uuid4().hex
        self.storage.handle = handle or ranged(CONTENT)
        self.aim()

    def aim(self, **how: str) -> None:
        uri = self.storage.url(**{"name": f"key-{self.id}", **how})
        self.edge.aim(self.id, size=SIZE, uri=uri, storage="s3", cached=True)

    def get(self, method: str = "GET", **headers: str) -> Reply:
        token = self.edge.token("link", file=self.id, filename="n", type="text/x-thing")
        return self.edge.ask(method, f"/d/{token}/n", headers={k.replace("_", "-"): v for k, v in headers.items()})

    def asked(self) -> Counter[str | None]:
        """How often each piece was requested from the storage."""
        return Counter(request.header("Range") for request in self.storage.seen)


def piece(number: int) -> str:
    return f"bytes={number * MIB}-{number * MIB + MIB - 1}"


def test_a_blob_is_fetched_once(edge: Edge, storage: StubStorage) -> None:
    blob = Blob(edge, storage)
    for _ in range(3):
        reply = blob.get()
        assert (reply.status, reply.body == CONTENT) == (200, True)
        assert reply.headers.get_all("Content-Length") == [str(SIZE)]
        assert len(reply.headers.get_all("ETag", [])) == 1
    assert blob.asked() == Counter({piece(n): 1 for n in range(PIECES)})


def test_a_range_fetches_its_pieces_alone(edge: Edge, storage: StubStorage) -> None:
    blob = Blob(edge, storage)
    first, last = MIB - 5, 2 * MIB + 5
    for _ in range(2):
        reply = blob.get(Range=f"bytes={first}-{last}")
        assert (reply.status, reply.body == CONTENT[first : last + 1]) == (206, True)
        assert reply.headers.get_all("Content-Range") == [f"bytes {first}-{last}/{SIZE}"]
    assert blob.asked() == Counter({piece(n): 1 for n in range(3)})
    assert blob.get(Range=f"bytes={SIZE - 1}-").body == CONTENT[-1:]
    assert blob.asked()[piece(4)] == 1


def test_a_head_and_a_match_fetch_nothing(edge: Edge, storage: StubStorage) -> None:
    blob = Blob(edge, storage)
    etag = blob.get("HEAD").headers["ETag"]
    assert blob.get(If_None_Match=etag).status == 304
    assert storage.seen == []
    assert blob.get(If_Match=etag, If_Range=etag, Range="bytes=0-0").body == CONTENT[:1]


def test_many_waiting_requests_cost_one_fetch(edge: Edge, storage: StubStorage) -> None:
    first_came, go = threading.Event(), threading.Event()

    def handle(request: Request) -> Answer:
        first_came.set()
        go.wait(10)
        return ranged(CONTENT)(request)

    blob = Blob(edge, storage, handle)
    with ThreadPoolExecutor(16) as pool:
        replies = [pool.submit(blob.get) for _ in range(16)]
        assert first_came.wait(10)
        go.set()
        assert all(reply.result().body == CONTENT for reply in replies)
    assert set(blob.asked().values()) == {1}


def test_a_new_signature_is_the_same_object_and_another_object_is_not(
    make_edge: MakeEdge, storage: StubStorage
) -> None:
    edge = make_edge(SLUICE_TARGET_TTL="1")
    blob = Blob(edge, storage)
    assert blob.get().body == CONTENT
    storage.seen.clear()
    blob.aim(signature="renewed")
    asked = len(edge.api.targets_asked)
    wait_for(lambda: blob.get("HEAD") and len(edge.api.targets_asked) > asked, "new target")
    assert blob.get().body == CONTENT
    assert storage.seen == []
    # another replica: cached pieces of a damaged one must not be used for it
    blob.aim(name="elsewhere")
    asked = len(edge.api.targets_asked)
    wait_for(lambda: blob.get("HEAD") and len(edge.api.targets_asked) > asked, "new target")
    wait_for(lambda: blob.get().body == CONTENT and len(storage.seen) == PIECES, "pieces of the other one")


def test_what_is_revoked_or_gone_is_not_served(make_edge: MakeEdge, storage: StubStorage) -> None:
    edge = make_edge(SLUICE_TARGET_TTL="1", SLUICE_LINK_GRACE="1")
    blob, other = Blob(edge, storage), Blob(edge, storage)
    assert blob.get().status == other.get().status == 200
    edge.api.targets[other.id] = APIAnswer(404, body=b'{"error":{"code":"FILE_NOT_FOUND"}}')
    wait_for(lambda: other.get().status == 404, "end of a blob that was deleted")
    edge.api.revoke("link", CLAIMS["link"]["jti"])
    reply = blob.get()
    assert (reply.status, reply.code) == (410, "LINK_REVOKED")


def test_an_expired_url_is_renewed(edge: Edge, storage: StubStorage) -> None:
    def handle(request: Request) -> Answer:
        return ranged(CONTENT)(request) if request.target.endswith("=new") else Answer(403, body=b"<Expired/>")

    blob = Blob(edge, storage, handle)
    assert blob.get("HEAD").status == 200
    blob.aim(signature="new")
    reply = blob.get(Range="bytes=5-9")
    assert (reply.status, reply.body) == (206, CONTENT[5:10])
    assert len(reply.headers.get_all("ETag", [])) == 1
    # the other worker uses the old one for up to a second
    wait_for(lambda: whole(blob), "renewed URL in both workers")


def whole(blob: Blob) -> bool:
    with suppress(http.client.IncompleteRead):
        return blob.get().body == CONTENT
    return False


FAILURES = {
    "an error": Answer(500, body=b"<Error>secret</Error>"),
    "not found": Answer(404, body=b"<Error>secret</Error>"),
    "hanging up": Answer(206, {"Content-Range": f"bytes {2 * MIB}-{3 * MIB - 1}/{SIZE}"}, b"x" * MIB, stop=1000),
    "another range": Answer(206, {"Content-Range": f"bytes 0-{MIB - 1}/{SIZE}"}, b"secret" + b"x" * (MIB - 6)),
    "another size": Answer(206, {"Content-Range": f"bytes {2 * MIB}-{3 * MIB - 1}/{SIZE + 1}"}, b"x" * MIB),
    "less than it names": Answer(206, {"Content-Range": f"bytes {2 * MIB}-{3 * MIB - 1}/{SIZE}"}, b"secret"),
    "the whole": Answer(200, body=CONTENT),
}


# (with another size the bytes are the requested ones: only the first piece's size is compared)
IN_THE_MIDDLE = {why: failure for why, failure in FAILURES.items() if why != "another size"}
AT_ONCE = {why: failure for why, failure in FAILURES.items() if why not in ("hanging up", "another range")}


def cut_body(blob: Blob, number: int, failure: Answer, behind: int = 0) -> bytes:
    """The response for a blob when the storage fails at a piece, after the client has received all bytes before it.

    Bytes that wait to be sent when a response ends are lost, so a slow client gets less.

    Args:
        behind: bytes that nginx holds back meanwhile.
    """
    is_read = threading.Event()

    def handle(request: Request) -> Answer:
        if request.header("Range") != piece(number):
            return ranged(CONTENT)(request)
        assert number == 0 or is_read.wait(10)
        return failure

    blob.storage.handle = handle
    connection = http.client.HTTPConnection("127.0.0.1", blob.edge.port, timeout=10)
    connection.request("GET", f"/d/{blob.edge.token('link', file=blob.id)}/n")
    with connection.getresponse() as response:
        assert response.headers["Content-Length"] == str(SIZE)
        body = response.read(number * MIB - behind)
        is_read.set()
        with pytest.raises(http.client.IncompleteRead) as caught:
            response.read()
    connection.close()
    return body + caught.value.partial


def cut_piece(number: int) -> Answer:
    """A piece of which the storage sends 1000 bytes."""
    first, last = number * MIB, min(number * MIB + MIB, SIZE) - 1
    return Answer(206, {"Content-Range": f"bytes {first}-{last}/{SIZE}"}, CONTENT[first : last + 1], stop=1000)


@pytest.mark.parametrize("failure", IN_THE_MIDDLE.values(), ids=IN_THE_MIDDLE.keys())
def test_a_storage_that_fails_in_the_middle_ends_the_answer(edge: Edge, storage: StubStorage, failure: Answer) -> None:
    blob = Blob(edge, storage)
    body = cut_body(blob, 2, failure)
    assert body[: 2 * MIB] == CONTENT[: 2 * MIB]
    assert body[2 * MIB :] == b"x" * (failure.stop or 0)
    # nothing of it was cached
    storage.handle = ranged(CONTENT)
    assert blob.get().body == CONTENT


@pytest.mark.parametrize("number", range(PIECES))
def test_a_piece_that_is_cut_is_the_answers_end(edge: Edge, storage: StubStorage, number: int) -> None:
    """On a kept connection: no timeout passes, and no other bytes replace the rest."""
    blob = Blob(edge, storage)
    assert cut_body(blob, number, cut_piece(number)) == CONTENT[: number * MIB + 1000]
    storage.handle = ranged(CONTENT)
    assert blob.get().body == CONTENT


@pytest.mark.parametrize("failure", AT_ONCE.values(), ids=AT_ONCE.keys())
def test_a_storage_that_fails_immediately_is_reported_and_nothing_is_kept(
    edge: Edge, storage: StubStorage, failure: Answer
) -> None:
    blob = Blob(edge, storage, lambda request: failure)
    token = edge.token("link", file=blob.id)
    for _ in range(2):
        raw = edge.raw(f"GET /d/{token}/n HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        assert raw.startswith(b"HTTP/1.1 503 ") or raw == b""
        assert b"secret" not in raw
    storage.handle = ranged(CONTENT)
    assert blob.get().body == CONTENT


def test_a_connection_is_kept_behind_an_answer(edge: Edge, storage: StubStorage) -> None:
    blob = Blob(edge, storage)
    path = f"/d/{edge.token('link', file=blob.id)}/n"
    connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=10)
    kept = set()
    for wanted, expected in [(None, CONTENT), ("bytes=5-", CONTENT[5:]), ("bytes=7-8", CONTENT[7:9])] * 2:
        connection.request("GET", path, headers={"Range": wanted} if wanted else {})
        assert connection.getresponse().read() == expected
        kept.add(connection.sock)
    connection.close()
    assert len(kept) == 1


def test_a_client_that_goes_away_has_one_line_and_holds_nothing(make_edge: MakeEdge, storage: StubStorage) -> None:
    gone = threading.Event()

    def handle(request: Request) -> Answer:
        if request.header("Range") == piece(2):
            gone.wait(10)
        return ranged(CONTENT)(request)

    edge = make_edge(tiers=tiers.document(default=Tier(connections=1)))
    blob = Blob(edge, storage, handle)
    connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=10)
    connection.request("GET", f"/d/{edge.token('link', file=blob.id)}/n")
    response = connection.getresponse()
    assert response.read(MIB) == CONTENT[:MIB]
    assert blob.get().code == "CONNECTIONS_LIMITED"
    connection.sock.close()
    response.close()
    gone.set()
    wait_for(lambda: blob.get().body == CONTENT, "end of the first download")
    line = edge.log_line(response.headers["X-Request-Id"])
    assert line["bytes_sent"] < SIZE
    assert edge.access_log.read_text().count(response.headers["X-Request-Id"]) == 1


def copies(folder: Path) -> list[Path]:
    """Cache files with a whole blob."""
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > SIZE]


def heat_up(blob: Blob, folder: Path) -> Path:
    """Requests a blob until it is copied. Returns the copy."""
    for _ in range(3):
        assert blob.get().body == CONTENT
    (copy,) = wait_for(lambda: copies(folder), "copy")
    return copy


def test_a_hot_blob_is_sent_from_one_file(make_edge: MakeEdge, storage: StubStorage, tmp_path: Path) -> None:
    edge = make_edge(SLUICE_CACHE_PATH=str(tmp_path / "cache"))
    blob = Blob(edge, storage)
    assert blob.get().body == blob.get(Range="bytes=0-").body == CONTENT
    assert copies(tmp_path) == []
    heat_up(blob, tmp_path)
    for _ in range(3):
        reply = blob.get()
        assert (reply.status, reply.body == CONTENT) == (200, True)
        assert reply.headers["Content-Type"] == "text/x-thing"
        names = ("ETag", "Content-Length", "Accept-Ranges", "X-Request-Id", "Content-Disposition")
        assert [len(reply.headers.get_all(name, [])) for name in names] == [1] * len(names)
        reply = blob.get(Range=f"bytes={MIB - 5}-{2 * MIB}")
        assert (reply.status, reply.body == CONTENT[MIB - 5 : 2 * MIB + 1]) == (206, True)
        assert reply.headers.get_all("Content-Range") == [f"bytes {MIB - 5}-{2 * MIB}/{SIZE}"]
    assert edge.log_line(reply.headers["X-Request-Id"])["cache"] == "HIT"
    assert blob.asked() == Counter({piece(n): 1 for n in range(PIECES)})
    edge.api.revoke("link", CLAIMS["link"]["jti"])
    assert (blob.get().status, blob.get().code) == (410, "LINK_REVOKED")


def test_a_copy_that_is_gone_is_made_again(make_edge: MakeEdge, storage: StubStorage, tmp_path: Path) -> None:
    blob = Blob(make_edge(SLUICE_CACHE_PATH=str(tmp_path / "cache")), storage)
    for _ in range(2):
        heat_up(blob, tmp_path).unlink()
        assert blob.get(Range=f"bytes={SIZE - 9}-").body == CONTENT[-9:]
        assert blob.get(Range="bytes=5-9").body == CONTENT[5:10]
    assert set(blob.asked().values()) == {1}


def test_a_storage_that_stops_while_a_copy_is_made(make_edge: MakeEdge, storage: StubStorage, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    blob = Blob(make_edge(SLUICE_CACHE_PATH=str(folder)), storage)
    for _ in range(2):
        assert blob.get().body == CONTENT
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.unlink()
    # a buffer that is not full (nginx/snippets/storage_whole.conf) waits for more bytes, or for the end
    assert cut_body(blob, 2, cut_piece(2), behind=128 * 1024) == CONTENT[: 2 * MIB + 1000]
    assert copies(folder) == []
    storage.handle = ranged(CONTENT)
    assert blob.get().body == CONTENT


def test_many_requests_while_a_copy_is_made(make_edge: MakeEdge, storage: StubStorage, tmp_path: Path) -> None:
    edge, folder, go = make_edge(SLUICE_CACHE_PATH=str(tmp_path / "cache")), tmp_path / "cache", threading.Event()
    blob = Blob(edge, storage)
    for _ in range(2):
        assert blob.get().body == CONTENT
    (held,) = (path for path in folder.rglob("*") if path.is_file() and piece(2).encode() in path.read_bytes()[:1000])
    held.unlink()
    blob.storage.handle = lambda request: ranged(CONTENT)(request) if go.wait(10) else Answer(500)
    path = f"/d/{edge.token('link', file=blob.id)}/n"
    with ExitStack() as stack:
        responses = []
        for _ in range(16):
            connection = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", edge.port, timeout=10)))
            connection.request("GET", path)
            responses.append(connection.getresponse())
        bodies = [response.read(MIB) for response in responses]  # so all of them are in progress
        assert len(list(folder.rglob("*.*"))) == 1  # files in progress have a number after a dot in their names
        go.set()
        with ThreadPoolExecutor(len(responses)) as pool:
            rests = list(pool.map(http.client.HTTPResponse.read, responses))
    assert all(body + rest == CONTENT for body, rest in zip(bodies, rests, strict=True))
    wait_for(lambda: len(copies(folder)) == 1, "copy")
    assert edge.log_line(blob.get().headers["X-Request-Id"])["cache"] == "HIT"
    assert blob.asked() == Counter({piece(n): 2 if n == 2 else 1 for n in range(PIECES)})


@pytest.mark.parametrize("is_warm", [True, False])
def test_a_slow_client_holds_few_files(
    make_edge: MakeEdge, storage: StubStorage, tmp_path: Path, is_warm: bool
) -> None:
    content = bytes(40 * MIB)
    edge, blob = make_edge(SLUICE_CACHE_PATH=str(tmp_path / "cache")), uuid.uuid4().hex
    storage.handle = ranged(content)
    edge.aim(blob, size=len(content), uri=storage.url(), storage="s3", cached=True)
    path = f"/d/{edge.token('link', file=blob)}/n"
    if is_warm:
        assert len(edge.get(path).body) == len(content)

    def held() -> int:
        links = [os.readlink(link) for pid in edge.workers() for link in Path(f"/proc/{pid}/fd").iterdir()]
        return len([link for link in links if str(tmp_path / "cache") in link])

    with socket.create_connection(("127.0.0.1", edge.port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert edge.get(path).status == 200  # long enough to fill all buffers
        # a piece's file stays open until the response ends; pieces are not opened before a socket has space for them
        assert held() < 20
        connection.recv(10 * MIB, socket.MSG_WAITALL)
        assert held() < 10 + 20


def used(folder: Path) -> int:
    return sum(path.stat().st_size for path in list(folder.rglob("*")) if path.is_file())


def test_the_disk_is_bounded(make_edge: MakeEdge, storage: StubStorage, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    edge = make_edge(SLUICE_CACHE_SIZE=str(6 * MIB), SLUICE_CACHE_PATH=str(folder))
    for _ in range(4):
        assert Blob(edge, storage).get().body == CONTENT
    wait_for(lambda: 0 < used(folder) <= 7 * MIB, "room", 30)


def test_the_log_and_the_figures_say_where_it_came_from(make_edge: MakeEdge, storage: StubStorage) -> None:
    edge = make_edge()
    blob = Blob(edge, storage)
    asked = [blob.get().headers["X-Request-Id"] for _ in range(2)]
    lines = [edge.log_line(request_id) for request_id in asked]
    assert [edge.access_log.read_text().count(request_id) for request_id in asked] == [1, 1]
    assert all(line["bytes_sent"] > SIZE for line in lines)
    assert [line["cache"] for line in lines] == ["MISS", "HIT"]
    assert [line["storage"] for line in lines] == ["s3", "s3"]
    assert storage.url().partition("?")[2] not in edge.access_log.read_text()

    def counted() -> bool:
        text = edge.get("/metrics").body.decode()
        return all(
            f'sluice_edge_lookups_total{{cache="content",found="{where}"}} 1\n' in text for where in ("edge", "storage")
        )

    wait_for(counted, "figures")
