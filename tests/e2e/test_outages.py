"""Without database, Redis, API or disk: other functions work, errors say when to retry, and nothing is lost."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from tests.e2e.client import Client, code
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART, Sources
from tests.waiting import await_true

SETTINGS = {
    "SLUICE_LINK_GRACE": "3",
    "SLUICE_API_WORKERS": "1",
    "SLUICE_API_THREADS": "24",
    "SLUICE_TEST_DATABASE_POOL": "48",
    "SLUICE_TIERS": "default:calls=0",
}
"""Every call of a round waits in the database at the same moment, so each needs a thread and a connection."""

STALE_SECONDS = 2 + 3
"""The lag and its tolerance: after that the edge trusts no bearer token."""

Call = Callable[[], httpx.Response]


class Calls:
    """Every call of the API that needs the database. Each has a separate subject and can be made once.

    Args:
        seed: makes the subjects differ from those of other rounds.
    """

    def __init__(self, gateway: Gateway, sources: Sources, seed: str) -> None:
        self.user, self.other = gateway.user(), gateway.user()
        user = self.user
        make = sources.make
        self.known = make(PART + 5, f"known {seed}")
        known_file = self.other.upload(self.known)
        files = [user.upload(make(100 + n, seed)) for n in range(6)]
        user.want(204, "DELETE", f"/files/{files[3]['id']}")
        begun = user.create(make(PART + 1, seed))
        signed = user.create(make(PART + 2, seed))
        proving = user.create(self.known)
        aborted = user.create(make(PART + 3, seed))
        self.whole = make(PART + 4, seed)
        complete = user.create(self.whole)
        user.send(complete, self.whole)
        passing, leaving = user.another_machine(), user.another_machine()
        proof = {"proof": self.known.proof(proving["challenge"]), "parts": self.known.hashes}
        credentials = {"username": user.username, "password": user.password}
        new_user = {"username": f"new-{seed}", "password": gateway.secrets.new_password()}
        fresh = {"name": "fresh", "size": PART + 9, "digest": make(PART + 9, seed).digest}
        again = {"name": begun["name"], "size": begun["size"], "digest": begun["digest"]}
        mine = {"name": "mine again", "size": 100, "digest": files[0]["digest"]}
        parts = {"parts": make(PART + 2, seed).hashes_of([1, 2])}

        def of(client: Client, method: str, path: str, body: object = None) -> Call:
            return lambda: client.call(method, path, body)  # type: ignore[arg-type]

        self.wanted = complete["id"]
        self.calls: dict[str, tuple[Call, set[int]]] = {
            "sign up": (of(gateway.client(), "POST", "/users", new_user), {201, 409}),
            "sign in": (of(gateway.client(), "POST", "/sessions", credentials), {201}),
            "refresh": (
                of(gateway.client(), "POST", "/sessions/refresh", {"refresh_token": passing.refresh_token}),
                {200, 401},
            ),
            "sign out": (of(leaving, "DELETE", "/sessions/current"), {204, 401}),
            "me": (of(user, "GET", "/users/me"), {200}),
            "create": (of(user, "POST", "/uploads", fresh), {200, 201}),
            "create what is mine": (of(user, "POST", "/uploads", mine), {201}),
            "find again": (of(user, "POST", "/uploads", again), {200}),
            "prove": (of(user, "POST", f"/uploads/{proving['id']}/proof", proof), {200, 409}),
            "sign": (of(user, "POST", f"/uploads/{signed['id']}/parts", parts), {200}),
            "look": (of(user, "GET", f"/uploads/{begun['id']}"), {200}),
            "list uploads": (of(user, "GET", "/uploads"), {200}),
            "complete": (of(user, "POST", f"/uploads/{complete['id']}/complete"), {200, 202}),
            "abort": (of(user, "DELETE", f"/uploads/{aborted['id']}"), {200}),
            "list files": (of(user, "GET", "/files"), {200}),
            "file": (of(user, "GET", f"/files/{files[0]['id']}"), {200}),
            "rename": (of(user, "PATCH", f"/files/{files[1]['id']}", {"name": "renamed"}), {200}),
            "trash": (of(user, "DELETE", f"/files/{files[2]['id']}"), {204}),
            "restore": (of(user, "POST", f"/files/{files[3]['id']}/restore"), {200}),
            "link": (of(user, "POST", f"/files/{files[4]['id']}/links", {}), {201}),
            "content": (of(user, "GET", f"/files/{files[5]['id']}/content"), {200}),
        }
        assert known_file["state"] == "ready"

    def check(self) -> None:
        """In the end, each completed upload is one file with the right bytes, whichever process finished it."""
        done = self.user.await_done(self.user.want(200, "GET", f"/uploads/{self.wanted}"))
        assert self.user.holds(done, self.whole)
        listed = self.user.want(200, "GET", "/files?limit=1000")["items"]
        assert [file["name"] for file in listed].count(self.whole.path.name) == 1


def repeat(calls: Calls) -> None:
    for name, (call, good) in calls.calls.items():
        answer = call()
        assert answer.status_code in good, f"{name}, repeated: {answer.status_code} {answer.text}"


def test_every_call_says_that_the_database_is_away_and_works_afterwards(gateway: Gateway, sources: Sources) -> None:
    calls = Calls(gateway, sources, "away")
    with gateway.without("mariadb"):
        for name, (call, _) in calls.calls.items():
            assert code(call()) == (503, "DATABASE_UNAVAILABLE"), name
        await_true(lambda: gateway.stack.get("/readyz") == 503)
        assert gateway.stack.get("/healthz") == 200
    for name, (call, good) in calls.calls.items():
        answer = call()
        assert answer.status_code in good - {401, 409}, f"{name}: {answer.status_code} {answer.text}"
    calls.check()
    gateway.await_nothing_lost()


@contextmanager
def stuck(gateway: Gateway, table: str, calls: Calls) -> Iterator[list[tuple[str, Future[httpx.Response]]]]:
    """Makes every call concurrently, and blocks those that need a table just before they use it."""
    with ThreadPoolExecutor(len(calls.calls)) as pool, gateway.database() as cursor:
        cursor.execute(f"LOCK TABLES {table} WRITE")
        running = [(name, pool.submit(call)) for name, (call, _) in calls.calls.items()]

        def all_wait() -> bool:
            busy = gateway.query(
                "SELECT COUNT(*) FROM information_schema.processlist WHERE command = 'Query' AND id <> CONNECTION_ID()"
            )
            return int(busy[0][0]) >= sum(not answer.done() for _, answer in running)

        await_true(all_wait)
        yield running


@pytest.mark.parametrize("table", ["upload", "upload_part", "file"])
def test_a_database_that_dies_in_the_middle_of_every_call_loses_nothing(
    gateway: Gateway, sources: Sources, table: str
) -> None:
    calls = Calls(gateway, sources, f"dies-{table}")
    cut = []
    with stuck(gateway, table, calls) as running:
        await_back = gateway.kill("mariadb")
        for name, answer in running:
            if code(answer.result()) == (503, "DATABASE_UNAVAILABLE"):
                cut.append(name)
            else:
                assert answer.result().status_code in calls.calls[name][1], f"{name}: {answer.result().text}"
    assert {"upload": "look", "upload_part": "sign", "file": "complete"}[table] in cut
    await_back()
    repeat(calls)
    calls.check()
    gateway.await_nothing_lost()


@pytest.mark.parametrize("how", ["without", "frozen"])
def test_nothing_needs_redis(gateway: Gateway, sources: Sources, how: str) -> None:
    source, large = sources.make(2 * PART + 3, how), sources.make(9 * PART, how)
    broken = gateway.without if how == "without" else gateway.frozen
    with broken("redis"):
        begun = time.monotonic()
        user = gateway.user()
        for one in (source, large):
            assert user.holds(user.upload(one), one)
        repeat(Calls(gateway, sources, how))
        assert time.monotonic() - begun < 20, "no call waits long for a server that is down"
        assert gateway.stack.get("/readyz") == 200
    assert user.call("GET", "/users/me").status_code == 200
    gateway.await_nothing_lost()


def test_links_go_on_without_the_api_for_the_grace_and_nothing_passes_after_it(
    gateway: Gateway, sources: Sources
) -> None:
    user = gateway.user()
    source, begun = sources.make(PART + 77, "grace"), sources.make(2 * PART, "grace")
    link = user.link(user.upload(source))
    cold = user.link(user.upload(sources.make(78, "cold")))
    assert user.fetch(link).status_code == 200
    upload = user.create(begun)
    parts = user.sign(upload, begun, [1, 2])
    with gateway.without("api"):
        gone = time.monotonic()
        assert user.sha256_of(link) == source.sha256
        assert code(user.fetch(cold)) == (503, "API_UNAVAILABLE")
        assert code(user.call("GET", "/users/me")) == (503, "API_UNAVAILABLE")
        assert code(user.fetch(f"{gateway.address}/healthz")) == (503, "API_UNAVAILABLE")
        assert user.put(parts[1], begun.part(1)).is_success, "a part needs no API, either"
        # an edge that is unsure asks the API about each link again, and the API is away
        await_true(lambda: code(user.fetch(link, Range="bytes=0-0")) == (503, "API_UNAVAILABLE"), STALE_SECONDS + 3 + 8)
        assert STALE_SECONDS < time.monotonic() - gone < STALE_SECONDS + 3 + 3
        assert code(user.put(parts[2], begun.part(2))) == (503, "EDGE_STALE")
    await_true(lambda: user.call("GET", "/users/me").status_code == 200)
    assert user.sha256_of(link) == source.sha256
    assert user.fetch(cold).status_code == 200
    found = user.create(begun)
    assert found["missing"] == [[2, 2]]
    user.send(found, begun)
    assert user.holds(user.complete(upload), begun)


def test_a_disk_that_fails_is_reported_as_unavailable_and_loses_nothing(gateway: Gateway, sources: Sources) -> None:
    user = gateway.user()
    source, other, third = (sources.make(PART + n, "disk") for n in (1, 2, 3))
    sent, open_ = user.create(source), user.create(other)
    user.send(sent, source)
    parts = user.sign(open_, other, [1, 2])
    link = user.link(user.upload(sources.make(500, "disk")))
    folders = [gateway.storage / name for name in ("parts", "assembling", "objects", "incoming")]
    for folder in folders:
        folder.chmod(0)
    try:
        assert code(user.fetch(link)) == (503, "STORAGE_UNAVAILABLE")
        assert code(user.put(parts[1], other.part(1))) == (503, "STORAGE_UNAVAILABLE")
        assert code(user.call("POST", f"/uploads/{sent['id']}/complete")) == (503, "STORAGE_UNAVAILABLE")
        create = {"name": "third", "size": third.size, "digest": third.digest}
        assert code(user.call("POST", "/uploads", create)) == (503, "STORAGE_UNAVAILABLE")
        assert user.call("GET", f"/uploads/{open_['id']}").status_code == 200
        await_true(lambda: gateway.stack.get("/readyz") == 503)
    finally:
        for folder in folders:
            folder.chmod(0o700)
    assert user.fetch(link).status_code == 200
    assert user.holds(user.complete(sent), source)
    user.send(open_, other)
    assert user.holds(user.complete(open_), other)
    assert user.holds(user.upload(third, "third"), third)
    await_true(lambda: gateway.stack.get("/readyz") == 200)
    gateway.await_nothing_lost()
