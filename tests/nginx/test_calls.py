"""API calls of one account at the same time: some are under way, others wait, more are refused."""

import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
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
    """An API that answers calls of /files when it is told to, and counts those that are under way."""

    def __init__(self, edge: Edge) -> None:
        self.under_way, self.most, self.begun = 0, 0, 0
        self.free = threading.Event()
        self._lock = threading.Lock()
        edge.api.answer = self.answer

    def answer(self, seen: Seen) -> Answer:
        if seen.path != "/api/v1/files":
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


def test_so_many_are_under_way_and_the_others_wait(edge: Edge) -> None:
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
    token = edge.token("link", blob=BLOB, size=21_000_000, **user)
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


def test_who_hangs_up_holds_no_place(edge: Edge) -> None:
    api, user = Busy(edge), new_user("one")
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(lambda: call(edge, **user))
        wait_for(lambda: api.under_way == 1, "a call")
        for _ in range(3):
            with pytest.raises(TimeoutError):
                call(edge, seconds=0.1, **user)
        api.free.set()
        assert first.result().status == 200
        assert call(edge, **user).status == 200


def test_strangers_are_counted_by_network(edge: Edge) -> None:
    gate, entered = threading.Event(), threading.Semaphore(0)
    counted = [0]

    def answer(seen: Seen) -> Answer:
        counted[0] += 1
        entered.release()
        gate.wait(15)
        return Answer()

    edge.api.answer = answer
    with ThreadPoolExecutor(20) as pool:
        replies = together(pool, lambda: edge.ask("POST", "/api/v1/sessions", body=b"{}"), 12)
        for _ in range(8):
            assert entered.acquire(timeout=15)
        assert not entered.acquire(timeout=0.3)
        assert counted == [8]
        gate.set()
        assert {reply.result().status for reply in replies} == {200}
