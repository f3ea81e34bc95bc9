"""Concurrent calls: one winner, and no partial result."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.client import Client, Json, code
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART, Source, Sources
from tests.e2e.wire import Wire


def at_once(*calls: Callable[[], httpx.Response]) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [running.result() for running in [pool.submit(call) for call in calls]]


def test_many_concurrent_completes_make_one_file(gateway: Gateway, user: Client, source: Source, upload: Json) -> None:
    user.send(upload, source)
    complete = lambda: user.call("POST", f"/uploads/{upload['id']}/complete")  # noqa: E731 - called many times concurrently
    answers = at_once(*[complete] * 6)
    assert {answer.status_code for answer in answers} <= {200, 202}
    file = user.await_done(user.want(200, "GET", f"/uploads/{upload['id']}"))
    assert gateway.query("SELECT COUNT(*) FROM file WHERE name = %s", [source.path.name]) == [(1,)]
    assert user.holds(file, source)


@pytest.mark.parametrize("moment", range(6))
def test_concurrent_abort_and_complete_have_one_winner(
    gateway: Gateway, user: Client, source: Source, upload: Json, moment: int
) -> None:
    user.send(upload, source)

    def abort() -> httpx.Response:
        time.sleep(moment * 0.004)  # the race runs with several offsets; every outcome below is right
        return user.call("DELETE", f"/uploads/{upload['id']}")

    aborted, completed = at_once(abort, lambda: user.call("POST", f"/uploads/{upload['id']}/complete"))
    upload = user.want(200, "GET", f"/uploads/{upload['id']}")
    if aborted.status_code == 200:
        assert code(completed)[0] in (404, 409)
        assert upload["state"] == "aborted"
        assert gateway.query("SELECT COUNT(*) FROM file WHERE name = %s", [source.path.name]) == [(0,)]
    else:
        assert code(aborted) == (409, "UPLOAD_NOT_OPEN")
        assert completed.status_code in (200, 202)
        assert user.holds(user.await_done(upload), source)


def test_a_put_that_complete_overtakes_changes_nothing(user: Client, source: Source, upload: Json) -> None:
    user.send(upload, source)
    part = user.sign(upload, source, [1])[1]
    with Wire(part["url"]) as wire:
        wire.begin("PUT", Content_Length=str(PART)).send(b"!" * (PART // 2))
        file = user.complete(upload)
        assert wire.send(b"!" * (PART // 2)).answer() == (409, "UPLOAD_NOT_OPEN")
    assert user.holds(file, source)


@pytest.mark.parametrize("moment", range(6))
def test_a_wrong_put_beside_complete_is_found_or_too_late(
    user: Client, source: Source, upload: Json, moment: int
) -> None:
    user.send(upload, source)
    part = user.sign(upload, source, [2])[2]

    def complete() -> httpx.Response:
        time.sleep(moment * 0.002)  # as above
        return user.call("POST", f"/uploads/{upload['id']}/complete")

    put, completed = at_once(lambda: user.put(part, b"!" * 1000), complete)
    assert put.is_success or code(put) == (409, "UPLOAD_NOT_OPEN")
    if completed.status_code == 422:
        assert put.is_success
        assert completed.json()["error"]["parts"] == [2]
        user.send(upload, source, [2])
        file = user.complete(upload)
    else:
        file = user.await_done(completed.json())
    assert user.holds(file, source)


def test_eight_clients_with_twenty_small_files_each(gateway: Gateway, sources: Sources) -> None:
    clients = [gateway.user() for _ in range(8)]
    files = [[sources.make(1000 + 997 * n, f"{c} of 8") for n in range(20)] for c in range(8)]

    def work(client: Client, mine: list[Source]) -> None:
        uploaded = [client.upload(source) for source in mine]
        assert all(client.holds(file, source) for file, source in zip(uploaded, mine, strict=True))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, clients, files))
    for client in clients:
        assert len(client.want(200, "GET", "/files?limit=1000")["items"]) == 20
    gateway.await_nothing_lost()
