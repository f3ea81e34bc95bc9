"""Readers of links are counted separately from the owner's downloads: by link, by network, and all links together."""

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from api.core.tiers import Tier
from tests.nginx.edge import Edge, Reply
from tests.nginx.stub_api import Answer, Seen, wait_for
from tests.nginx.tiers import document

BLOB = "d" * 32
SIZE = 4_000_000
SOME = Tier(connections=8, download=(0.01, 30))
QUOTA = Tier(connections=8, daily=10 * SIZE)


class Owner:
    """An account, its links, and their readers."""

    def __init__(self, edge: Edge, tier: str) -> None:
        self.edge = edge
        self.claims = {"sub": uuid.uuid4().hex, "tier": tier}
        edge.store(BLOB, b"x" * SIZE)
        edge.api.answer = self._redirect
        self.open = ExitStack()

    def _redirect(self, seen: Seen) -> Answer:
        token = self.edge.token("link", file=BLOB, jti=uuid.uuid4().hex[:16], **self.claims)
        return Answer(200, {"X-Accel-Redirect": f"/_link/{token}/content"})

    def link(self) -> str:
        token = self.edge.token("link", file=BLOB, jti=uuid.uuid4().hex[:16], **self.claims)
        return f"/d/{token}/n"

    def read(self, link: str, address: str, **headers: str) -> Reply:
        return self.edge.get(link, X_Forwarded_For=address, **headers)

    def download(self) -> Reply:
        """The owner's download, by bearer token."""
        return self.edge.ask("GET", "/api/v1/files/1/content", headers=self.edge.bearer(**self.claims))

    def stand_still(self, link: str, address: str) -> int:
        """A reader that reads no byte. Returns its status."""
        connection = self.open.enter_context(socket.socket())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(15)
        connection.connect(("127.0.0.1", self.edge.port))
        connection.sendall(f"GET {link} HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: {address}\r\n\r\n".encode())
        return int(connection.recv(12).split()[1])


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    tiers = document(some=SOME, quota=QUOTA, slow=Tier(connections=8, rate=100_000))
    made = Edge(tmp_path_factory.mktemp("readers"), tiers=tiers, SLUICE_TRUSTED_PROXIES="127.0.0.0/8")
    yield made
    made.stop()


@pytest.fixture
def make_owner(edge: Edge) -> Iterator[Callable[[str], Owner]]:
    owners: list[Owner] = []

    def make(tier: str) -> Owner:
        owners.append(Owner(edge, tier))
        return owners[-1]

    yield make
    for owner in owners:
        with suppress(OSError):
            owner.open.close()


@pytest.fixture
def owner(make_owner: Callable[[str], Owner]) -> Owner:
    return make_owner("some")


def test_a_links_readers_shut_nothing_but_that_link(owner: Owner) -> None:
    link, other = owner.link(), owner.link()
    assert [owner.stand_still(link, f"10.0.{n}.1") for n in range(8)] == [200] * 8
    assert owner.read(link, "10.0.9.1").code == "CONNECTIONS_LIMITED"
    assert owner.read(other, "10.0.0.1").status == 200
    assert owner.download().status == 200
    owner.open.close()
    wait_for(lambda: owner.read(link, "10.0.9.1").status == 200, "the link's room")


def test_one_network_does_not_fill_a_link(owner: Owner) -> None:
    link = owner.link()
    assert [owner.stand_still(link, f"2001:db8::{n}") for n in range(1, 5)] == [200] * 4
    assert owner.read(link, "2001:db8::9").code == "CONNECTIONS_LIMITED"
    assert owner.read(link, "2001:db8:1::1").status == 200


def test_all_links_together_have_a_bound(owner: Owner) -> None:
    links = [owner.link() for _ in range(9)]
    statuses = [owner.stand_still(link, f"10.1.{n}.1") for link in links[:8] for n in range(8)]
    assert statuses == [200] * 64
    assert owner.read(links[8], "10.1.0.1").code == "CONNECTIONS_LIMITED"
    assert owner.download().status == 200


def test_the_owners_downloads_shut_no_link(owner: Owner) -> None:
    bearer = owner.edge.bearer(**owner.claims)["Authorization"]
    for _ in range(8):
        connection = owner.open.enter_context(socket.socket())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(15)
        connection.connect(("127.0.0.1", owner.edge.port))
        head = f"GET /api/v1/files/1/content HTTP/1.1\r\nHost: h\r\nAuthorization: {bearer}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
    assert owner.download().code == "CONNECTIONS_LIMITED"
    assert owner.read(owner.link(), "10.2.0.1").status == 200


def test_a_readers_requests_use_up_no_other_readers(owner: Owner) -> None:
    link = owner.link()
    statuses = [owner.read(link, "10.3.0.1", Range="bytes=0-1").status for _ in range(31)]
    assert statuses == [206] * 30 + [429]
    assert owner.read(link, "10.3.0.2", Range="bytes=0-1").status == 206, "another reader of it"
    assert owner.read(owner.link(), "10.3.0.1", Range="bytes=0-1").status == 206, "another link"
    assert owner.download().status == 200


def test_readers_have_half_of_a_quota(make_owner: Callable[[str], Owner]) -> None:
    owner = make_owner("quota")
    link = owner.link()
    statuses = [owner.read(link, f"10.4.{n}.1").status for n in range(6)]
    assert statuses == [200] * 5 + [429]
    refused = owner.read(owner.link(), "10.4.0.1")
    assert refused.code == "QUOTA_EXCEEDED"
    assert 0 < int(refused.headers["Retry-After"]) <= 86_400
    assert [owner.download().status for _ in range(6)] == [200] * 5 + [429], "the owner has the other half"


def test_readers_leave_half_of_the_rate_to_the_owner(make_owner: Callable[[str], Owner]) -> None:
    owner = make_owner("slow")
    link = owner.link()
    with ThreadPoolExecutor(9) as pool:
        stop = threading.Event()

        def read_on(number: int) -> None:
            while not stop.is_set():
                owner.read(link, f"10.5.{number}.1", Range="bytes=0-49999")

        for number in range(8):
            pool.submit(read_on, number)
        began = time.monotonic()
        bearer = owner.edge.bearer(**owner.claims)["Authorization"]
        own = owner.edge.get("/api/v1/files/1/content", Authorization=bearer, Range="bytes=0-199999")
        took = time.monotonic() - began
        stop.set()
    assert len(own.body) == 200_000
    # 100,000 bytes per second: 4 s for half of it, 18 s for a ninth
    assert took < 9
