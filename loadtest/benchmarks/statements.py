"""The number of statements each call sends to the database, as counted by MariaDB.

`Questions` counts every client statement, BEGIN and COMMIT included. Meanwhile the edge's feed and the worker send
about one statement per second, so each call is made several times and the median is taken.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Sequence

from loadtest.benchmarks.bench import Bench, Benchmark
from loadtest.benchmarks.client import JSON, PASSWORD, Client, Sender
from loadtest.benchmarks.content import PART_SIZE, Content
from loadtest.benchmarks.measure import CallRow

_TIMES = 7
_KINDS = ("begin", "commit", "rollback", "select", "insert", "insert_select", "replace", "update", "update_multi",
          "delete", "delete_multi", "set_option")  # fmt: skip


class _Counter:
    """Counts the statements between two reads of the counters."""

    def __init__(self, bench: Bench) -> None:
        self._connection = bench.stack.database()
        self.rows: list[CallRow] = []

    def _look(self) -> dict[str, int]:
        with self._connection.cursor() as cursor:
            cursor.execute("SHOW GLOBAL STATUS WHERE Variable_name = 'Questions' OR Variable_name LIKE 'Com\\_%'")
            return {name: int(value) for name, value in cursor.fetchall()}

    def measure(self, name: str, call: str, limit: int | None, make: Callable[[], Callable[[], object]]) -> None:
        """Counts a call's statements; `make` prepares a new call each time, uncounted."""
        counts: list[tuple[int, dict[str, int]]] = []
        for _ in range(_TIMES):
            run = make()
            before = self._look()
            run()
            after = self._look()
            kinds = {kind: after[f"Com_{kind}"] - before[f"Com_{kind}"] for kind in _KINDS}
            # reading the counters is one statement itself
            counts.append((after["Questions"] - before["Questions"] - 1, {k: n for k, n in kinds.items() if n}))
        median = statistics.median_low(count for count, _ in counts)
        kinds = next(kinds for count, kinds in counts if count == median)
        self.rows.append(CallRow(name, call, median, kinds, limit))


def _accounts(counter: _Counter, bench: Bench, client: Client) -> None:
    session: JSON = client.sign_in()

    def refresh() -> None:
        session.update(client.call("POST", "/sessions/refresh", {"refresh_token": session["refresh_token"]}))

    body = {"username": client.username, "password": PASSWORD}
    counter.measure("sign-in", "`POST /sessions`", None, lambda: lambda: client.call("POST", "/sessions", body))
    counter.measure("refresh", "`POST /sessions/refresh`", None, lambda: refresh)
    counter.measure("me", "`GET /users/me`", None, lambda: lambda: client.call("GET", "/users/me"))


def _uploads(counter: _Counter, bench: Bench, client: Client) -> None:
    size = 3 * PART_SIZE

    def created(content: Content, **members: object) -> Callable[[], JSON]:
        return lambda: client.create(content, "statements.bin", **members)

    def new(**members: object) -> Callable[[], JSON]:
        content = bench.content(size)
        return created(content, digest=content.digest(), **members)

    def new_with_parts() -> Callable[[], JSON]:
        content = bench.content(size)
        return created(content, resume_key=content.digest(), parts=content.hashes())

    def parts() -> Callable[[], JSON]:
        upload = created(bench.content(1000 * PART_SIZE), resume_key=bench.content(1).digest())()
        hashes = {str(number): f"{number:064x}" for number in range(1, 1001)}
        path = f"/uploads/{upload['id']}/parts"
        return lambda: client.call("POST", path, {"parts": hashes})

    def sent(count: int) -> JSON:
        content = bench.content(count * PART_SIZE)
        upload = client.create(content, "statements.bin", parts=content.hashes())
        client.send_parts(content, upload)
        return upload

    def complete(count: int) -> Callable[[], JSON]:
        path = f"/uploads/{sent(count)['id']}/complete"
        return lambda: client.call("POST", path)

    def progress() -> Callable[[], JSON]:
        path = f"/uploads/{sent(1)['id']}"
        return lambda: client.call("GET", path)

    def abort() -> Callable[[], JSON]:
        path = f"/uploads/{sent(1)['id']}"
        return lambda: client.call("DELETE", path)

    counter.measure("create", "`POST /uploads`, new, with a challenge", 6, new)
    counter.measure("create-parts", "`POST /uploads` with its parts", None, new_with_parts)
    counter.measure("parts", "`POST /uploads/{id}/parts`, 1,000 parts", 4, parts)
    counter.measure("progress", "`GET /uploads/{id}`", None, progress)
    counter.measure("complete", "`POST /uploads/{id}/complete`, 3 parts", 10, lambda: complete(3))
    counter.measure("abort", "`DELETE /uploads/{id}`", None, abort)
    counter.measure("uploads", "`GET /uploads`", None, lambda: lambda: client.call("GET", "/uploads"))


def _instant(counter: _Counter, bench: Bench, client: Client) -> None:
    content = bench.content(3 * PART_SIZE)
    client.upload(content, "known.bin")
    hashes = content.hashes()

    def owned() -> Callable[[], JSON]:
        return lambda: client.create(content, bench.content(1).digest(), digest=content.digest())

    def proof() -> Callable[[], JSON]:
        prover = bench.client()  # a user for whom the content is new
        upload = prover.create(content, "mine.bin", digest=content.digest())
        challenge = upload["challenge"]
        read = b"".join(content.read(offset, length) for offset, length in challenge["ranges"])
        proved = hashlib.sha256(bytes.fromhex(challenge["nonce"]) + read).hexdigest()
        path, body = f"/uploads/{upload['id']}/proof", {"proof": proved, "parts": list(hashes.values())}

        def prove() -> JSON:
            answer = prover.call("POST", path, body)
            assert answer["state"] == "done"
            return answer

        return prove

    counter.measure("create-owned", "`POST /uploads` of content that the user has: `done`", None, owned)
    counter.measure("proof", "`POST /uploads/{id}/proof`: `done`", None, proof)


def _files(counter: _Counter, bench: Bench, client: Client) -> None:
    files = [client.upload(bench.content(100), f"file {number}.txt") for number in range(50)]
    path, link = f"/files/{files[0]['id']}", client.link(files[0])

    def download() -> None:
        with Sender(bench.stack.port) as connection:
            connection.get(link)

    def trashed() -> Callable[[], JSON]:
        client.call("POST", f"{path}/restore")
        return lambda: client.call("DELETE", path)

    def restored() -> Callable[[], JSON]:
        client.call("DELETE", path)
        return lambda: client.call("POST", f"{path}/restore")

    def renamed() -> Callable[[], JSON]:
        name = bench.content(1).digest()
        return lambda: client.call("PATCH", path, {"name": name})

    download()
    counter.measure("list", "`GET /files`, 50", None, lambda: lambda: client.call("GET", "/files"))
    counter.measure("file", "`GET /files/{id}`", None, lambda: lambda: client.call("GET", path))
    counter.measure("link", "`POST /files/{id}/links`", None, lambda: lambda: client.call("POST", f"{path}/links", {}))
    counter.measure("download", "`GET /d/{token}/{name}`, warm", None, lambda: download)
    content_path = f"{path}/content"
    counter.measure("content", "`GET /files/{id}/content`", None, lambda: lambda: client.request("GET", content_path))
    counter.measure("rename", "`PATCH /files/{id}`", None, renamed)
    counter.measure("restore", "`POST /files/{id}/restore`", None, restored)
    counter.measure("trash", "`DELETE /files/{id}`", None, trashed)


def run(bench: Bench) -> Sequence[CallRow]:
    """A separate user for each group of calls."""
    counter = _Counter(bench)
    for group in (_accounts, _uploads, _instant, _files):
        group(counter, bench, bench.client())
    return counter.rows


BENCHMARK = Benchmark("statements", "database statements of each call", run)
