"""A client in threads, in children that were forked or spawned, in pools, and beside asyncio."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from sluice import Client, SignInNeeded
from sluice.credentials import FileStore, MemoryStore

from tests.client.conftest import PASSWORD, Account
from tests.client.test_rough import due, sessions
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
_inherited: list[Client] = []


def in_a_child(work: Callable[[], object]) -> None:
    """Runs something in a forked child; it must not raise."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def trip(client: Client, name: str) -> str:
    """Up and down again, the content that the name says; the name as the server knows it."""
    data = name.encode() * 1000
    file = client.upload(data, name).file
    assert client.read(file) == data
    return client.stat(name).name


def trip_inherited(name: str) -> str:
    return trip(_inherited[0], name)


def trip_anew(url: str, username: str, name: str) -> str:
    with Client(url, username=username, password=PASSWORD) as client:
        return trip(client, name)


def test_forked_children_have_connections_of_their_own(client: Client) -> None:
    """As in gunicorn and celery: the client was used before the fork, and the parent continues to use it."""
    trip(client, "before")
    _inherited[:] = [client]
    with ThreadPoolExecutor(1) as parent, ProcessPoolExecutor(4, multiprocessing.get_context("fork")) as pool:
        mine = parent.map(lambda n: trip(client, f"parent {n}"), range(20))
        names = [f"child {n}" for n in range(40)]
        assert list(pool.map(trip_inherited, names)) == names
        assert len(list(mine)) == 20
    assert len(list(client.files())) == 61


def test_a_child_that_closes_its_client_takes_nothing_from_its_parent(client: Client) -> None:
    data = os.urandom(PART)
    file = client.upload(data, "large").file
    pieces = client.stream(file)
    first = bytes(next(pieces))
    in_a_child(client.close)
    assert first + b"".join(bytes(piece) for piece in pieces) == data
    client.whoami()


def test_a_fork_while_other_threads_hold_every_lock(client: Client) -> None:
    """Each lock may be held at that moment by a thread that the child has not."""
    over = threading.Event()

    def work(number: int) -> None:
        turn = 0
        while not over.is_set():
            trip(client, f"busy {number} {turn}")
            turn += 1

    client.whoami()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(10):
            in_a_child(partial(trip, client, f"child {number}"))
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_the_refresh_token_is_the_parents(account: Account, gateway: Gateway) -> None:
    """Used by both it would end the session of both."""
    store = MemoryStore()
    with Client(account.url, store=store) as client:
        client.login(account.username, PASSWORD)
        due(store, account.url)

        def work() -> None:
            assert client.whoami().username == account.username

        in_a_child(work)
        assert client.whoami().username == account.username
        assert sessions(gateway, account) == (1, 0)


def test_children_share_a_session_in_a_file(account: Account, gateway: Gateway, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "default.json")
    with Client(account.url, store=store) as client:
        client.login(account.username, PASSWORD)
        for _ in range(3):
            due(store, account.url)
            in_a_child(client.whoami)
            client.whoami()
    assert sessions(gateway, account) == (1, 0)


def test_a_client_is_not_pickled(client: Client) -> None:
    with pytest.raises(TypeError, match="make another one there"):
        pickle.dumps(client)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_that_begin_anew_make_clients_of_their_own(account: Account, method: str) -> None:
    pool: Executor
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        names = [f"{method} {n}" for n in range(4)]
        found = [pool.submit(trip_anew, account.url, account.username, name) for name in names]
        assert [each.result(60) for each in found] == names


def test_many_threads_use_one_client(client: Client) -> None:
    with ThreadPoolExecutor(16) as pool:
        names = [f"thread {n}" for n in range(100)]
        assert list(pool.map(lambda name: trip(client, name), names)) == names


def test_beside_asyncio(client: Client) -> None:
    async def work() -> list[str]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)  # a tick of the loop
                ticks += 1

        ticking = asyncio.create_task(tick())
        found = await asyncio.gather(*(asyncio.to_thread(trip, client, f"task {n}") for n in range(20)))
        ticking.cancel()
        assert ticks > 5, "the loop went on"
        return list(found)

    assert asyncio.run(work()) == [f"task {n}" for n in range(20)]


def test_a_session_is_for_its_origin_alone(account: Account, gateway: Gateway) -> None:
    """If one server has two names, these are two origins."""
    store = MemoryStore()
    with Client(account.url, store=store) as client:
        client.login(account.username, PASSWORD)
    other = account.url.replace("127.0.0.1", "localhost")
    with Client(other, store=store) as client, pytest.raises(SignInNeeded, match="localhost"):
        client.whoami()
    with Client(account.url + "/", store=store) as client:
        client.whoami()
