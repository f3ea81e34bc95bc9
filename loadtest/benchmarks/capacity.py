"""How much load one machine carries: ``loadtest/capacity``.

Every route with one and two gunicorn workers, 1,000 open uploads, an upload of 10,000 parts, kept connections.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from loadtest.benchmarks.bench import cpu_used
from loadtest.benchmarks.client import JSON, PASSWORD, Client
from loadtest.benchmarks.content import MIB, PART_SIZE, Content
from loadtest.benchmarks.growth import write_block
from loadtest.benchmarks.measure import kept, resident_bytes
from loadtest.benchmarks.s3 import in_parallel
from loadtest.benchmarks.stack import ROOT, Stack, many_files, scratch
from loadtest.benchmarks.wrk import Load

_PAGE = ROOT / "loadtest" / "results" / "results.md"
_AT_ONCE = 8
_UPLOADS = 1000
_USERS = 20
_IDLE = 2000
_PARTS = 10_000
_SEEDS = itertools.count(time.time_ns())


@dataclass(frozen=True)
class Route:
    """One route with a number of workers; CPU in ms per call."""

    name: str
    workers: int
    per_second: float
    api: float
    database: float


class Routes:
    """Each route under load, through nginx."""

    def __init__(self, stack: Stack, workers: int, seconds: int, found: list[Route]) -> None:
        self._stack = stack
        self._workers = workers
        self._seconds = seconds
        self._client = Client(stack.port)
        self._found = found

    def _keep(self, name: str, count: float, seconds: float, api: float, database: float) -> None:
        self._found.append(Route(name, self._workers, count / seconds, 1e3 * api / count, 1e3 * database / count))
        print(f"  {name:34} {count / seconds:8.0f}/s, API {1e3 * api / count:.2f} ms", file=sys.stderr)

    def repeated(self, name: str, method: str, path: str, body: JSON | None = None, connections: int = 16) -> None:
        """Measures a request that can be repeated."""
        headers = {"Authorization": f"Bearer {self._client.token}", "Content-Type": "application/json"}
        text = None if body is None else json.dumps(body)
        load = Load(self._stack.port, [f"/api/v1{path}"], connections, method, headers, text)
        with cpu_used(self._stack.database_server) as database:
            sample = load.put(self._seconds, self._stack.api)
        count = sample.speed * self._seconds
        self._keep(name, count, self._seconds, sample.cpu * count, database.seconds)

    def each(self, name: str, make: Callable[[Client], Callable[[], object]]) -> None:
        """Measures a call that needs fresh input each time. `make` prepares it, for each of eight threads."""
        clients = [self._client.another() for _ in range(_AT_ONCE)]
        times = 4 * self._seconds
        calls = [[make(client) for _ in range(times)] for client in clients]

        def work(thread: int) -> None:
            for call in calls[thread]:
                call()

        with cpu_used(self._stack.api) as api, cpu_used(self._stack.database_server) as database:
            began = time.monotonic()
            in_parallel(work, _AT_ONCE)
            seconds = time.monotonic() - began
        self._keep(name, times * _AT_ONCE, seconds, api.seconds, database.seconds)

    def run(self) -> None:
        """Every route that a client calls."""
        client = self._client
        files = [client.upload(Content(1000, next(_SEEDS)), f"file {number}.txt") for number in range(50)]
        path = f"/files/{files[0]['id']}"
        open_upload = client.create(Content(PART_SIZE, next(_SEEDS)), "open.bin", resume_key="open")
        self.repeated("GET /users/me", "GET", "/users/me")
        self.repeated("GET /files, 50", "GET", "/files?limit=50")
        self.repeated("GET /files/{id}", "GET", path)
        self.repeated("GET /uploads", "GET", "/uploads")
        self.repeated("GET /uploads/{id}", "GET", f"/uploads/{open_upload['id']}")
        self.repeated("GET /files/{id}/content", "GET", f"{path}/content")
        self.repeated("POST /files/{id}/links", "POST", f"{path}/links", {})
        self.repeated("PATCH /files/{id}", "PATCH", path, {"name": "renamed.txt"})
        again = {"name": "open.bin", "size": PART_SIZE, "resume_key": "open"}
        self.repeated("POST /uploads, found again", "POST", "/uploads", again)
        self.repeated("POST /sessions", "POST", "/sessions", {"username": client.username, "password": PASSWORD}, 4)
        self.each("POST /uploads + DELETE", self._create)
        self.each("POST /uploads/{id}/parts, 16", self._parts)
        self.each("POST /uploads/{id}/complete, 1 KiB", self._complete)
        self.each("DELETE /files/{id} + restore", self._trash)

    def _create(self, client: Client) -> Callable[[], object]:
        def call() -> None:
            upload = client.create(Content(PART_SIZE, next(_SEEDS)), "new.bin")
            client.call("DELETE", f"/uploads/{upload['id']}")

        return call

    def _parts(self, client: Client) -> Callable[[], object]:
        owner = client if self._seconds < 2 else Client(self._stack.port)  # a user may have at most 100 open uploads
        upload = owner.create(Content(16 * PART_SIZE, next(_SEEDS)), "parts.bin")
        hashes = {str(number): f"{number:064x}" for number in range(1, 17)}
        return lambda: owner.call("POST", f"/uploads/{upload['id']}/parts", {"parts": hashes})

    def _complete(self, client: Client) -> Callable[[], object]:
        content = Content(1024, next(_SEEDS))
        upload = client.create(content, "small.bin", parts=content.hashes())
        client.send_parts(content, upload)
        return lambda: client.call("POST", f"/uploads/{upload['id']}/complete")

    def _trash(self, client: Client) -> Callable[[], object]:
        file = client.upload(Content(1024, next(_SEEDS)), "trash.bin")

        def call() -> None:
            client.call("DELETE", f"/files/{file['id']}")
            client.call("POST", f"/files/{file['id']}/restore")

        return call


def _memory(stack: Stack) -> dict[str, float]:
    groups = {"edge": stack.edge, "API": stack.api, "MariaDB": stack.database_server, "Redis": stack.cache}
    return {name: sum(resident_bytes(pid) for pid in pids) / MIB for name, pids in groups.items()}


def _grown(before: dict[str, float], after: dict[str, float]) -> str:
    return ", ".join(f"{name} {after[name] - before[name]:+.1f} MiB" for name in before)


@contextmanager
def _half_sent(port: int, url: str, size: int) -> Iterator[None]:
    """A PUT of a part, with its body begun and not finished."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        head = f"PUT {urlsplit(url).path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {size}\r\n\r\n"
        connection.sendall(head.encode() + bytes(4096))
        yield


def sessions(stack: Stack, count: int) -> Iterator[str]:
    """Opens uploads, each with a body in transfer."""
    users = [Client(stack.port) for _ in range(_USERS)]  # hashing their passwords takes 19 MiB per thread
    before = _memory(stack)
    signed: list[JSON] = []
    hashes = {str(number): f"{number:064x}" for number in range(1, 17)}
    with cpu_used(stack.api) as api, cpu_used(stack.database_server) as database:
        began = time.monotonic()
        for number in range(count):
            user = users[number % _USERS]
            signed.append(user.create(Content(16 * PART_SIZE, next(_SEEDS)), "session.bin", parts=hashes))
        seconds = time.monotonic() - began
    yield (
        f"{count:,} uploads of 16 parts opened by {_USERS} users, one after another: {seconds:.1f} s, API "
        f"{1e3 * api.seconds / count:.2f} ms and MariaDB {1e3 * database.seconds / count:.2f} ms of CPU each; "
        f"{_grown(before, _memory(stack))}"
    )
    before = _memory(stack)
    with ExitStack() as bodies:
        for upload in signed:
            bodies.enter_context(_half_sent(stack.port, upload["parts"]["1"]["url"], PART_SIZE))
        yield f"with a PUT half sent in each of them: {_grown(before, _memory(stack))}; {_latency(users[0])}"
    for number, upload in enumerate(signed):
        users[number % _USERS].call("DELETE", f"/uploads/{upload['id']}")


def _latency(client: Client) -> str:
    seconds = []
    for _ in range(50):
        began = time.monotonic()
        client.call("GET", "/users/me")
        seconds.append(time.monotonic() - began)
    return f"GET /users/me meanwhile {1e3 * statistics.median(seconds):.1f} ms (at most {1e3 * max(seconds):.1f})"


def idle(stack: Stack, count: int) -> Iterator[str]:
    """Connections that are kept open after one request."""
    client, before = Client(stack.port), _memory(stack)
    request = b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n"
    with ExitStack() as kept:
        for _ in range(count):
            connection = kept.enter_context(socket.create_connection(("127.0.0.1", stack.port)))
            connection.sendall(request)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        grown = _memory(stack)["edge"] - before["edge"]
        yield (
            f"{count:,} kept connections: edge {grown:+.1f} MiB, {1024 * grown / count:.2f} KiB each; "
            f"{_latency(client)}. nginx allows 8,192 per worker."
        )


def many_parts(stack: Stack) -> Iterator[str]:
    """All calls of one upload of 10,000 parts on Ceph, without its 80 GB."""
    client, before = Client(stack.port), _memory(stack)
    upload = client.create(Content(_PARTS * PART_SIZE, next(_SEEDS)), "many.bin")
    path = f"/uploads/{upload['id']}"
    with cpu_used(stack.api) as api, cpu_used(stack.database_server) as database:
        began = time.monotonic()
        for first in range(1, _PARTS + 1, 1000):
            client.call("POST", f"{path}/parts", {"parts": {str(n): f"{n:064x}" for n in range(first, first + 1000)}})
        seconds = time.monotonic() - began
    yield (
        f"{upload['part_count']:,} parts signed in {-(-_PARTS // 1000)} calls: {seconds:.2f} s, "
        f"API {api.seconds:.2f} s and MariaDB {database.seconds:.2f} s of CPU; {_grown(before, _memory(stack))}"
    )
    for what, method, at in (("its state", "GET", path), ("its abort", "DELETE", path)):
        with cpu_used(stack.api) as api:
            began = time.monotonic()
            client.call(method, at)
            seconds = time.monotonic() - began
        yield f"{what}: {1e3 * seconds:.0f} ms, API {1e3 * api.seconds:.0f} ms of CPU"


def _cell(route: Route | None) -> str:
    return "" if route is None else f"{route.per_second:,.0f}, {route.api:.2f} + {route.database:.2f}"


def _table(found: Sequence[Route]) -> str:
    workers = sorted({route.workers for route in found})
    head = ["call", *(f"{n} worker{'s' * (n > 1)}: calls/s, API + DB CPU ms" for n in workers)]
    lines = [head, ["---"] * len(head)]
    for name in dict.fromkeys(route.name for route in found):
        own = {route.workers: route for route in found if route.name == name}
        cells = [_cell(own.get(n)) for n in workers]
        lines.append([f"`{name}`", *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(words: Sequence[str]) -> int:
    """Measures; with --write, replaces this part of the page."""
    parser = argparse.ArgumentParser(prog="loadtest/capacity", description="How much one machine carries.")
    parser.add_argument("--quick", action="store_true", help="short samples, fewer uploads")
    parser.add_argument("--write", action="store_true", help="write loadtest/results")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="a disk with room")  # noqa: S108
    arguments = parser.parse_args(words)
    seconds, share = (1, 10) if arguments.quick else (3, 1)
    found: list[Route] = []
    notes: list[str] = []
    failures: list[str] = []
    with scratch("capacity", arguments.folder) as folder:

        def below(name: str) -> Path:
            folder.joinpath(name).mkdir(mode=0o755)
            return folder / name

        for workers in (1, 2):
            print(f"capacity: {workers} workers", file=sys.stderr)
            settings = {"SLUICE_API_WORKERS": str(workers)}
            with kept(f"{workers} workers", failures), Stack(below(f"routes{workers}"), settings=settings) as stack:
                with kept(f"the other routes with {workers} workers", failures):
                    Routes(stack, workers, seconds, found).run()
                if workers == 2:
                    many_files()
                    with kept("kept connections", failures):
                        notes.extend(idle(stack, _IDLE // share))
                    with kept("open uploads", failures):
                        notes.extend(sessions(stack, _UPLOADS // share))
        os.environ.setdefault("OSD_GB", "8")
        with kept("10,000 parts", failures), Stack(below("parts"), "--storage", "ceph") as stack:
            notes.extend(many_parts(stack))
    block = "\n".join([_table(found), "", *(f"- {note}" for note in [*notes, *failures])])
    print(block)
    if arguments.write and found:
        write_block(_PAGE, "capacity", block)
        content = {"routes": [asdict(route) for route in found], "notes": notes, "left_out": failures}
        _PAGE.with_name("capacity.json").write_text(json.dumps(content, indent=1) + "\n")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
