"""Concurrent API calls of one account: some are in progress, others wait, more are refused."""

import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import pytest

from api.core.tiers import Tier
from tests.nginx.edge import Edge, Reply
from tests.nginx.stub_api import DEADLINE, Answer, Seen, wait_for
from tests.nginx.tiers import document, new_user

BLOB = "c" * 32
WAITING_TIMES = 16


def call(
    edge: Edge, path: str = "/api/v1/files", method: str = "GET", seconds: float = DEADLINE, **claims: Any
) -> Reply:
    return edge.ask(method, path, headers=edge.bearer(**claims), seconds=seconds)


class Busy:
    """An API that answers calls of a path when it is told to, and counts those in progress."""

    def __init__(self, edge: Edge, path: str = "/api/v1/files") -> None:
        self.path = path
        self.under_way, self.most, self.begun = 0, 0, 0
        self.free = threading.Event()
        self._lock = threading.Lock()
        edge.api.answer = self.answer

    def answer(self, seen: Seen) -> Answer:
        if seen.path != self.path:
            return Answer()
        with self._lock:
            self.under_way += 1
            self.begun += 1
            self.most = max(self.most, self.under_way)
        self.free.wait(15)
        with self._lock:
            self.under_way -= 1
        return Answer()


@pytest.fixture
def edge(make_edge: Callable[..., Edge]) -> Edge:
    return make_edge(tiers=document(two=Tier(calls=2), one=Tier(calls=1), any=Tier(calls=0)))


def together(pool: ThreadPoolExecutor, ask: Callable[[], Reply], times: int) -> list[Future[Reply]]:
    return [pool.submit(ask) for _ in range(times)]


def test_a_limited_number_is_in_progress_and_the_others_wait(edge: Edge) -> None:
    api, user = Busy(edge), new_user("two")
    with ThreadPoolExecutor(20) as pool:
        replies = together(pool, lambda: call(edge, **user), 10)
        wait_for(lambda: api.under_way == 2, "two calls")
        other = call(edge, path="/api/v1/users/me", **new_user("two"))
        assert other.status == 200, "another account does not wait"
        assert api.begun == 2
        api.free.set()
        assert [reply.result().status for reply in replies] == [200] * 10
    assert api.most == 2


def test_more_than_may_wait_are_refused(edge: Edge) -> None:
    api, user = Busy(edge), new_user("one")
    with ThreadPoolExecutor(40) as pool:
        replies = together(pool, lambda: call(edge, **user), 1 + WAITING_TIMES + 3)
        wait_for(lambda: sum(reply.done() for reply in replies) == 3, "three refusals")
        refused = [reply.result() for reply in replies if reply.done()]
        assert {(reply.status, reply.code) for reply in refused} == {(429, "CALLS_LIMITED")}
        assert {reply.headers["Retry-After"] for reply in refused} == {"1"}
        api.free.set()
        statuses = sorted(reply.result().status for reply in replies)
    assert statuses == [200] * (1 + WAITING_TIMES) + [429] * 3


def test_a_tier_may_have_no_such_limit(edge: Edge) -> None:
    api, user = Busy(edge), new_user("any")
    with ThreadPoolExecutor(40) as pool:
        replies = together(pool, lambda: call(edge, **user), 30)
        wait_for(lambda: api.under_way == 30, "thirty calls")
        api.free.set()
        assert {reply.result().status for reply in replies} == {200}


def test_a_download_by_bearer_holds_no_place(edge: Edge) -> None:
    edge.store(BLOB, b"content" * 3_000_000)
    user = new_user("one")
    token = edge.token("link", file=BLOB, **user)
    edge.api.answer = lambda seen: (
        Answer(200, {"X-Accel-Redirect": f"/_link/{token}/content"}) if "content" in seen.path else Answer()
    )
    bearer = edge.bearer(**user)["Authorization"]
    with socket.create_connection(("127.0.0.1", edge.port), timeout=15) as reader:
        head = f"GET /api/v1/files/1/content HTTP/1.1\r\nHost: e\r\nAuthorization: {bearer}\r\n\r\n"
        reader.sendall(head.encode())
        assert reader.recv(9) == b"HTTP/1.1 "  # and reads no further
        assert [call(edge, **user).status for _ in range(3)] == [200] * 3


def test_what_the_api_does_not_answer_holds_no_place(edge: Edge) -> None:
    user = new_user("one")
    edge.api.stop()
    assert [call(edge, **user).code for _ in range(3)] == ["API_UNAVAILABLE"] * 3
    edge.api.start()
    wait_for(lambda: call(edge, **user).status == 200, "the API")
    edge.api.answer = lambda seen: Answer(500)
    assert [call(edge, **user).status for _ in range(3)] == [500] * 3
    assert [call(edge, path="/api/v1/nothing", method="BREW", **user).status for _ in range(3)] == [501] * 3


def test_who_hangs_up_while_waiting_holds_no_place_for_ever(edge: Edge) -> None:
    api, user = Busy(edge), new_user("one")
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(lambda: call(edge, **user))
        wait_for(lambda: api.under_way == 1, "a call")
        for _ in range(3):
            with pytest.raises(TimeoutError):
                call(edge, seconds=0.05, **user)
        api.free.set()
        assert first.result().status == 200
        assert [call(edge, **user).status for _ in range(3)] == [200] * 3
    assert api.most == 1


def test_a_client_that_disconnects_holds_its_place_until_the_api_has_answered(edge: Edge) -> None:
    api, user = Busy(edge), new_user("one")
    with pytest.raises(TimeoutError):
        call(edge, seconds=0.2, **user)
    assert api.under_way == 1
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(lambda: call(edge, **user))
        with pytest.raises(FutureTimeout):
            second.result(0.5)
        assert api.begun == 1
        api.free.set()
        assert second.result().status == 200
    assert api.most == 1


def test_strangers_hold_a_few_places_together_and_a_network_waits_with_a_few(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge(tiers=document(), SLUICE_TRUSTED_PROXIES="127.0.0.0/8")
    api = Busy(edge, "/api/v1/sessions")

    def sign_in(address: str) -> Reply:
        return edge.ask("POST", "/api/v1/sessions", headers={"X-Forwarded-For": address}, body=b"{}")

    with ThreadPoolExecutor(40) as pool:
        flood = [pool.submit(sign_in, f"2001:db8::{n:x}") for n in range(20)]
        wait_for(lambda: sum(reply.done() for reply in flood) == 20 - 3 - 8, "refusals")
        assert {reply.result().code for reply in flood if reply.done()} == {"CALLS_LIMITED"}
        other = pool.submit(sign_in, "2001:db8:1::1")
        assert call(edge, **new_user("default")).status == 200, "calls with a token do not wait"
        assert not other.done()
        api.free.set()
        assert other.result().status == 200, "another network waits with the others"
        assert sorted(reply.result().status for reply in flood) == [200] * 11 + [429] * 9
    assert api.most == 3
