"""The API through Falcon's test client, on a real database, with storage in memory and a clock that tests advance."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import falcon.testing
import msgspec
import pymysql
import pytest
from argon2 import PasswordHasher

from api.app import compose, create_app
from api.core import digests
from api.core.config import Config, load
from api.db.migrate import migrate
from api.db.pool import Database, connect_arguments
from api.http.adapter import Endpoint
from api.http.route import JSON
from api.http.schemas import Answer, ErrorAnswer
from api.jobs import rows as jobs
from api.jobs.queue import NAMES, Queue, name_of
from api.services import Services
from api.storage.base import MultipartStorage
from api.storage.memory import MemoryStorage
from tests.conftest import Servers

KEY = "k" * 64
EDGE_KEY = "e" * 64
FAST_HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
_names = itertools.count()
T = TypeVar("T")


def error(answer: falcon.testing.Result, status: int, code: str) -> dict[str, Any]:
    """Asserts the status and error code of a response, and the one shape of errors. Returns the error."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json) == ["error"]
    found: dict[str, Any] = answer.json["error"]
    assert found["code"] == code, found
    assert list(found)[:3] == ["code", "message", "request_id"]
    assert found["request_id"] == answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    assert (answer.headers.get("www-authenticate") == "Bearer") == (status == 401)
    return found


def together(*calls: Callable[[], T]) -> list[T]:
    """Runs calls in threads that begin at the same moment. Returns their responses in order."""
    barrier, answers = threading.Barrier(len(calls)), {}

    def run(index: int, call: Callable[[], T]) -> None:
        barrier.wait()
        answers[index] = call()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[index] for index in range(len(calls))]


class Clock:
    """A clock that stands still until a test advances it."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def turn(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def fresh_database(servers: Servers) -> str:
    """The URL of a new, migrated database."""
    name = f"sluice_{next(_names)}"
    connection = pymysql.connect(**connect_arguments(servers.database_url) | {"database": None})
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    connection.close()
    url = servers.database_url.replace("/sluice?", f"/{name}?")
    migrate(url)
    return url


@pytest.fixture(scope="session")
def database_url(servers: Servers) -> str:
    """One database, shared by tests that each create their users."""
    return fresh_database(servers)


def settings(database_url: str, servers: Servers, folder: Path) -> dict[str, str]:
    """The settings that have no default."""
    return {
        "SLUICE_DATABASE_URL": database_url,
        "SLUICE_REDIS_URL": servers.redis_url,
        "SLUICE_SECRET_KEYS": KEY,
        "SLUICE_EDGE_KEY": EDGE_KEY,
        "SLUICE_STORAGE_ROOT": str(folder),
    }


@pytest.fixture
def environ(database_url: str, servers: Servers, tmp_path: Path) -> dict[str, str]:
    """Settings of the tests' API."""
    return settings(database_url, servers, tmp_path)


class Watch(list[tuple[str, Sequence[object]]]):
    """A record of statements. Before a statement that begins with a given text, it runs an action, once or each time.

    Statements of the action are recorded, but trigger no further action.
    """

    def __init__(self, begins: str | tuple[str, ...], act: Callable[[], object], *, once: bool = True) -> None:
        super().__init__()
        self._begins, self._act, self._once = begins, act, once
        self._acting = False

    def append(self, statement: tuple[str, Sequence[object]]) -> None:
        super().append(statement)
        if statement[0].startswith(self._begins) and not (self._once and self._acting):
            self._acting = True
            self._act()


class KeptQueue(Queue):
    """Keeps enqueued messages; delivers none."""

    def __init__(self) -> None:
        super().__init__("")
        self.kept: list[tuple[str, bytes]] = []

    def enqueue(self, kind: str, subjects: Sequence[bytes]) -> None:
        self.kept += [(kind, subject) for subject in subjects]

    def depths(self) -> Mapping[str, int]:
        return {name: sum(name_of(kind) == name for kind, _ in self.kept) for name in NAMES}


class AsDeclared:
    """Compares every response with its row in the table of routes: its shape, its status, its errors."""

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        route = resource.routes.get(req.method) if isinstance(resource, Endpoint) else None
        if route is None:
            return
        status = resp.status_code
        if resp.content_type == JSON and resp.data is not None and status not in route.status:
            code = msgspec.json.decode(resp.data, type=ErrorAnswer).error.code
            declared = {(kind.status, kind.code) for kind in route.kinds}
            assert (status, code) in declared, f"{route.name}: {status} {code}"
        elif route.answers:
            assert status in route.status, f"{route.name}: {status}"
            assert resp.data is not None
            assert any(_fits(resp.data, shape) for shape in route.answers), f"{route.name}: {resp.data!r}"


def _fits(data: bytes, shape: type[Answer]) -> bool:
    try:
        msgspec.json.decode(data, type=shape)
    except msgspec.ValidationError:
        return False
    return True


class Gateway:
    """A composed API, with access to what tests check.

    Args:
        others: further storages by name, after the first one, which is called local.
    """

    def __init__(
        self,
        config: Config,
        storage: MemoryStorage | None = None,
        others: Mapping[str, MultipartStorage] | None = None,
    ) -> None:
        self.clock = Clock()
        self.storage = storage or MemoryStorage()
        self.storages: dict[str, MultipartStorage] = {"local": self.storage, **(others or {})}
        self.statements: list[tuple[str, Sequence[object]]] = []
        self.db = Database(config.database_url, 16, lambda sql, args: self.statements.append((sql, args)))
        self.queue = KeptQueue()
        self.services: Services = compose(
            config, db=self.db, storage=self.storages, clock=self.clock, hasher=FAST_HASHER, queue=self.queue
        )
        app = create_app(self.services)
        app.add_middleware(AsDeclared())
        self.http = falcon.testing.TestClient(app)
        self.config = config

    def due(self, kind: str) -> list[bytes]:
        """The subjects of the jobs that a worker would run now."""
        cast(Any, self.services.jobs[kind]).rescue()
        return jobs.due(self.db, kind, self.clock(), timedelta(seconds=-1), 1000)

    def take(self, kind: str, subject: bytes) -> bool:
        """Processes one message, as a worker does."""
        return self.services.runner.run(kind, subject)

    def work(self, kind: str) -> list[bool]:
        """Runs all due jobs, as a worker does."""
        return [self.take(kind, subject) for subject in self.due(kind)]

    def user(self, name: str | None = None) -> User:
        """A new account, signed in."""
        return User(self, name or f"user{next(_names)}")

    def rows(self, sql: str, *args: object) -> Sequence[tuple[Any, ...]]:
        """Rows of the database."""
        return self.db.all(sql, args)


class User:
    """A signed-in account."""

    password = "correct horse"

    def __init__(self, gateway: Gateway, name: str) -> None:
        self.gateway = gateway
        self.name = name
        body = {"username": name, "password": self.password}
        made = gateway.http.simulate_post("/api/v1/users", json=body)
        assert made.status_code == 201, made.text
        self.id = made.json["id"]
        self.session = gateway.http.simulate_post("/api/v1/sessions", json=body).json

    def call(self, method: str, path: str, **options: Any) -> falcon.testing.Result:
        headers = {"Authorization": f"Bearer {self.session['access_token']}"}
        if "body" in options:
            headers["Content-Type"] = JSON
        headers |= options.pop("headers", {})
        return self.gateway.http.simulate_request(method, f"/api/v1{path}", headers=headers, **options)

    def post(self, path: str, body: object = None) -> falcon.testing.Result:
        return self.call("POST", path, json={} if body is None else body)

    def get(self, path: str, **params: Any) -> falcon.testing.Result:
        return self.call("GET", path, params=params)

    # -- the protocol, as a client speaks it

    def create(self, content: Content, name: str = "a.bin", **more: Any) -> dict[str, Any]:
        body = {"name": name, "size": content.size} | more
        answer = self.post("/uploads", body)
        assert answer.status_code in (200, 201), answer.text
        result: dict[str, Any] = answer.json
        return result

    def put(self, upload: Mapping[str, Any], content: Content, numbers: Sequence[int] | None = None) -> None:
        """Signs and sends parts; MemoryStorage takes them by number."""
        numbers = numbers or range(1, upload["part_count"] + 1)
        answer = self.post(f"/uploads/{upload['id']}/parts", {"parts": content.hashes(numbers)})
        assert answer.status_code == 200, answer.text
        for number, part in answer.json["parts"].items():
            upload_id, stored = urlsplit(part["url"]).path.strip("/").split("/")
            assert (upload_id, stored) == (upload["id"], number)
            self.gateway.storage.uploads[upload_id][int(number)] = content.part(int(number))

    def complete(self, upload: Mapping[str, Any]) -> falcon.testing.Result:
        return self.post(f"/uploads/{upload['id']}/complete")

    def upload(self, content: Content, name: str = "a.bin", **more: Any) -> dict[str, Any]:
        """A whole upload. Returns the file."""
        upload = self.create(content, name, **more)
        if upload["state"] != "done":
            self.put(upload, content)
            done = self.complete(upload)
            assert done.status_code == 200, done.text
            upload = done.json
        file: dict[str, Any] = upload["file"]
        return file


class Content:
    """Bytes, cut into parts as the protocol defines."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.part_size = digests.part_size(self.size)
        self._hashes: dict[int, str] = {}

    @classmethod
    def of_parts(cls, count: int, salt: str) -> Content:
        """Content with this many parts that no other user has; the last part is short."""
        seed = hashlib.sha256(salt.encode()).digest() * 1024
        return cls((seed * ((count * digests.MIN_PART_SIZE) // len(seed)))[: -7 if count else None])

    def part(self, number: int) -> bytes:
        return self.data[(number - 1) * self.part_size : number * self.part_size]

    def part_hash(self, number: int) -> str:
        if number not in self._hashes:
            self._hashes[number] = hashlib.sha256(self.part(number)).hexdigest()
        return self._hashes[number]

    def hashes(self, numbers: Sequence[int] | None = None) -> dict[str, str]:
        numbers = numbers or range(1, digests.part_count(self.size) + 1)
        return {str(n): self.part_hash(n) for n in numbers}

    @property
    def digest(self) -> str:
        return digests.composite(bytes.fromhex("".join(self.hashes().values()))).hex()

    def prove(self, challenge: Mapping[str, Any]) -> dict[str, Any]:
        """The request body of the proof for a challenge."""
        answer = hashlib.sha256(bytes.fromhex(challenge["nonce"]))
        for offset, length in challenge["ranges"]:
            answer.update(self.data[offset : offset + length])
        return {"proof": answer.hexdigest(), "parts": list(self.hashes().values())}


@pytest.fixture
def build(environ: dict[str, str]) -> Iterator[Callable[..., Gateway]]:
    """Composes APIs with other settings: ``build(dedup_scope="user")``; each result stands for one process."""
    made: list[Gateway] = []

    def compose_with(**settings: object) -> Gateway:
        constants = {field.name for field in fields(Config) if "test" in field.metadata}
        more = {f"SLUICE_{'TEST_' * (name in constants)}{name.upper()}": str(value) for name, value in settings.items()}
        made.append(Gateway(load(environ | more)))
        return made[-1]

    yield compose_with
    for gateway in made:
        gateway.db.close()


@pytest.fixture
def gateway(build: Callable[..., Gateway]) -> Gateway:
    """The API."""
    return build()


@pytest.fixture
def user(gateway: Gateway) -> User:
    """A signed-in account."""
    return gateway.user()
