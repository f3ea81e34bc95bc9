"""Traffic: bytes are reported once and not lost; quotas hold for many concurrent downloads."""

import calendar
import http.client
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from api.core.tiers import Tier
from tests.nginx.edge import Edge, Reply
from tests.nginx.stub_api import Answer, Seen, wait_for
from tests.nginx.test_pace import Download, children
from tests.nginx.tiers import document, new_user

BLOB = "b" * 32
CONTENT = bytes(range(256)) * 400
SIZE = len(CONTENT)
HOUR, DAY = 3600, 86400
TIERS = document(
    daily=Tier(daily=10 * SIZE, connections=1000),
    monthly=Tier(monthly=10 * SIZE),
    both=Tier(daily=10 * SIZE, monthly=15 * SIZE, rate=100 * 1024**2),
    slow=Tier(rate=4 * SIZE),
    tiny=Tier(daily=2 * SIZE, rate=16 * 1024),
)
MakeEdge = Callable[..., Edge]


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    edge = Edge(tmp_path_factory.mktemp("counting"), tiers=TIERS)
    edge.store(BLOB, CONTENT)
    yield edge
    edge.stop()


def download(edge: Edge, method: str = "GET", headers: dict[str, str] | None = None, **claims: Any) -> Reply:
    token = edge.token("link", **{"file": BLOB, "jti": uuid.uuid4().hex[:16], **claims})
    return edge.ask(method, f"/d/{token}/n", headers=headers)


def put(edge: Edge, size: int, **claims: Any) -> Reply:
    upload = uuid.uuid4().hex
    (edge.storage / "parts" / upload).mkdir()
    return edge.ask("PUT", f"/p/{edge.token('part', upload=upload, size=size, **claims)}", body=b"x" * size)


def await_moved(edge: Edge, user: dict[str, Any], sent: int, received: int = 0) -> None:
    wait_for(lambda: edge.api.moved("user", user["sub"]) == (sent, received), f"report of {sent} and {received}")


class TestReports:
    @pytest.mark.parametrize("tier", ["default", "slow", "both"])
    def test_contain_the_sent_and_received_bytes(self, counting: Edge, tier: str) -> None:
        user = new_user(tier)
        etag = counting.aim(BLOB, size=SIZE, uri=f"/00000000/{BLOB[:2]}/{BLOB}")
        assert download(counting, **user).status == 200
        assert download(counting, headers={"Range": "bytes=10-19"}, **user).status == 206
        for method, headers in (("HEAD", {}), ("GET", {"If-None-Match": etag}), ("GET", {"Range": f"bytes={SIZE}-"})):
            assert download(counting, method, headers, **user).status in (200, 304, 416)
        assert put(counting, 3000, **user).status == 201
        await_moved(counting, user, SIZE + 10, 3000)

    def test_name_a_subject_once_a_batch(self, counting: Edge) -> None:
        user = new_user("default")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: download(counting, **user), range(40)))
        await_moved(counting, user, 40 * SIZE)
        for report in counting.api.reports.values():
            keys = [tuple(row[:3]) for row in report["rows"]]
            assert len(keys) == len(set(keys))

    def test_of_a_download_that_is_cut_hold_what_was_sent(self, counting: Edge) -> None:
        user = new_user("slow")
        token = counting.token("link", file=BLOB, **user)
        with socket.create_connection(("127.0.0.1", counting.port)) as client:
            client.sendall(f"GET /d/{token}/n HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            client.recv(4096)
        wait_for(lambda: counting.api.moved("user", user["sub"])[0], "report")
        assert 0 < counting.api.moved("user", user["sub"])[0] <= SIZE

    def test_of_a_paced_download_come_while_it_runs(self, counting: Edge) -> None:
        user = new_user("tiny")
        item = Download(counting, size=SIZE, **user)
        wait_for(lambda: counting.api.moved("user", user["sub"])[0], "report")
        assert not item.ended
        wait_for(lambda: item.ended, "the end", 30)
        await_moved(counting, user, SIZE)

    def test_refused_downloads_are_no_traffic(self, counting: Edge) -> None:
        user, blob = new_user("default"), uuid.uuid4().hex
        counting.aim(blob, size=SIZE, uri="/00000000/aa/gone")
        assert download(counting, file=blob, **user).status == 503
        assert download(counting, headers={"Range": "bytes=0-0"}, **user).status == 206
        await_moved(counting, user, 1)

    def test_a_lost_answer_books_nothing_twice(self, make_edge: MakeEdge) -> None:
        edge = make_edge(tiers=TIERS)
        edge.store(BLOB, CONTENT)
        book, lost = edge.api.report_answer, []

        def lose(seen: Seen) -> Answer:
            book(seen)
            lost.append(seen.body)
            return Answer(503)

        edge.api.report_answer = lose
        user = new_user("default")
        for _ in range(3):
            download(edge, **user)
        wait_for(lambda: len(lost) >= 2, "a second try")
        assert lost[0] == lost[1], "the same batch with the same number"
        for _ in range(2):
            download(edge, **user)
        edge.api.report_answer = book
        await_moved(edge, user, 5 * SIZE)

    def test_wait_for_an_api_that_is_away(self, make_edge: MakeEdge) -> None:
        edge = make_edge(tiers=TIERS)
        edge.store(BLOB, CONTENT)
        user = new_user("default")
        download(edge, **user)
        await_moved(edge, user, SIZE)
        edge.api.stop()
        for _ in range(3):
            assert download(edge, **user).status == 200
        edge.api.start()
        await_moved(edge, user, 4 * SIZE)

    @pytest.mark.parametrize("name", ["SIGQUIT", "SIGTERM"])
    @pytest.mark.parametrize("away", [False, True])
    def test_nothing_is_lost_when_nginx_stops(self, make_edge: MakeEdge, name: str, away: bool) -> None:
        edge = make_edge(tiers=TIERS)
        edge.store(BLOB, CONTENT)
        user = new_user("default")
        download(edge, **user)
        await_moved(edge, user, SIZE)
        if away:
            edge.api.stop()
        for _ in range(7):
            download(edge, **user)
        assert edge.process
        edge.process.send_signal(getattr(signal, name))
        edge.process.wait(20)
        if away:
            edge.api.start()
        edge.start()
        await_moved(edge, user, 8 * SIZE)

    def test_nothing_is_lost_when_nginx_reloads(self, make_edge: MakeEdge) -> None:
        edge = make_edge(tiers=TIERS)
        edge.store(BLOB, CONTENT)
        user = new_user("default")
        count, stop = [0], threading.Event()

        def ask() -> None:
            while not stop.is_set():
                count[0] += download(edge, **user).status == 200

        def served_by_others(old: set[int], least: int) -> bool:
            return not edge.workers() & old and count[0] >= least

        thread = threading.Thread(target=ask)
        thread.start()
        for _ in range(3):
            old = edge.reload()
            wait_for(partial(served_by_others, old, count[0] + 5), "end of the old workers")
        stop.set()
        thread.join()
        assert count[0] > 10
        await_moved(edge, user, count[0] * SIZE)

    def test_a_killed_worker_loses_a_moment_and_the_others_go_on(self, make_edge: MakeEdge) -> None:
        edge = make_edge(tiers=TIERS)
        edge.store(BLOB, CONTENT)
        user = new_user("default")
        download(edge, **user)
        await_moved(edge, user, SIZE)
        assert edge.process
        for pid in children(edge.process.pid):
            os.kill(pid, 9)
        wait_for(lambda: not _fails(lambda: download(edge, **user)), "new workers")
        wait_for(lambda: edge.api.moved("user", user["sub"])[0] >= 2 * SIZE, "report")


def _fails(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except (OSError, http.client.HTTPException):
        return True
    return False


class TestQuota:
    def test_a_hundred_concurrent_ones_do_not_pass_a_quota_for_ten(self, counting: Edge) -> None:
        # the owner's downloads; readers of links have half of the quota (tests/nginx/test_readers.py)
        user = new_user("daily")
        token = counting.token("link", file=BLOB, **user)
        counting.api.answer = lambda seen: Answer(200, {"X-Accel-Redirect": f"/_link/{token}/content"})

        def own(_: int) -> Reply:
            return counting.get("/api/v1/files/1/content", **counting.bearer(**user))

        with ThreadPoolExecutor(50) as pool:
            replies = list(pool.map(own, range(100)))
        assert sorted(reply.status for reply in replies) == [200] * 10 + [429] * 90
        assert {reply.code for reply in replies if reply.status == 429} == {"QUOTA_EXCEEDED"}
        await_moved(counting, user, 10 * SIZE)
        assert own(0).status == 429, "still, now that the API knows of it"
        assert download(counting, **user).status == 429
        assert counting.api.used_asked.count(f"user/{user['sub']}") <= 2, "asked once a worker"

    def test_what_is_under_way_is_reserved(self, counting: Edge) -> None:
        user = new_user("tiny")
        two = [Download(counting, size=SIZE, **user) for _ in range(2)]
        wait_for(lambda: all(item.received for item in two), "first bytes")
        assert download(counting, headers={"Range": "bytes=0-0"}, **user).code == "QUOTA_EXCEEDED"
        wait_for(lambda: all(item.ended for item in two), "the end", 30)
        assert [item.received for item in two] == [SIZE, SIZE]

    def test_what_was_not_sent_is_given_back(self, counting: Edge) -> None:
        user = new_user("tiny")
        token = counting.token("link", file=BLOB, **user)
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", counting.port)) as client:
                client.sendall(f"GET /d/{token}/n HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                client.recv(200)
        wait_for(lambda: counting.get(f"/d/{token}/n", Range="bytes=0-99").status == 206, "room again")

    def test_wait_until_the_end_of_the_day_or_the_month(self, counting: Edge) -> None:
        for tier in ("daily", "monthly"):
            user = new_user(tier)
            counting.api.used[f"user/{user['sub']}"] = (10 * SIZE, 10 * SIZE)
            reply = download(counting, **user)
            assert (reply.status, reply.code) == (429, "QUOTA_EXCEEDED")
            now = time.gmtime()
            left = DAY - (now.tm_hour * HOUR + now.tm_min * 60 + now.tm_sec)
            if tier == "monthly":
                first = time.struct_time((now.tm_year, now.tm_mon + 1, 1, 0, 0, 0, 0, 0, 0))
                left = calendar.timegm(first) - calendar.timegm(now)
            assert abs(int(reply.headers["Retry-After"]) - left) < 5

    def test_what_other_edges_reported_counts(self, counting: Edge) -> None:
        user = new_user("both")
        counting.api.used[f"user/{user['sub']}"] = (0, 13 * SIZE)
        assert [download(counting, **user).status for _ in range(3)] == [200, 200, 429]

    def test_the_totals_of_a_report_are_taken_over(self, make_edge: MakeEdge) -> None:
        edge = make_edge(tiers=TIERS)
        edge.store(BLOB, CONTENT)
        user = new_user("daily")
        assert download(edge, **user).status == 200
        # another edge reports nine files meanwhile
        edge.api.used[f"user/{user['sub']}"] = (9 * SIZE, 9 * SIZE)
        wait_for(lambda: edge.api.used[f"user/{user['sub']}"][0] == 10 * SIZE, "report")
        wait_for(lambda: download(edge, headers={"Range": "bytes=0-0"}, **user).status == 429, "the new total")

    def test_head_and_304_are_free(self, counting: Edge) -> None:
        user = new_user("daily")
        counting.api.used[f"user/{user['sub']}"] = (10 * SIZE, 10 * SIZE)
        etag = counting.aim(BLOB, size=SIZE, uri=f"/00000000/{BLOB[:2]}/{BLOB}")
        assert download(counting, "HEAD", **user).status == 200
        assert download(counting, headers={"If-None-Match": etag}, **user).status == 304
        assert download(counting, **user).status == 429

    def test_unknown_totals_are_waited_for(self, make_edge: MakeEdge) -> None:
        edge = make_edge(tiers=TIERS)
        edge.store(BLOB, CONTENT)
        known, unknown, other = new_user("daily"), new_user("daily"), new_user("default")
        assert download(edge, **known).status == 200
        for user in (unknown, other):
            assert download(edge, "HEAD", **user).status == 200, "the file's owner must be known"
        edge.api.stop()
        reply = download(edge, **unknown)
        assert (reply.status, reply.code) == (503, "API_UNAVAILABLE")
        assert download(edge, **known).status == 200, "known quotas still work"
        assert download(edge, **other).status == 200, "no call for accounts without a quota"

    def test_a_killed_worker_leaves_no_reservation(self, make_edge: MakeEdge) -> None:
        edge = make_edge(tiers=TIERS)
        edge.store(BLOB, CONTENT)
        user = new_user("tiny")
        path = f"/d/{edge.token('link', file=BLOB, **user)}/n"
        two = [Download(edge, size=SIZE, **user) for _ in range(2)]
        wait_for(lambda: all(item.received for item in two), "first bytes")
        assert edge.get(path, Range="bytes=0-0").status == 429
        assert edge.process
        for pid in children(edge.process.pid):
            os.kill(pid, 9)

        def has_room() -> bool:
            with suppress(OSError, http.client.HTTPException):
                return edge.get(path, Range="bytes=0-99").status == 206
            return False

        wait_for(has_room, "room after the kill")
        wait_for(lambda: all(item.ended for item in two), "cut connections")
