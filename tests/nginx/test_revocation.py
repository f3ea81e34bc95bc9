"""The revocation feed: what ends a token, and what a stale edge does."""

import json
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.nginx.edge import Edge, Reply, quick_feed, small_dict
from tests.nginx.stub_api import Answer, wait_for
from tests.vectors.make_tokens import CLAIMS

BLOB = "b" * 32
SID, SUB = CLAIMS["access"]["sid"], CLAIMS["access"]["sub"]
MakeEdge = Callable[..., Edge]
QUICK = {"snippets/lua.conf": quick_feed}
SMALL_AND_QUICK = {"snippets/lua.conf": lambda text: small_dict(quick_feed(text))}


def prepare(edge: Edge) -> Edge:
    edge.store(BLOB, b"content")
    (edge.storage / "parts" / CLAIMS["part"]["upload"]).mkdir()
    return edge


@pytest.fixture(scope="module")
def revoking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """An edge whose users come and go."""
    edge = prepare(Edge(tmp_path_factory.mktemp("revoking"), change=QUICK))
    yield edge
    edge.stop()


def call(edge: Edge, **claims: object) -> Reply:
    return edge.ask("GET", "/api/v1/files", headers=edge.bearer(**claims))


def download(edge: Edge, **claims: object) -> Reply:
    return edge.get(f"/d/{edge.token('link', blob=BLOB, **claims)}/name")


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
    revoking.api.revoke("user", sub, 2)
    for generation in range(5):
        ended = generation <= 2
        assert call(revoking, sub=sub, gen=generation).status == (401 if ended else 200)
        assert download(revoking, sub=sub, gen=generation).status == (410 if ended else 200)
        assert put(revoking, sub=sub, gen=generation).status in ((403,) if ended else (201, 204))
    assert put(revoking, sub=sub, gen=2).code == "PART_URL_REVOKED"
    # A lower one that comes late takes nothing back.
    revoking.api.revoke("user", sub, 1)
    assert call(revoking, sub=sub, gen=2).code == "TOKEN_REVOKED"
    revoking.api.revoke("user", sub, 3)
    assert call(revoking, sub=sub, gen=3).code == "TOKEN_REVOKED"


def test_a_link_and_a_file(revoking: Edge) -> None:
    jti, file = new_id("4"), new_id("5")
    assert download(revoking, jti=jti).status == 200
    revoking.api.revoke("link", jti)
    reply = download(revoking, jti=jti)
    assert (reply.status, reply.code) == (410, "LINK_REVOKED")
    assert download(revoking).status == 200

    assert download(revoking, file=file, fgen=1).status == 200
    revoking.api.revoke("file", file, 1)
    assert download(revoking, file=file, fgen=0).code == "LINK_REVOKED"
    assert download(revoking, file=file, fgen=1).code == "LINK_REVOKED"
    assert download(revoking, file=file, fgen=2).status == 200


@pytest.mark.parametrize("lag", [1, 2])
def test_it_takes_effect_within_the_lag(make_edge: MakeEdge, lag: int) -> None:
    edge = make_edge(SLUICE_REVOCATION_LAG=str(lag))
    for number in (1, 2):
        sid = new_id("6")
        assert call(edge, sid=sid).status == 200
        edge.api.rows.append((number, "session", sid, 0, int(time.time()) + 60))
        committed = time.monotonic()
        wait_for(lambda sid=sid: call(edge, sid=sid).status == 401, "revocation")
        assert time.monotonic() - committed < lag


def test_kinds_do_not_mix(revoking: Edge) -> None:
    same = new_id("7")
    revoking.api.revoke("user", same, 99)
    assert call(revoking, sid=same).status == 200
    revoking.api.revoke("session", same, 99)
    assert download(revoking, jti=same, file=same).status == 200


def test_an_entry_ends_with_its_tokens(revoking: Edge) -> None:
    sid = new_id("8")
    revoking.api.revoke("session", sid, seconds=-5)
    assert call(revoking, sid=sid).status == 200
    sid = new_id("9")
    ends = int(time.time()) + 2
    revoking.api.rows.append((len(revoking.api.rows) + 1, "session", sid, 0, ends))
    revoking.api.wait_for_feed()
    assert call(revoking, sid=sid).status == 401
    wait_for(lambda: call(revoking, sid=sid).status == 200, "end of the entry")
    assert time.time() >= ends - 1


def test_the_workers_take_turns(revoking: Edge) -> None:
    """Ten polls a second are asked for here; each of two workers alone would make as many."""
    before, begun = len(revoking.api.feed_asked), time.monotonic()
    wait_for(lambda: len(revoking.api.feed_asked) >= before + 20, "polls")
    assert time.monotonic() - begun > 1.5


def test_a_fresh_edge_serves_nothing_before_it_has_the_rows(make_edge: MakeEdge) -> None:
    edge = prepare(make_edge(api=False))
    for ask in (call, download, put):
        reply = ask(edge)
        assert (reply.status, reply.code) == (503, "EDGE_STALE")
    assert edge.get("/readyz").code == "EDGE_STALE"
    edge.api.rows = [(n, "session", f"{n:032x}", 0, int(time.time()) + 600) for n in range(1, 26)]
    edge.api.page = 10
    edge.api.start()
    wait_for(lambda: edge.get("/readyz").status == 200, "revocations")
    # All pages came before the first token passed.
    assert edge.api.feed_asked[:3] == [0, 10, 20]
    assert [call(edge, sid=f"{n:032x}").status for n in (1, 10, 11, 25, 26)] == [401, 401, 401, 401, 200]
    assert put(edge).status == 201
    assert download(edge).status == 200


def test_an_edge_that_hears_nothing(make_edge: MakeEdge) -> None:
    """Bearer tokens stop lag + 3 s after the last good answer, signed URLs SLUICE_LINK_GRACE later."""
    edge = prepare(make_edge(SLUICE_REVOCATION_LAG="1", SLUICE_LINK_GRACE="2"))
    edge.api.rows = [(10, "session", "0" * 32, 0, int(time.time()) + 60)]
    wait_for(lambda: 10 in edge.api.feed_asked, "newest id")
    assert call(edge).status == download(edge).status == 200
    edge.api.stop()
    lost = time.monotonic()
    assert call(edge).code == "API_UNAVAILABLE"
    wait_for(lambda: call(edge).code == "EDGE_STALE", "stale edge")
    assert 2.5 < time.monotonic() - lost < 4.5
    assert download(edge).status == 200
    assert put(edge).status == 201
    wait_for(lambda: download(edge).status == 503, "end of the grace")
    assert 4.5 < time.monotonic() - lost < 6.5
    assert download(edge).code == put(edge).code == "EDGE_STALE"
    # What it may have missed in the meantime is all read again.
    edge.api.rows.append((9, "session", SID, 0, int(time.time()) + 60))
    asked = len(edge.api.feed_asked)
    edge.api.start()
    wait_for(lambda: call(edge).status == 401, "revocation")
    assert edge.api.feed_asked[asked] == 0
    assert download(edge).status == 200


GOOD = b'{"last_id":1,"more":false,"revocations":[]}'
BROKEN = {
    "an error": Answer(500, body=GOOD),
    "not found, as for a wrong key": Answer(404, body=GOOD),
    "no JSON": Answer(body=b"{"),
    "another JSON": Answer(body=b"[]"),
    "a null": Answer(body=b"null"),
    "rows that are none": Answer(body=b'{"last_id":1,"more":false,"revocations":[1]}'),
    "a row cut short": Answer(body=b'{"last_id":1,"more":false,"revocations":[[1,"user","x"]]}'),
    "no end": Answer(body=b'{"last_id":0,"more":true,"revocations":[]}'),
    "no rows": Answer(body=b'{"last_id":1,"more":false}'),
    "rows too many for the dict": Answer(
        body=json.dumps(
            {
                "last_id": 5000,
                "more": False,
                "revocations": [[n, "session", f"{n:032x}", 0, 4102444800] for n in range(5000)],
            }
        ).encode()
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
    first = len(edge.api.rows)
    edge.api.rows += [(first + n, "session", f"{n:032x}", 0, int(time.time()) + 600) for n in range(1, 5000)]
    answers = []

    def stale() -> bool:
        answers.append(call(edge).code)
        return answers[-1] == "EDGE_STALE"

    wait_for(stale, "stale edge")
    assert set(answers) == {"TOKEN_REVOKED", "EDGE_STALE"}
    assert "could not keep a revocation" in edge.error_log.read_text()


def test_expired_entries_make_room(make_edge: MakeEdge) -> None:
    edge = make_edge(change=SMALL_AND_QUICK)
    # Lasting ones come first, so that the short ones do not simply fall off the end of the dict's list.
    edge.api.rows = [(n, "session", f"{n:032x}", 0, int(time.time()) + 600) for n in range(1, 51)]
    edge.api.wait_for_feed()
    for round_ in range(1, 6):
        ends = int(time.time()) + 2
        edge.api.rows = [(round_ * 200 + n, "session", f"{round_ * 200 + n:032x}", 0, ends) for n in range(200)]
        edge.api.wait_for_feed()
        wait_for(lambda ends=ends: time.time() > ends, "end of the entries")
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
