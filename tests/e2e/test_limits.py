"""Tiers on the whole stack: an account's rate, its quota, its traffic; and that a normal client meets no limit."""

import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.client import Client, Json, code
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART, Source, Sources
from tests.waiting import await_true

MIB = 1024**2
RATE = 4 * MIB
QUOTA = 3 * PART
SETTINGS = {"SLUICE_TIERS": f"slow:rate=4M; small:daily={QUOTA}", "SLUICE_TEST_USAGE_FLUSH": "1"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Sources(tmp_path_factory.mktemp("limits")).make(4 * PART, "limits")


def user_of(gateway: Gateway, tier: str) -> Client:
    """A user whose tier an operator has set."""
    user = gateway.user()
    subprocess.run([gateway.data / "run" / "api", "user", "tier", user.username, tier], check=True)
    return user.sign_in(user.username, user.password)


def moved(user: Client) -> Json:
    day: Json = user.want(200, "GET", "/users/me")["usage"]["day"]
    return day


def test_a_normal_client_meets_no_limit(gateway: Gateway, sources: Sources) -> None:
    user = gateway.user()
    file = sources.make(20 * PART + 1, "many parts")
    upload = user.create(file)
    user.send(upload, file, at_once=16)
    url = user.link(user.complete(upload))
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: user.call("GET", "/files", params={"limit": 1 + n % 50}), range(400)))
        assert {answer.status_code for answer in answers} == {200}
        pieces = list(pool.map(lambda n: user.fetch(url, Range=f"bytes={n}-{n + 99}"), range(400)))
        assert {piece.status_code for piece in pieces} == {206}
    await_true(lambda: moved(user) == {"sent": 400 * 100, "received": file.size, "limit": None})


def test_eight_connections_share_one_rate(gateway: Gateway, source: Source) -> None:
    user = user_of(gateway, "slow")
    url = user.link(user.upload(source))
    received, stop = [0] * 8, threading.Event()

    def download(number: int) -> None:
        with httpx.stream("GET", url, headers={"Range": f"bytes={number}-"}, timeout=30) as response:
            assert response.status_code == 206
            for data in response.iter_raw(16384):
                received[number] += len(data)
                if stop.is_set():
                    return

    threads = [threading.Thread(target=download, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    await_true(lambda: all(received))
    time.sleep(0.5)  # until the first burst has passed, whose end nothing tells
    before, began = sum(received), time.monotonic()
    time.sleep(2.5)  # the time of the measurement
    rate = (sum(received) - before) / (time.monotonic() - began)
    stop.set()
    for thread in threads:
        thread.join()
    assert 0.6 * RATE <= rate <= 1.1 * RATE


def test_a_quota_ends_downloads_of_that_user_alone(gateway: Gateway, source: Source) -> None:
    user, other = user_of(gateway, "small"), gateway.user()
    file = user.upload(source)
    url, theirs = user.link(file), other.link(other.upload(source))
    piece = {"Range": f"bytes=0-{PART - 1}"}
    # readers of links have half of it; a response that has begun is sent completely
    assert [code(user.fetch(url, **piece))[0] for _ in range(3)] == [206, 206, 429]

    def own() -> httpx.Response:
        return user.call("GET", f"/files/{file['id']}/content", headers=piece)

    assert code(own())[0] == 206
    refused = own()
    assert code(refused) == (429, "QUOTA_EXCEEDED")
    assert 0 < int(refused.headers["Retry-After"]) <= 86_400
    assert other.fetch(theirs, **piece).status_code == 206
    await_true(lambda: moved(user)["sent"] == QUOTA)
    assert moved(user)["limit"] == QUOTA
    assert code(user.fetch(url, Range="bytes=0-0"))[0] == 429


def test_usage_outlives_a_killed_edge(gateway: Gateway, source: Source) -> None:
    user = gateway.user()
    url = user.link(user.upload(source))
    assert user.fetch(url).status_code == 200
    await_true(lambda: moved(user)["sent"] == source.size)
    gateway.kill("nginx")()
    assert user.fetch(url, Range="bytes=0-9").status_code == 206
    await_true(lambda: moved(user)["sent"] == source.size + 10)


def test_the_edges_folder_holds_no_unsent_usage(gateway: Gateway) -> None:
    assert not list(Path(gateway.data / "nginx").glob("usage*"))
