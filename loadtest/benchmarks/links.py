"""Links: the cost of a link's first request, and of an account that trashes half a million linked files.

Half a million calls take half an hour, so one statement trashes most of the files, and `_CALLS` of them are trashed by
calls. The edge sees one row of the feed in either case.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from urllib.request import urlopen

from loadtest.benchmarks.bench import Bench, Benchmark, cpu_used
from loadtest.benchmarks.client import Client
from loadtest.benchmarks.measure import Row, Spread, memory_growth
from loadtest.benchmarks.s3 import in_parallel

_COLD, _TRASHED, _CALLS, _AT_ONCE = 1000, 500_000, 5000, 8
_MIB = 1024**2
_NAMES = {"20 characters": "a" * 16 + ".txt", "50 Chinese ones": "文" * 46 + ".pdf", "255 bytes": '"' * 251 + ".pdf"}


def run(bench: Bench) -> Iterator[Row]:
    """Each row uses files of one account with the same content."""
    yield _lengths(bench)
    yield _cold(bench)
    yield from _trashed(bench)


def _lengths(bench: Bench) -> Row:
    client = bench.client()
    lengths = {name: _link(client, _file(bench, client, text)) for name, text in _NAMES.items()}
    sizes = [len(f"https://files.example.org{path}") for path in lengths.values()]
    return Row(
        name="link-length",
        what="characters of a link at https://files.example.org to a file with a name of 20",
        unit="characters",
        ours=Spread(sizes[0], sizes[0], sizes[0]),
        limit="≤ 260, any name < 998",
        holds=sizes[0] <= 260 and max(sizes) < 998,
        notes=", ".join(f"{name}: {size}" for name, size in zip(lengths, sizes, strict=True)),
    )


def _file(bench: Bench, client: Client, name: str) -> str:
    return str(client.upload(bench.content(1024), name)["id"])


def _link(client: Client, file: str) -> str:
    return client.link({"id": file})


def _cold(bench: Bench) -> Row:
    client = bench.client()
    files = _copies(bench, _file(bench, client, "cold"), _COLD)
    paths = [_link(client, file) for file in files]
    before = _asked(bench)
    with cpu_used(bench.stack.api) as used:
        began = time.monotonic()
        _ask(bench.stack.port, paths, {200})
        seconds = time.monotonic() - began
    asked = _asked(bench) - before
    cpu = 1e3 * used.seconds / _COLD
    speed = _COLD / seconds
    return Row(
        name="link-cold",
        what="the first request by each of 1,000 links to as many files, one after another; CPU per request",
        unit="requests/s",
        ours=Spread(speed, speed, speed),
        cpu_unit="ms API",
        cpu_ours=cpu,
        limit="one internal call, API ≤ 1.5 ms",
        holds=asked == _COLD and cpu <= 1.5,
        notes=f"{asked} internal calls for {_COLD} links",
    )


def _copies(bench: Bench, file: str, count: int) -> list[str]:
    """Creates more files with the same owner and content. Returns their ids."""
    with bench.stack.database() as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO file (id, user_id, folder_id, name, blob_id, content_type, created_at, updated_at) "
            "SELECT UNHEX(MD5(CONCAT(%s, seq))), user_id, folder_id, CONCAT(name, seq), blob_id, content_type, "
            "created_at, updated_at FROM file JOIN seq_1_to_500000 WHERE id = UNHEX(%s) AND seq <= %s",
            [file, file, count],
        )
        connection.commit()
        cursor.execute("SELECT LOWER(MD5(CONCAT(%s, seq))) FROM seq_1_to_500000 WHERE seq <= %s", [file, count])
        return [row[0] for row in cursor.fetchall()]


def _asked(bench: Bench) -> int:
    """Number of targets that edges requested."""
    found = re.findall(r"^sluice_api_calls_total\{.*targets/.*\} ([\d.]+)$", _metrics(bench), re.M)
    return sum(int(float(count)) for count in found)


def _metrics(bench: Bench) -> str:
    with urlopen(f"http://127.0.0.1:{bench.stack.port}/metrics") as answer:
        text: str = answer.read().decode()
        return text


def _ask(port: int, paths: list[str], statuses: set[int]) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    for path in paths:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        if answer.status not in statuses:
            raise SystemExit(f"a link was answered {answer.status}")
    connection.close()


def _trashed(bench: Bench) -> Iterator[Row]:
    owner, other = bench.client(), bench.client()
    first, kept = _file(bench, owner, "many"), _link(other, _file(bench, other, "kept"))
    files = _copies(bench, first, _TRASHED)
    links = [_link(owner, file) for file in files[:200]]
    _ask(bench.stack.port, [*links, kept], {200})

    def call_each(method: str) -> None:
        def work(thread: int) -> None:
            client = owner.another()
            for file in files[thread:_CALLS:_AT_ONCE]:
                client.call(method, f"/files/{file}")

        in_parallel(work, _AT_ONCE)

    # with this many calls Lua's heaps reach their full size, for any kind of call
    for _ in range(2):
        with memory_growth(bench.stack.edge) as looking:
            call_each("GET")
            _ask(bench.stack.port, links, {200})
    with memory_growth(bench.stack.edge) as growth:
        began = time.monotonic()
        call_each("DELETE")
        rate = _CALLS / (time.monotonic() - began)
        with bench.stack.database() as connection, connection.cursor() as cursor:
            cursor.execute(
                "UPDATE file SET trashed_at = NOW(6), link_generation = link_generation + 1 "
                "WHERE user_id = (SELECT user_id FROM (SELECT user_id FROM file WHERE id = UNHEX(%s)) f) "
                "AND trashed_at IS NULL",
                [first],
            )
            cursor.execute("UPDATE revocation SET noted_at = NOW(6) WHERE kind = 'user'")
            connection.commit()
            cursor.execute("SELECT COUNT(*) FROM revocation")
            ((rows,),) = cursor.fetchall()
        time.sleep(3)  # until the feed was read
        _ask(bench.stack.port, links, {410})
        _ask(bench.stack.port, [kept], {200})
    grown, read = growth.total / _MIB, looking.total / _MIB
    ready = _restart(bench)
    _ask(bench.stack.port, links[:20], {410})
    _ask(bench.stack.port, [kept], {200})
    yield Row(
        name="links-trashed",
        what=f"growth of the edge's memory when an account trashes {_TRASHED:,} linked files; by as many reads",
        unit="MiB",
        ours=Spread(grown, grown, grown),
        peer=Spread(read, read, read),
        limit="less than 1 more, no request refused, an edge ready in ≤ 5 s",
        holds=grown - read < 1 and ready <= 5,
        notes=f"{rows} rows in the feed; an edge that is started is ready after {ready:.1f} s",
    )
    yield Row(
        name="trash",
        what=f"DELETE /files/{{id}} of one account, {_AT_ONCE} in parallel",
        unit="calls/s",
        ours=Spread(rate, rate, rate),
    )


def _restart(bench: Bench) -> float:
    """Seconds until a killed edge is ready again."""
    pids = bench.stack.edge
    began = time.monotonic()
    os.kill(bench.stack.edge_master, signal.SIGTERM)
    while time.monotonic() - began < 60:
        try:
            if bench.stack.edge != pids:
                with urlopen(f"http://127.0.0.1:{bench.stack.port}/readyz", timeout=2) as answer:
                    if answer.status == 200:
                        return time.monotonic() - began
        except (OSError, ValueError, IndexError):
            pass
        time.sleep(0.02)  # a poll: the edge sends no event
    raise SystemExit("the edge is not ready again")


BENCHMARK = Benchmark("links", "a link's length, its first request, half a million that end", run)
