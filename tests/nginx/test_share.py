"""A share's download: begun in time, by one address, at most twice its size, over when the share is revoked."""

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from api.tiers import Tier
from tests.nginx.edge import Edge, Reply, quick_feed
from tests.nginx.stub_api import wait_for
from tests.nginx.tiers import document
from tests.vectors.make_tokens import CLAIMS

BLOB = "b" * 32
CONTENT = b"0123456789" * 1000
SIZE = len(CONTENT)


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    tiers = document(share=Tier(), paced=Tier(rate=4 * 1024**2), quota=Tier(daily=SIZE))
    folder, change = tmp_path_factory.mktemp("sharing"), {"snippets/lua.conf": quick_feed}
    edge = Edge(folder, tiers=tiers, change=change, SLUICE_TRUSTED_PROXIES="127.0.0.0/8")
    edge.store(BLOB, CONTENT)
    yield edge
    edge.stop()


class Share:
    """One download of a share."""

    def __init__(self, edge: Edge, **claims: Any) -> None:
        now = int(time.time())
        own = {"jti": uuid.uuid4().hex, "share": uuid.uuid4().hex, "blob": BLOB, "size": SIZE}
        self.claims = {**CLAIMS["share"], **own, "start": now + 600, "exp": now + 86400, **claims}
        self.edge = edge
        self.path = f"/d/{edge.token('share', **self.claims)}/n"

    def get(self, address: str = "192.0.2.1", method: str = "GET", **headers: str) -> Reply:
        return self.edge.ask(method, self.path, headers={"X-Forwarded-For": address, **headers})


@pytest.fixture(params=["share", "paced"])
def share(request: pytest.FixtureRequest, sharing: Edge) -> Share:
    return Share(sharing, tier=request.param)


def test_the_whole(share: Share) -> None:
    reply = share.get()
    assert (reply.status, reply.body) == (200, CONTENT)
    assert 'filename="a shared file"' in reply.headers["Content-Disposition"]


def test_belongs_to_the_first_address(share: Share) -> None:
    assert share.get("192.0.2.7", Range="bytes=0-9").status == 206
    for method in ("GET", "HEAD"):
        reply = share.get("192.0.2.8", method)
        assert reply.status == 403
    assert share.get("192.0.2.8").code == "LINK_BOUND"
    assert share.get("192.0.2.7").status == 200


def test_of_many_addresses_at_once_one_is_the_first(share: Share) -> None:
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda n: share.get(f"192.0.2.{n}", Range="bytes=0-0").status, range(1, 31)))
    assert sorted(replies) == [206] + [403] * 29


def test_head_begins_nothing(share: Share) -> None:
    assert share.get("192.0.2.9", "HEAD").status == 200
    assert share.get("192.0.2.10").status == 200


def test_sends_at_most_twice_its_size_over_all_ranges(share: Share) -> None:
    assert share.get().status == 200
    assert share.get(Range=f"bytes=0-{SIZE // 2 - 1}").status == 206
    assert share.get(Range=f"bytes={SIZE // 2}-").status == 206
    reply = share.get(Range="bytes=0-0")
    assert (reply.status, reply.code) == (410, "LINK_EXHAUSTED")
    assert share.get(method="HEAD").status == 200


def test_at_once_no_more_than_twice(share: Share) -> None:
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: share.get(), range(24)))
    assert sorted(reply.status for reply in replies) == [200, 200] + [410] * 22


def test_begins_in_time_or_not_at_all(sharing: Edge) -> None:
    now = int(time.time())
    late = Share(sharing, start=now - 1)
    assert (late.get().status, late.get().code) == (410, "LINK_EXPIRED")
    soon = Share(sharing, start=now + 2)
    assert soon.get(Range="bytes=0-9").status == 206
    wait_for(lambda: time.time() > now + 3, "the end of the time to begin")
    assert soon.get(Range="bytes=10-").status == 206, "what was begun may be resumed"
    assert soon.get("192.0.2.99").code == "LINK_BOUND"


def test_is_over_at_its_end(sharing: Edge) -> None:
    assert Share(sharing, exp=int(time.time()) - 1).get().code == "LINK_EXPIRED"


@pytest.mark.parametrize(
    ("kind", "claim", "generation"), [("share", "share", 0), ("file", "file", 0), ("user", "sub", 3)]
)
def test_ends_with_its_share_file_or_owner(sharing: Edge, kind: str, claim: str, generation: int) -> None:
    share = Share(sharing, **{claim: uuid.uuid4().hex})
    assert share.get(Range="bytes=0-9").status == 206
    sharing.api.revoke(kind, share.claims[claim], generation)
    reply = share.get()
    assert (reply.status, reply.code) == (410, "LINK_REVOKED")


def test_is_counted_for_the_share(sharing: Edge) -> None:
    share = Share(sharing)
    assert share.get().status == 200
    assert share.get(Range="bytes=0-9").status == 206
    wait_for(lambda: sharing.api.moved("share", share.claims["share"]) == (SIZE + 10, 0), "report")


def test_has_the_quota_of_its_tier(sharing: Edge) -> None:
    share = uuid.uuid4().hex
    first, second = Share(sharing, share=share, tier="quota"), Share(sharing, share=share, tier="quota")
    assert first.get().status == 200
    assert second.get().code == "QUOTA_EXCEEDED"


def test_other_tokens_are_no_shares(sharing: Edge) -> None:
    for purpose in ("access", "part"):
        reply = sharing.get(f"/d/{sharing.token(purpose)}/n")
        assert (reply.status, reply.code) == (403, "LINK_INVALID")
    token = sharing.token("share", **Share(sharing).claims)
    assert sharing.ask("GET", "/api/v1/files", headers={"Authorization": f"Bearer {token}"}).status == 401


def test_a_restarted_edge_lets_nobody_begin_again(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge(tiers=document(), SLUICE_TRUSTED_PROXIES="127.0.0.0/8")
    edge.store(BLOB, CONTENT)
    share = Share(edge, start=int(time.time()) + 2)
    assert share.get(Range="bytes=0-9").status == 206
    assert edge.process
    edge.process.terminate()
    edge.process.wait()
    edge.start()
    wait_for(lambda: time.time() > share.claims["start"], "the end of the time to begin")
    assert share.get("192.0.2.50").code == "LINK_EXPIRED"
