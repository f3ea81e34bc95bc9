"""The feed: what ends a token, what makes an edge drop its cache, and what an edge does if it is unsure."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.nginx.edge import Edge, Reply, quick_feed, small_dict
from tests.nginx.stub_api import Answer, Seen, wait_for
from tests.vectors.make_tokens import CLAIMS

BLOB = "b" * 32
SID, SUB = CLAIMS["access"]["sid"], CLAIMS["access"]["sub"]
MakeEdge = Callable[..., Edge]
QUICK = {"snippets/lua.conf": quick_feed}
SMALL = {"snippets/lua.conf": small_dict}
SMALL_AND_QUICK = {"snippets/lua.conf": lambda text: small_dict(quick_feed(text))}


def prepare(edge: Edge) -> Edge:
    edge.store(BLOB, b"content")
    (edge.storage / "parts" / CLAIMS["part"]["upload"]).mkdir()
    return edge


@pytest.fixture(scope="module")
def revoking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """An edge with users that come and go."""
    edge = prepare(Edge(tmp_path_factory.mktemp("revoking"), change=QUICK))
    yield edge
    edge.stop()


def call(edge: Edge, **claims: object) -> Reply:
    return edge.ask("GET", "/api/v1/files", headers=edge.bearer(**claims))


def download(edge: Edge, **claims: object) -> Reply:
    return edge.get(f"/d/{edge.token('link', file=BLOB, **claims)}/name")


def put(edge: Edge, **claims: object) -> Reply:
    return edge.ask("PUT", f"/p/{edge.token('part', size=3, **claims)}", body=b"abc")


def new_id(letter: str) -> str:
    return letter * 24 + f"{time.time_ns() & 0xFFFFFFFF:08x}"


def test_a_session(revoking: Edge) -> None:
    sid, other = new_id("1"), new_id("2")
    assert call(revoking, sid=sid).status == 200
    revoking.api.revoke("session", sid)
    reply = call(revoking, sid=sid)
    assert (reply.status, reply.code) == (401, "TOKEN_REVOKED")
    assert call(revoking, sid=other).status == 200


def test_a_users_generation(revoking: Edge) -> None:
    sub = new_id("3")
    for generation in range(5):
        assert call(revoking, sub=sub, gen=generation).status == 200
    revoking.api.revoke("user", sub, 3)
    for generation in range(5):
        ended = generation < 3
        assert call(revoking, sub=sub, gen=generation).status == (401 if ended else 200)
        assert put(revoking, sub=sub, gen=generation).status in ((403,) if ended else (201, 204))
    assert put(revoking, sub=sub, gen=2).code == "PART_URL_REVOKED"
    # A lower generation that arrives late changes nothing.
    revoking.api.revoke("user", sub, 1)
    assert call(revoking, sub=sub, gen=2).code == "TOKEN_REVOKED"
    revoking.api.revoke("user", sub, 4)
    assert call(revoking, sub=sub, gen=3).code == "TOKEN_REVOKED"


def test_a_sessions_parts(revoking: Edge) -> None:
    sid = new_id("c")
    assert put(revoking, sid=sid).status in (201, 204)
    revoking.api.revoke("session", sid)
    reply = put(revoking, sid=sid)
    assert (reply.status, reply.code) == (403, "PART_URL_REVOKED")
    assert put(revoking).status in (201, 204)


def test_a_link(revoking: Edge) -> None:
    jti = new_id("4")[:16]
    assert download(revoking, jti=jti).status == 200
    revoking.api.revoke("link", jti)
    reply = download(revoking, jti=jti)
    assert (reply.status, reply.code) == (410, "LINK_REVOKED")
    assert download(revoking).status == 200


class TestAFile:
    """The targets of a user's files are requested again when the feed reports a change."""

    def files(self, edge: Edge, owner: str, count: int = 3) -> list[str]:
        files = [new_id("f") for _ in range(count)]
        for file in files:
            edge.store(file, b"content")
            self.change(edge, file, owner=owner)
        return files

    def change(self, edge: Edge, file: str, **about: object) -> None:
        body = json.loads(edge.api.targets[file].body) | about
        edge.api.targets[file] = Answer(body=json.dumps(body).encode())

    def get(self, edge: Edge, file: str, gen: int = 3) -> Reply:
        return edge.get(f"/d/{edge.token('link', file=file, gen=gen)}/x")

    def test_is_forgotten_with_all_of_its_owners(self, revoking: Edge) -> None:
        owner, other = new_id("d"), new_id("e")
        mine, theirs = self.files(revoking, owner), self.files(revoking, other)
        for file in mine + theirs:
            assert [self.get(revoking, file).status for _ in range(5)] == [200] * 5
        revoking.api.targets[mine[0]] = Answer(410, body=b'{"error":{"code":"LINK_REVOKED"}}')
        self.change(revoking, mine[1], generation=4)
        revoking.api.targets_asked.clear()
        revoking.api.revoke("user", owner, 0)
        for file in mine[:2]:
            for _ in range(5):
                reply = self.get(revoking, file)
                assert (reply.status, reply.code) == (410, "LINK_REVOKED")
        for _ in range(5):
            assert self.get(revoking, mine[2]).status == 200
            assert all(self.get(revoking, file).status == 200 for file in theirs)
        assert sorted(set(revoking.api.targets_asked)) == sorted(mine)
        assert revoking.api.targets_asked.count(mine[2]) <= len(revoking.workers())

    def test_is_forgotten_once_for_a_row_that_is_told_again_and_again(self, revoking: Edge) -> None:
        owner = new_id("d")
        (file,) = self.files(revoking, owner, 1)
        revoking.api.revoke("user", owner, 0)
        assert self.get(revoking, file).status == 200
        revoking.api.targets_asked.clear()
        for _ in range(3):
            revoking.api.wait_for_feed()
            assert self.get(revoking, file).status == 200
        assert file not in revoking.api.targets_asked
        revoking.api.revoke("user", owner, 0)
        assert self.get(revoking, file).status == 200
        assert file in revoking.api.targets_asked

    def test_is_not_believed_where_it_was_answered_before_the_news(self, revoking: Edge) -> None:
        """The API's response is sent before the change, and arrives after the news of it."""
        owner = new_id("d")
        (file,) = self.files(revoking, owner, 1)
        old, handle, release = revoking.api.targets[file], revoking.api.handle, threading.Event()

        def late(request: Seen) -> Answer:
            if request.path.endswith(file) and not release.is_set():
                release.wait(10)
                return old
            return handle(request)

        revoking.api.handle = late  # type: ignore[method-assign]
        try:
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(self.get, revoking, file)
                revoking.api.targets[file] = Answer(410, body=b'{"error":{"code":"LINK_REVOKED"}}')
                revoking.api.revoke("user", owner, 0)
                release.set()
                assert waiting.result().code == "LINK_REVOKED"
        finally:
            revoking.api.handle = handle  # type: ignore[method-assign]

    def test_with_a_younger_link_is_asked_for(self, revoking: Edge) -> None:
        (file,) = self.files(revoking, new_id("d"), 1)
        assert self.get(revoking, file).status == 200
        self.change(revoking, file, generation=4)
        assert self.get(revoking, file, gen=4).status == 200
        wait_for(lambda: self.get(revoking, file, gen=3).status == 410, "end of the older link")

    def test_that_is_back_from_the_trash_goes_by_a_new_link_at_once(self, revoking: Edge) -> None:
        owner = new_id("d")
        (file,) = self.files(revoking, owner, 1)
        there = revoking.api.targets[file]
        refused = {"error": {"code": "LINK_REVOKED", "generation": 4}}
        revoking.api.targets[file] = Answer(410, body=json.dumps(refused).encode())
        assert [self.get(revoking, file).code for _ in range(5)] == ["LINK_REVOKED"] * 5
        revoking.api.targets[file] = there
        self.change(revoking, file, generation=4)
        assert self.get(revoking, file, gen=4).status == 200
        assert self.get(revoking, file, gen=3).code == "LINK_REVOKED"

    def test_with_a_link_that_is_younger_than_the_truth_is_asked_for_once_a_second(self, revoking: Edge) -> None:
        """As after a restore of the database from a copy."""
        (file,) = self.files(revoking, new_id("d"), 1)
        token, begun = revoking.token("link", file=file, gen=9), time.monotonic()
        asked = 0
        while time.monotonic() - begun < 1:
            assert revoking.get(f"/d/{token}/x").code == "LINK_REVOKED"
            asked += 1
        assert asked > 20
        assert revoking.api.targets_asked.count(file) <= 3 * len(revoking.workers())


@pytest.mark.parametrize("lag", [1, 2])
def test_it_takes_effect_within_the_lag(make_edge: MakeEdge, lag: int) -> None:
    edge = make_edge(SLUICE_REVOCATION_LAG=str(lag))

    def refused(sid: str) -> bool:
        return call(edge, sid=sid).status == 401

    for _ in range(2):
        sid = new_id("6")
        assert call(edge, sid=sid).status == 200
        edge.api.note("session", sid)
        committed = time.monotonic()
        wait_for(partial(refused, sid), "revocation")
        assert time.monotonic() - committed < lag


def test_kinds_do_not_mix(revoking: Edge) -> None:
    same = new_id("7")
    revoking.api.revoke("user", same, 99)
    assert call(revoking, sid=same).status == 200
    revoking.api.revoke("session", same, 99)
    assert download(revoking, jti=same[:16]).status == 200


def test_an_entry_ends_with_its_tokens(revoking: Edge) -> None:
    sid = new_id("8")
    revoking.api.revoke("session", sid, seconds=-5)
    assert call(revoking, sid=sid).status == 200
    sid = new_id("9")
    ends = int(time.time()) + 2
    revoking.api.rows.append((time.time_ns() // 1000, "session", sid, 1, ends))
    revoking.api.wait_for_feed()
    assert call(revoking, sid=sid).status == 401
    wait_for(lambda: call(revoking, sid=sid).status == 200, "end of the entry")
    assert time.time() >= ends - 1


def test_the_workers_take_turns(revoking: Edge) -> None:
    """Ten polls per second are configured; each of two workers alone would send as many."""
    before, begun = len(revoking.api.feed_asked), time.monotonic()
    wait_for(lambda: len(revoking.api.feed_asked) >= before + 20, "polls")
    assert time.monotonic() - begun > 1.5


def test_a_fresh_edge_serves_nothing_before_it_has_the_rows(make_edge: MakeEdge) -> None:
    edge = prepare(make_edge(api=False))
    for ask in (call, download, put):
        reply = ask(edge)
        assert (reply.status, reply.code) == (503, "EDGE_STALE")
    assert edge.get("/readyz").code == "EDGE_STALE"
    edge.api.rows = [(n, "session", f"{n:032x}", 1, int(time.time()) + 600) for n in range(1, 26)]
    edge.api.page = 10
    edge.api.start()
    wait_for(lambda: edge.get("/readyz").status == 200, "revocations")
    # All pages arrived before the first token passed; the last row of each is sent again.
    assert edge.api.feed_asked[:3] == [0, 10, 19]
    assert [call(edge, sid=f"{n:032x}").status for n in (1, 10, 11, 25, 26)] == [401, 401, 401, 401, 200]
    assert put(edge).status == 201
    assert download(edge).status == 200


def test_a_load_goes_on_from_its_last_good_page(make_edge: MakeEdge) -> None:
    """Each page is read once, however many are late."""
    edge = make_edge(api=False)
    edge.api.rows = [(n, "session", f"{n:032x}", 1, int(time.time()) + 600) for n in range(1, 51)]
    edge.api.page = 10
    feed, bad = edge.api.feed_answer, []

    def limp(after: int) -> Answer:
        if len(edge.api.feed_asked) % 2 == 0:
            bad.append(after)
            return Answer(503)
        return feed(after)

    edge.api.feed_answer = limp
    edge.api.start()
    wait_for(lambda: edge.get("/readyz").status == 200, "revocations")
    good = [after for n, after in enumerate(edge.api.feed_asked, 1) if n % 2]
    assert good[:6] == [0, 10, 19, 28, 37, 46]
    assert bad[:5] == [10, 19, 28, 37, 46]
    assert call(edge, sid=f"{50:032x}").status == 401


def test_a_load_begins_some_seconds_before_the_last_row(make_edge: MakeEdge) -> None:
    """Rows commit in another order than that of their moments."""
    edge = make_edge(change=QUICK)
    edge.api.revoke("session", new_id("a"))
    late = new_id("b")
    edge.api.rows.append((edge.api.rows[-1][0] - 8_000_000, "session", late, 1, int(time.time()) + 60))
    edge.api.wait_for_feed()
    assert call(edge, sid=late).status == 401


def test_an_edge_that_hears_nothing(make_edge: MakeEdge) -> None:
    """Calls go to the API in any case. Signed URLs work for lag + 3 s, plus SLUICE_LINK_GRACE."""
    edge = prepare(make_edge(SLUICE_REVOCATION_LAG="1", SLUICE_LINK_GRACE="2"))
    edge.api.rows = [(20_000_000, "session", "0" * 32, 1, int(time.time()) + 60)]
    wait_for(lambda: 10_000_000 in edge.api.feed_asked, "newest row")
    assert call(edge).status == download(edge).status == 200
    edge.api.stop()
    lost = time.monotonic()
    assert call(edge).code == "API_UNAVAILABLE"
    wait_for(lambda: edge.get("/readyz").code == "EDGE_STALE", "stale edge")
    assert 2.5 < time.monotonic() - lost < 4.5
    assert call(edge).code == "API_UNAVAILABLE"
    assert download(edge).status == 200
    assert put(edge).status == 201
    # One second more at most: each worker uses its result that long.
    wait_for(lambda: all(download(edge).status == 503 for _ in range(10)), "end of the grace at every worker")
    assert 4.5 < time.monotonic() - lost < 7.5
    assert (download(edge).code, put(edge).code) == ("API_UNAVAILABLE", "EDGE_STALE")
    # Then the feed is read from the last position.
    edge.api.rows.append((19_000_000, "session", SID, 1, int(time.time()) + 60))
    edge.api.start()
    wait_for(lambda: call(edge).status == 401, "revocation")
    assert download(edge).status == 200


class TestAnEdgeThatCannotTell:
    """The feed is broken, or it has too many rows: the API is asked for each request, and no valid token is refused."""

    @pytest.fixture(params=["deaf", "full"])
    def unsure(self, request: pytest.FixtureRequest, make_edge: MakeEdge) -> Edge:
        edge = prepare(make_edge(SLUICE_LINK_GRACE="0", SLUICE_REVOCATION_LAG="1", change=SMALL))
        assert call(edge).status == put(edge).status - 1 == download(edge).status == 200
        if request.param == "deaf":
            edge.api.feed_answer = lambda after: Answer(500)
            wait_for(lambda: edge.get("/readyz").status == 503, "stale edge")
        else:
            now = time.time_ns() // 1000
            rows = [(now + n, "session", f"{n:032x}", 1, int(time.time()) + 600) for n in range(5000)]
            edge.api.rows += rows
            edge.api.wait_for_feed()
            wait_for(lambda: "could not be kept" in edge.error_log.read_text(), "line in the error log")
        edge.api.seen.clear()
        edge.api.targets_asked.clear()
        return edge

    def test_lets_calls_go_on_to_the_api_which_looks_again(self, unsure: Edge) -> None:
        for given in ({}, {"X-Sluice-Unsure": "0"}):
            reply = unsure.ask("GET", "/api/v1/files", headers={**unsure.bearer(), **given})
            assert reply.status == 200
            assert unsure.api.seen[-1].header("X-Sluice-Unsure") == ["1"]

    def test_asks_about_each_part(self, unsure: Edge) -> None:
        assert put(unsure, gen=5).status == 204
        part = CLAIMS["part"]
        assert unsure.api.sessions_asked == [f"{part['sid']}?user={part['sub']}&generation=5"]
        unsure.api.live = False
        assert put(unsure).code == "PART_URL_REVOKED"
        assert len(unsure.api.sessions_asked) == 2

    def test_asks_about_each_link(self, unsure: Edge) -> None:
        begun = time.monotonic()
        while time.monotonic() - begun < 2:
            assert download(unsure).status == 200
            time.sleep(0.02)  # some fifty requests per second during the two seconds
        assert unsure.api.targets_asked.count(BLOB) >= 3
        unsure.api.targets[BLOB] = Answer(410, body=b'{"error":{"code":"LINK_REVOKED"}}')
        changed = time.monotonic()
        wait_for(lambda: download(unsure).status == 410, "end of the link")
        assert time.monotonic() - changed < 1

    def test_knows_what_it_knows(self, unsure: Edge) -> None:
        unsure.api.live = False
        if unsure.api.feed_answer == unsure.api._feed:
            assert call(unsure, sid=f"{1:032x}").status == 401


def test_an_edge_that_can_tell_says_nothing_of_it(revoking: Edge) -> None:
    for given in ({}, {"X-Sluice-Unsure": "1"}):
        assert revoking.ask("GET", "/api/v1/files", headers={**revoking.bearer(), **given}).status == 200
        assert revoking.api.seen[-1].header("X-Sluice-Unsure") == []


GOOD = b'{"position":1,"more":false,"revocations":[]}'
BROKEN = {
    "an error": Answer(500, body=GOOD),
    "not found, as for a wrong key": Answer(404, body=GOOD),
    "no JSON": Answer(body=b"{"),
    "another JSON": Answer(body=b"[]"),
    "a null": Answer(body=b"null"),
    "rows that are none": Answer(body=b'{"position":1,"more":false,"revocations":[1]}'),
    "a row cut short": Answer(body=b'{"position":1,"more":false,"revocations":[["user","x",1]]}'),
    "no end": Answer(body=b'{"position":0,"more":true,"revocations":[]}'),
    "no rows": Answer(body=b'{"position":1,"more":false}'),
    "a kind that nobody knows": Answer(
        body=b'{"position":1,"more":false,"revocations":[["planet","00",1,1,4102444800]]}'
    ),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
def test_no_broken_answer_counts_as_news(make_edge: MakeEdge, answer: Answer) -> None:
    edge = make_edge(api=False, change=SMALL_AND_QUICK)
    edge.api.feed_answer = lambda after: answer
    edge.api.start()
    wait_for(lambda: len(edge.api.feed_asked) >= 3, "polls")
    assert call(edge).code == "EDGE_STALE"
    wait_for(lambda: "revocations are not up to date" in edge.error_log.read_text(), "line in the error log")


def test_a_feed_without_an_end_is_not_asked_at_full_speed(make_edge: MakeEdge) -> None:
    edge = make_edge(api=False)
    edge.api.feed_answer = lambda after: BROKEN["no end"]
    begun = time.monotonic()
    edge.api.start()
    wait_for(lambda: len(edge.api.feed_asked) >= 3, "polls")
    assert time.monotonic() - begun > 1


def test_a_full_dict_pushes_no_revocation_out(make_edge: MakeEdge) -> None:
    edge = make_edge(change=SMALL_AND_QUICK)
    edge.api.revoke("session", SID)
    assert call(edge).code == "TOKEN_REVOKED"
    now = time.time_ns() // 1000
    edge.api.rows += [(now + n, "session", f"{n:032x}", 1, int(time.time()) + 600) for n in range(1, 5000)]
    wait_for(lambda: "could not be kept" in edge.error_log.read_text(), "line in the error log")
    for _ in range(20):
        assert call(edge).code == "TOKEN_REVOKED"


def test_a_crowd_of_one_users_changes_takes_no_room(make_edge: MakeEdge) -> None:
    """Ten thousand files of one account are trashed: one row, one entry."""
    edge = prepare(make_edge(change=SMALL_AND_QUICK))
    for _ in range(10):
        edge.api.revoke("user", SUB, 0, 120)
    assert "could not" not in edge.error_log.read_text()
    assert call(edge).status == download(edge).status == 200


def test_expired_entries_make_room(make_edge: MakeEdge) -> None:
    edge = make_edge(change=SMALL_AND_QUICK)
    # Long-lived entries come first, so that the short ones do not simply fall off the end of the dict's list.
    edge.api.rows = [(n, "session", f"{n:032x}", 1, int(time.time()) + 600) for n in range(1, 51)]
    edge.api.wait_for_feed()

    def past(moment: int) -> bool:
        return time.time() > moment

    for round_ in range(1, 6):
        ends = int(time.time()) + 2
        edge.api.rows = [(round_ * 200 + n, "session", f"{round_ * 200 + n:032x}", 1, ends) for n in range(200)]
        edge.api.wait_for_feed()
        wait_for(partial(past, ends), "end of the entries")
    assert call(edge).status == 200
    assert call(edge, sid=f"{1:032x}").status == 401
    assert "could not keep" not in edge.error_log.read_text()


def test_a_reload_keeps_them(make_edge: MakeEdge) -> None:
    edge = make_edge(change=QUICK)
    edge.api.revoke("session", SID)
    assert edge.process
    edge.process.send_signal(signal.SIGHUP)
    asked = len(edge.api.feed_asked)
    statuses = set()
    while len(edge.api.feed_asked) < asked + 8:
        statuses.add(call(edge).status)
        statuses.add(call(edge, sid="0" * 32).status)
    assert statuses == {401, 200}
    assert all(edge.api.feed_asked[asked:])
