"""Request limits: per user in Lua, per address by nginx and, for strangers, in Lua."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from api.core.tiers import Tier
from tests.nginx.at_once import Held
from tests.nginx.edge import Edge, Reply
from tests.nginx.stub_api import Answer, wait_for
from tests.nginx.tiers import document, new_user

BLOB = "b" * 32
CONTENT = b"content" * 100
# slow enough that no budget comes back while a test runs
FEW = Tier(api=(0.01, 5), part=(0.01, 4), download=(0.01, 3), connections=2)


@pytest.fixture(scope="module")
def limiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """An edge with a very low tier, and three sign-ups for strangers."""
    tiers = document(few=FEW, signup=(0.01, 3), signin=(0.01, 4), quick=Tier(api=(20, 10)))
    edge = Edge(tmp_path_factory.mktemp("limiting"), tiers=tiers)
    edge.store(BLOB, CONTENT)
    yield edge
    edge.stop()


def call(edge: Edge, **claims: Any) -> Reply:
    return edge.ask("GET", "/api/v1/files", headers=edge.bearer(**claims))


def download(edge: Edge, method: str = "GET", **claims: Any) -> Reply:
    # one link per user, because its readers have a separate limit
    link = claims.get("sub", uuid.uuid4().hex)[:16]
    token = edge.token("link", **{"file": BLOB, "jti": link, **claims})
    return edge.ask(method, f"/d/{token}/n")


def put(edge: Edge, **claims: Any) -> Reply:
    upload = uuid.uuid4().hex
    (edge.storage / "parts" / upload).mkdir()
    return edge.ask("PUT", f"/p/{edge.token('part', upload=upload, size=3, **claims)}", body=b"abc")


class TestUser:
    """One limit per user and kind of request."""

    @pytest.mark.parametrize(("ask", "burst"), [(call, 5), (put, 4), (download, 3)])
    def test_gets_a_burst_and_then_429(self, limiting: Edge, ask: Callable[..., Reply], burst: int) -> None:
        user = new_user("few")
        statuses = [ask(limiting, **user).status for _ in range(burst)]
        assert all(status < 300 for status in statuses), statuses
        reply = ask(limiting, **user)
        assert (reply.status, reply.code) == (429, "REQUESTS_LIMITED")
        assert 90 <= int(reply.headers["Retry-After"]) <= 100
        assert reply.headers["RateLimit-Limit"] == str(burst)
        assert reply.headers["RateLimit-Remaining"] == "0"
        assert burst * 100 - 10 <= int(reply.headers["RateLimit-Reset"]) <= burst * 100
        assert ask(limiting, **new_user("few")).status < 300, "another user"

    def test_kinds_are_counted_apart(self, limiting: Edge) -> None:
        user = new_user("few")
        assert [call(limiting, **user).status for _ in range(6)][-1] == 429
        assert put(limiting, **user).status < 300
        assert download(limiting, **user).status == 200

    def test_sessions_and_links_are_counted_together(self, limiting: Edge) -> None:
        user = new_user("few")
        assert [call(limiting, sid=uuid.uuid4().hex, **user).status for _ in range(6)] == [200] * 5 + [429]
        assert [download(limiting, **user).status for _ in range(4)] == [200] * 3 + [429]

    def test_calls_get_the_remaining_budget(self, limiting: Edge) -> None:
        user = new_user("few")
        assert [call(limiting, **user).headers["RateLimit-Remaining"] for _ in range(5)] == ["4", "3", "2", "1", "0"]

    def test_what_was_refused_is_not_counted(self, limiting: Edge) -> None:
        user = new_user("quick")
        began = time.monotonic()
        passed = 0
        while (took := time.monotonic() - began) < 1.5:
            passed += call(limiting, **user).status == 200
        assert 10 + 20 * took * 0.7 <= passed <= 10 + 20 * took + 1

    def test_concurrent_over_all_workers_not_one_too_many(self, limiting: Edge) -> None:
        user = new_user("few")
        with ThreadPoolExecutor(16) as pool:
            statuses = list(pool.map(lambda _: call(limiting, **user).status, range(64)))
        assert sorted(statuses) == [200] * 5 + [429] * 59

    def test_a_forged_token_uses_up_nothing(self, limiting: Edge) -> None:
        user = new_user("few")
        token = limiting.token("access", **user)
        for _ in range(10):
            forged = {"Authorization": f"Bearer {token[:-2]}AA"}
            assert limiting.ask("GET", "/api/v1/files", headers=forged).status == 401
        assert call(limiting, **user).headers["RateLimit-Remaining"] == "4"

    def test_head_and_304_are_requests_too(self, limiting: Edge) -> None:
        user = new_user("few")
        assert [download(limiting, "HEAD", **user).status for _ in range(4)] == [200] * 3 + [429]

    @pytest.mark.parametrize("tier", ["unknown", "default", ""])
    def test_an_unknown_tier_is_default_and_meets_no_normal_client(self, limiting: Edge, tier: str) -> None:
        user = new_user(tier)
        with ThreadPoolExecutor(16) as pool:
            for ask in (call, download, put):
                replies = list(pool.map(lambda _, ask=ask: ask(limiting, **user), range(150)))
                assert {reply.status for reply in replies} <= {200, 201, 204}

    def test_a_part_in_excess_is_refused_before_its_body(self, limiting: Edge) -> None:
        user = new_user("few")
        for _ in range(4):
            put(limiting, **user)
        token = limiting.token("part", size=10**9, **user)
        head = f"PUT /p/{token} HTTP/1.1\r\nHost: h\r\nContent-Length: {10**9}\r\nConnection: close\r\n\r\n"
        assert limiting.raw(head.encode()).startswith(b"HTTP/1.1 429 ")


class TestTiers:
    def test_a_changed_tier_needs_no_new_token(self, make_edge: Callable[..., Edge]) -> None:
        edge = make_edge(tiers=document(some=Tier(api=(0.01, 1))), SLUICE_REVOCATION_LAG="1")
        user = new_user("some")
        assert call(edge, **user).status == 200
        assert call(edge, **user).status == 429
        edge.api.tiers = document(some=Tier(api=(0.01, 50)))
        wait_for(lambda: call(edge, **user).status == 200, "the new tier in one worker")

    def test_a_fresh_edge_serves_nothing_before_it_has_them(self, make_edge: Callable[..., Edge]) -> None:
        edge = make_edge(tiers=document(), api=False)
        broken = Answer(500)
        handle = edge.api.handle
        edge.api.handle = lambda request: broken if request.path == "/internal/tiers" else handle(request)  # type: ignore[method-assign]
        edge.api.start()
        wait_for(lambda: len(edge.api.feed_asked) > 3, "polls")
        reply = call(edge)
        assert (reply.status, reply.code) == (503, "EDGE_STALE")
        edge.api.handle = handle  # type: ignore[method-assign]
        wait_for(lambda: call(edge).status == 200, "tiers")

    def test_an_edge_that_has_them_keeps_them_if_it_cannot_get_new_ones(self, make_edge: Callable[..., Edge]) -> None:
        edge = make_edge(tiers=document(), SLUICE_REVOCATION_LAG="1")
        handle = edge.api.handle
        edge.api.handle = lambda request: Answer(500) if request.path == "/internal/tiers" else handle(request)  # type: ignore[method-assign]
        edge.api.tiers = document(other=Tier())
        asked = len(edge.api.feed_asked)
        wait_for(lambda: len(edge.api.feed_asked) > asked + 3, "polls")
        assert call(edge).status == 200


class TestStrangers:
    """Sign-ups and sign-ins are counted per address."""

    @pytest.mark.parametrize(
        ("path", "burst", "code"),
        [
            ("users", 3, "SIGNUPS_LIMITED"),
            ("sessions", 4, "SIGNIN_LIMITED"),
            ("sessions/refresh", 4, "REQUESTS_LIMITED"),
        ],
    )
    def test_may_ask_a_few_times(self, limiting: Edge, path: str, burst: int, code: str) -> None:
        bodies = [json.dumps({"username": f"u{n}", "password": "x"}).encode() for n in range(burst + 3)]
        limiting.api.seen.clear()
        replies = [limiting.ask("POST", f"/api/v1/{path}", body=body) for body in bodies]
        assert [reply.status for reply in replies] == [200] * burst + [429] * 3
        assert {reply.code for reply in replies[burst:]} == {code}
        assert int(replies[-1].headers["Retry-After"]) > 90
        assert len(limiting.api.seen) == burst


class TestAddress:
    """nginx's zones, in every location that sends responses."""

    @pytest.fixture
    def strict(self, make_edge: Callable[..., Edge]) -> Edge:
        edge = make_edge(
            tiers=document(slow=Tier(rate=50_000)), SLUICE_ADDRESS_RATE="1", SLUICE_ADDRESS_CONNECTIONS="2"
        )
        edge.store(BLOB, CONTENT)
        return edge

    @pytest.mark.parametrize("ask", [call, put, download], ids=["api", "part", "link"])
    def test_too_many_requests(self, strict: Edge, ask: Callable[..., Reply]) -> None:
        replies = [ask(strict) for _ in range(8)]
        assert replies[0].status < 300
        assert (replies[-1].status, replies[-1].code) == (429, "REQUESTS_LIMITED")
        assert replies[-1].headers["Retry-After"]

    def test_too_many_by_bearer_are_refused_alike(self, strict: Edge) -> None:
        token = strict.token("link", file=BLOB)
        strict.api.answer = lambda seen: Answer(200, {"X-Accel-Redirect": f"/_link/{token}/content"})
        statuses = [strict.ask("GET", "/api/v1/files/1/content", headers=strict.bearer()).status for _ in range(8)]
        assert statuses[0] == 200
        assert statuses[-1] == 429

    def test_too_many_paced(self, strict: Edge) -> None:
        replies = [download(strict, tier="slow") for _ in range(8)]
        assert replies[0].body == CONTENT
        assert (replies[-1].status, replies[-1].code) == (429, "REQUESTS_LIMITED")

    def test_too_many_concurrently(self, make_edge: Callable[..., Edge]) -> None:
        edge = make_edge(SLUICE_ADDRESS_CONNECTIONS="2")
        held = Held()

        def slow(_: object) -> Answer:
            held.wait()
            return Answer()

        edge.api.answer = slow
        replies = held.ask(lambda: call(edge), times=5, refused=3)
        assert sorted(reply.status for reply in replies) == [200, 200, 429, 429, 429]
        assert {reply.code for reply in replies if reply.status == 429} == {"CONNECTIONS_LIMITED"}
