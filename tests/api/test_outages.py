"""Database, Redis and storage are killed or down: calls return the right error, and their repeats succeed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import falcon.testing
import pymysql
import pytest

from api.core.errors import StorageUnavailable
from api.db.migrate import migrate
from api.db.pool import connect_arguments
from api.operations import health
from scripts.stack.services import MariaDB, Redis, server_folder
from tests.api.conftest import Content, Gateway, Watch, error
from tests.api.outcomes import consistent, finish
from tests.conftest import Servers
from tests.servers import MortalServer

Run = Callable[[], falcon.testing.Result]

# PyMySQL forgets to close a socket whose connect() was refused
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(autouse=True)
def forgotten_sockets() -> Iterator[None]:
    """Collects the leaked sockets here, and not in another test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MortalServer]:
    """A MariaDB to kill."""
    with server_folder() as folder:
        server = MortalServer(MariaDB(folder, durable=False))
        try:
            yield server
        finally:
            server.kill()


class TestKilled:
    """``kill -9`` of the real mariadbd, a few times: between calls and during one."""

    @pytest.fixture
    def gateway(self, build: Callable[..., Gateway], mariadb: MortalServer) -> Gateway:
        url = mariadb.service.url  # type: ignore[attr-defined]
        migrate(url)
        return build(database_url=url)

    def test_between_calls(self, gateway: Gateway, mariadb: MortalServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(health, "HEALTH_CACHE_SECONDS", -1.0)
        user, content = gateway.user(), Content.of_parts(2, "killed between")
        upload = user.create(content, resume_key="k")
        user.put(upload, content, [1])
        mariadb.kill()
        calls: list[Run] = [
            lambda: user.post("/uploads", {"name": "a.bin", "size": content.size, "resume_key": "k"}),
            lambda: user.get(f"/uploads/{upload['id']}"),
            lambda: user.post(f"/uploads/{upload['id']}/parts", {"parts": content.hashes()}),
            lambda: user.get("/files"),
        ]
        for call in calls:
            error(call(), 503, "DATABASE_UNAVAILABLE")
        ready = gateway.http.simulate_get("/readyz")
        assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
        assert ready.json["checks"]["database"] != "ok"
        assert ready.json["checks"]["redis"] == ready.json["checks"]["storage:local"] == "ok"
        assert gateway.http.simulate_get("/healthz").status_code == 200
        mariadb.start()
        for call in calls:
            assert call().status_code == 200
        assert gateway.http.simulate_get("/readyz").status_code == 200
        user.put(upload, content)
        assert user.complete(upload).json["state"] == "done"
        consistent(gateway, content, 1)

    @pytest.mark.parametrize("at", ["INSERT INTO blob_parts", "COMMIT"])
    def test_in_the_middle_of_complete(self, gateway: Gateway, mariadb: MortalServer, at: str) -> None:
        user, content = gateway.user(), Content(f"killed at {at}".encode())
        upload = user.create(content)
        user.put(upload, content)
        gateway.statements = Watch(at, mariadb.kill)
        error(user.complete(upload), 503, "DATABASE_UNAVAILABLE")
        mariadb.start()
        assert user.complete(upload).status_code == 202
        assert finish(gateway, user, upload)["state"] == "done"
        consistent(gateway, content, 1)

    def test_an_api_that_starts_before_its_database(self, build: Callable[..., Gateway], mariadb: MortalServer) -> None:
        mariadb.kill()
        gateway = build(database_url=mariadb.service.url)  # type: ignore[attr-defined]
        body = {"username": "early", "password": "password"}
        error(gateway.http.simulate_post("/api/v1/users", json=body), 503, "DATABASE_UNAVAILABLE")
        mariadb.start()
        assert gateway.http.simulate_post("/api/v1/users", json=body).status_code == 201


def test_a_database_that_is_not_migrated_is_away(build: Callable[..., Gateway], servers: Servers) -> None:
    connection = pymysql.connect(**connect_arguments(servers.database_url) | {"database": None})
    with connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE sluice_empty")
    connection.close()
    gateway = build(database_url=servers.database_url.replace("/sluice?", "/sluice_empty?"))
    body = {"username": "early", "password": "password"}
    error(gateway.http.simulate_post("/api/v1/users", json=body), 503, "DATABASE_UNAVAILABLE")
    assert gateway.http.simulate_get("/readyz").json["checks"]["database"] == "not migrated"


class TestRedis:
    @pytest.fixture
    def redis(self) -> Iterator[MortalServer]:
        with server_folder() as folder:
            server = MortalServer(Redis(folder))
            try:
                yield server
            finally:
                server.kill()

    def test_everything_goes_on_without_it_and_with_it_again(
        self, build: Callable[..., Gateway], redis: MortalServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(health, "HEALTH_CACHE_SECONDS", -1.0)
        monkeypatch.setattr("api.core.cache.RETRY_SECONDS", 0.0)
        gateway = build(redis_url=redis.service.url, finalize_inline=0)  # type: ignore[attr-defined]
        for state in ("there", "killed", "back"):
            if state == "killed":
                redis.kill()
            if state == "back":
                redis.start()
            ready = gateway.http.simulate_get("/readyz")
            assert (ready.status_code, ready.json["checks"]["redis"]) == (200, "away" if state == "killed" else "ok")
            user, content = gateway.user(), Content(f"redis {state}".encode())
            upload = user.create(content)
            user.put(upload, content)
            assert user.complete(upload).status_code == 202
            assert finish(gateway, user, upload)["state"] == "done"
            bad = {"username": user.name, "password": "wrong"}
            answers = [gateway.http.simulate_post("/api/v1/sessions", json=bad) for _ in range(11)]
            assert [answer.status_code for answer in answers] == [401] * 10 + [429]


class TestStorage:
    """A storage goes down during each call that uses it."""

    @pytest.mark.parametrize("method", ["create", "list_parts", "complete", "abort", "open", "check_room"])
    def test_the_repeat_succeeds_and_nothing_is_doubled(
        self, gateway: Gateway, method: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content, first, user = Content.of_parts(2, f"away at {method}"), gateway.user(), gateway.user()
        first.upload(content)
        failed: list[str] = []

        def away(*_: object) -> None:
            failed.append(method)
            raise StorageUnavailable("away")

        def through(run: Run) -> falcon.testing.Result:
            with monkeypatch.context() as patch:
                patch.setattr(gateway.storage, method, away)
                answer = run()
            if answer.status_code >= 500:
                error(answer, 503, "STORAGE_UNAVAILABLE")
                answer = run()
            assert answer.status_code < 300, answer.text
            return answer

        body = {"name": "a", "size": content.size, "digest": content.digest}
        through(lambda: user.post("/uploads", body | {"name": "aborted"}))
        doomed = user.create(content, "aborted", digest=content.digest)
        through(lambda: user.call("DELETE", f"/uploads/{doomed['id']}"))
        upload = through(lambda: user.post("/uploads", body)).json
        path = f"/uploads/{upload['id']}"
        wrong = content.prove(upload["challenge"]) | {"proof": "0" * 64}
        through(lambda: user.post(f"{path}/proof", wrong))
        through(lambda: user.post(f"{path}/parts", {"parts": content.hashes()}))
        user.put(upload, content)
        through(lambda: user.get(path))
        through(lambda: user.complete(upload))
        assert finish(gateway, user, upload)["state"] == "done"
        assert failed
        consistent(gateway, content, 2)
        gateway.services.sweep.run()
        assert gateway.storage.uploads == {}
