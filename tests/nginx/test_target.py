"""The place of a blob: requested from the API once, cached for a while, and what happens if the API is down."""

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.nginx.edge import Edge, Reply
from tests.nginx.stub_api import Answer, wait_for

MakeEdge = Callable[..., Edge]


@pytest.fixture
def blob() -> str:
    return uuid.uuid4().hex


def download(edge: Edge, blob: str) -> Reply:
    return edge.get(f"/d/{edge.token('link', file=blob)}/name")


def test_a_blob_is_asked_for_once(edge: Edge, blob: str) -> None:
    edge.store(blob, b"content")
    assert {download(edge, blob).body for _ in range(20)} == {b"content"}
    assert edge.api.targets_asked.count(blob) == 1


def test_many_who_wait_ask_once_a_worker(make_edge: MakeEdge, blob: str) -> None:
    edge = make_edge(change={"nginx.conf": lambda text: text.replace("worker_processes auto", "worker_processes 1")})
    edge.store(blob, b"content")
    release = threading.Event()
    handle = edge.api.handle

    def slow(request):  # type: ignore[no-untyped-def]
        answer = handle(request)
        if "targets" in request.path:
            release.wait(2)
        return answer

    edge.api.handle = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(download, edge, blob) for _ in range(20)]
        wait_for(lambda: edge.api.targets_asked, "question for the target")
        # The same worker sent this response, so it has read all earlier responses of the pool.
        assert edge.get("/nothing").status == 404
        release.set()
        assert {future.result().body for future in waiting} == {b"content"}
    assert edge.api.targets_asked == [blob]


def test_it_is_asked_again_after_the_ttl(make_edge: MakeEdge, blob: str) -> None:
    edge = make_edge(SLUICE_TARGET_TTL="1", SLUICE_LINK_GRACE="30")
    edge.store(blob, b"old")
    assert download(edge, blob).body == b"old"
    moved = uuid.uuid4().hex
    edge.store(moved, b"new")
    edge.api.targets[blob] = edge.api.targets[moved]
    wait_for(lambda: download(edge, blob).body == b"new", "new place")


def test_the_api_away(make_edge: MakeEdge, blob: str) -> None:
    edge = make_edge(SLUICE_TARGET_TTL="1", SLUICE_LINK_GRACE="3", SLUICE_REVOCATION_LAG="60")
    edge.store(blob, b"content")
    assert download(edge, blob).status == 200
    known = time.monotonic()
    edge.api.stop()
    reply = download(edge, "0" * 32)
    assert (reply.status, reply.code) == (503, "API_UNAVAILABLE")
    wait_for(lambda: all(download(edge, blob).status == 503 for _ in range(10)), "end of the grace in every worker")
    # One second more at most: a worker keeps its result that long.
    assert 3.5 < time.monotonic() - known < 6
    assert download(edge, blob).code == "API_UNAVAILABLE"
    edge.api.start()
    assert download(edge, blob).status == 200
    wait_for(lambda: "could not ask for a target" in edge.error_log.read_text(), "line in the error log")


def test_the_unknown_is_remembered_for_a_second(edge: Edge, blob: str) -> None:
    begun = time.monotonic()
    while time.monotonic() - begun < 0.5:
        assert download(edge, blob).code == "FILE_NOT_FOUND"
    assert edge.api.targets_asked.count(blob) == 1
    edge.store(blob, b"content")
    wait_for(lambda: download(edge, blob).status == 200, "new blob")
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500),
        Answer(503),
        Answer(body=b"{"),
        Answer(body=b"[]"),
        Answer(body=b"{}"),
        Answer(body=b'{"storage":"local","digest":"00","size":1}'),
        Answer(body=b'{"storage":1,"digest":"00","size":1,"uri":"/x"}'),
    ],
)
def test_a_broken_answer_is_not_kept(edge: Edge, blob: str, answer: Answer) -> None:
    edge.api.targets[blob] = answer
    reply = download(edge, blob)
    assert (reply.status, reply.code) == (503, "API_UNAVAILABLE")
    edge.store(blob, b"content")
    assert download(edge, blob).body == b"content"
