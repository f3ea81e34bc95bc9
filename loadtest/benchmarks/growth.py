"""The cost of calls in databases of 10,000 to 1,000,000 files: ``loadtest/growth``."""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from loadtest.benchmarks import plot
from loadtest.benchmarks.client import JSON, PASSWORD, Client
from loadtest.benchmarks.content import Content
from loadtest.benchmarks.growth_rows import Rows, digest_of, size_of
from loadtest.benchmarks.measure import cpu_seconds, kept
from loadtest.benchmarks.stack import ROOT, Stack, scratch

_SIZES = (10_000, 100_000, 1_000_000)
_TIMES = 150
_PAGE = ROOT / "loadtest" / "results" / "results.md"
_TOUCHED = ("Handler_read_key", "Handler_read_next", "Handler_read_prev", "Handler_read_first", "Handler_read_last",
            "Handler_read_rnd", "Handler_read_rnd_next")  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """The cost of one call at one size.

    Attributes:
        ms: median time of a call through nginx.
        api, database: CPU in ms per call.
        rows: rows read from MariaDB's storage engine, the median.
    """

    name: str
    files: int
    ms: float
    api: float
    database: float
    rows: int


class Growth:
    """One stack whose database grows."""

    def __init__(self, stack: Stack, times: int, costs: list[Cost]) -> None:
        self._stack = stack
        self._times = times
        self._client = Client(stack.port)
        self._connection = stack.database()
        self.rows = Rows(stack.database(), self._client.call("GET", "/users/me")["id"])
        self._costs = costs

    def _touched(self) -> int:
        with self._connection.cursor() as cursor:
            cursor.execute("SHOW GLOBAL STATUS LIKE 'Handler_read%'")
            found = dict(cursor.fetchall())
        return sum(int(found[name]) for name in _TOUCHED)

    def measure(self, name: str, call: Callable[[], object], times: int = 0) -> None:
        """Repeats the call, and records the cost of one."""
        call()
        seconds: list[float] = []
        rows: list[int] = []
        for _ in range(7):  # the median ignores queries of the edge's feed and the worker meanwhile
            before = self._touched()
            call()
            rows.append(self._touched() - before)
        own = self._own_touch()
        api, database = cpu_seconds(self._stack.api), cpu_seconds(self._stack.database_server)
        times = times or self._times
        for _ in range(times):
            began = time.monotonic()
            call()
            seconds.append(time.monotonic() - began)
        api, database = cpu_seconds(self._stack.api) - api, cpu_seconds(self._stack.database_server) - database
        median = statistics.median(seconds)
        self._costs.append(
            Cost(name, self.rows.count, 1e3 * median, 1e3 * api / times, 1e3 * database / times,
                 max(0, round(statistics.median(rows)) - own))
        )  # fmt: skip
        print(f"  {name:34} {1e3 * median:8.2f} ms, {self._costs[-1].rows} rows", file=sys.stderr)

    def _own_touch(self) -> int:
        """Rows that reading the counters itself reads."""
        before = self._touched()
        return self._touched() - before

    def calls(self) -> None:
        """Every route that reads or writes a growing table."""
        client, count = self._client, self.rows.count
        client.sign_in()
        middle = count // 2 | 1  # odd numbers belong to this user
        page = client.call("GET", f"/files?limit=1&digest={digest_of(middle)}")
        file: JSON = page["items"][0]
        path = f"/files/{file['id']}"
        deep = self._deep_cursor()

        def create(digest: str | None, size: int) -> Callable[[], None]:
            def call() -> None:
                body: JSON = {"name": "grown.bin", "size": size} | ({"digest": digest} if digest else {})
                upload = client.call("POST", "/uploads", body)
                if upload["state"] != "done":
                    client.call("DELETE", f"/uploads/{upload['id']}")

            return call

        def trash() -> None:
            client.call("DELETE", path)
            client.call("POST", f"{path}/restore")

        session = {"username": client.username, "password": PASSWORD}
        others = (count // 20) * 10  # a file of ten parts that belongs to another user
        everything: dict[str, Callable[[], object]] = {
            "GET /files, newest 50": lambda: client.call("GET", "/files"),
            "GET /files, by name": lambda: client.call("GET", "/files?order=name"),
            "GET /files, a page from the middle": lambda: client.call("GET", f"/files?cursor={deep}"),
            "GET /files?digest": lambda: client.call("GET", f"/files?digest={digest_of(middle)}"),
            "GET /files/{id}": lambda: client.call("GET", path),
            "POST /files/{id}/links": lambda: client.call("POST", f"{path}/links", {}),
            "PATCH /files/{id}": lambda: client.call("PATCH", path, {"name": file["name"]}),
            "DELETE /files/{id} + restore": trash,
            "create + abort, unknown digest": create("ab" * 32, 20_000_000),
            "create + abort, another's digest": create(digest_of(others), size_of(others)),
            "GET /uploads": lambda: client.call("GET", "/uploads"),
            "GET /users/me": lambda: client.call("GET", "/users/me"),
        }
        for name, call in everything.items():
            self.measure(name, call)
        self.measure("POST /sessions", lambda: client.call("POST", "/sessions", session), 20)
        self.measure("upload of 1 KiB, complete", self._upload, 20)
        self.measure("GET /files?q, a call that finds none", lambda: client.call("GET", "/files?q=nowhere"), 10)
        self.statement("dedup look-up alone", digest_of(others), size_of(others))

    def _upload(self) -> None:
        self._client.upload(Content(1024, time.monotonic_ns()), "grown.bin")

    def _deep_cursor(self) -> str:
        cursor = ""
        for _ in range(10):
            found = self._client.call("GET", f"/files?limit=1000{'&cursor=' + quote(cursor) if cursor else ''}")
            if not found["next_cursor"]:
                break
            cursor = found["next_cursor"]
        # a cursor depends on its order, not on the page's length
        return quote(cursor)

    def statement(self, name: str, digest: str, size: int) -> None:
        """The lookup of instant uploads and merges, without the rest of the API."""
        sql = (
            "SELECT b.id FROM blob_digest d JOIN `blob` b ON b.id = d.blob_id AND b.state = 'verified' AND b.size = %s "
            "WHERE d.digest = UNHEX(%s) AND d.scope = REPEAT(CHAR(0), 16)"
        )

        def call() -> None:
            with self._connection.cursor() as cursor:
                assert cursor.execute(sql, (size, digest)) == 1

        self.measure(name, call)

    def sweep(self) -> tuple[float, str]:
        """A whole sweep by the operator's command with --dry-run: seconds, and what it would delete."""
        environ = dict(
            item.split("=", 1)
            for item in Path(f"/proc/{self._stack.api[0]}/environ").read_text().split("\0")
            if "=" in item
        )
        began = time.monotonic()
        result = subprocess.run(
            [ROOT / ".venv/bin/python", "-B", "-m", "api", "sweep", "--dry-run"],
            env=environ, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
        lines = result.stdout.splitlines()
        said = [line for line in lines if line.startswith("would be ")] or result.stderr.strip().splitlines()[-1:]
        return time.monotonic() - began, f"exit {result.returncode}: {'; '.join(said)[:300]}"


def _cell(cost: Cost | None) -> str:
    return f"{cost.ms:.2f}, {cost.api:.2f} + {cost.database:.2f}, {cost.rows}" if cost else ""


def _table(costs: Sequence[Cost], sizes: Sequence[int]) -> str:
    head = ["call", *(f"{size:,} files: ms, API + DB CPU ms, rows" for size in sizes)]
    lines = [head, ["---"] * len(head)]
    for name in dict.fromkeys(cost.name for cost in costs):
        cells = {cost.files: cost for cost in costs if cost.name == name}
        lines.append([f"`{name}`" if name[0].isupper() else name] + [_cell(cells.get(size)) for size in sizes])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _size_table(sizes: dict[int, dict[str, tuple[float, float]]]) -> str:
    head = ["table", *(f"{size:,} files: data + indexes, MiB" for size in sizes)]
    lines = [head, ["---"] * len(head)]
    for table in next(iter(sizes.values()), ()):
        cells = [found[table] for found in sizes.values()]
        lines.append([table, *(f"{data:.1f} + {index:.1f}" for data, index in cells)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_block(page: Path, name: str, block: str) -> None:
    """Replaces the text between the page's markers with this name."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = re.compile(rf"({begin}\n).*?({end})", re.S)
    text, count = pattern.subn(lambda found: f"{found[1]}{block}\n{found[2]}", page.read_text())
    if count != 1:
        raise SystemExit(f"{page.name} has no place {begin} … {end}")
    page.write_text(text)


def main(words: Sequence[str]) -> int:
    """Grows the database, measures, and with --write replaces this part of the page."""
    parser = argparse.ArgumentParser(prog="loadtest/growth", description="What calls cost as the database grows.")
    parser.add_argument("--sizes", type=lambda text: tuple(map(int, text.split(","))), default=_SIZES, help="files")
    parser.add_argument("--quick", action="store_true", help="up to 100,000 files, fewer calls")
    parser.add_argument("--write", action="store_true", help="write loadtest/results")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="a disk with room")  # noqa: S108
    arguments = parser.parse_args(words)
    wanted = arguments.sizes[:2] if arguments.quick else arguments.sizes
    costs: list[Cost] = []
    sizes: dict[int, dict[str, tuple[float, float]]] = {}
    sweep: tuple[int, float, str] | None = None
    failures: list[str] = []
    with scratch("growth", arguments.folder) as folder, kept("the rest", failures), Stack(folder) as stack:
        growth = Growth(stack, 30 if arguments.quick else _TIMES, costs)
        for count in wanted:
            print(f"growth: {count:,} files, loaded in {growth.rows.grow_to(count):.0f} s", file=sys.stderr)
            with kept(f"the rest of {count:,} files", failures):
                growth.calls()
            sizes[count] = growth.rows.sizes()
        sweep = (growth.rows.count, *growth.sweep())
    block = f"{_table(costs, wanted)}\n\n{_size_table(sizes)}"
    if sweep:
        block += "\n\n`python -m api sweep --dry-run` over {:,} files: {:.1f} s, {}.".format(*sweep)
    block += "".join(f"\n\n{line}" for line in failures)
    print(block)
    if arguments.write and sizes:
        write_block(_PAGE, "growth", block)
        content = {"costs": [asdict(cost) for cost in costs], "sizes_mib": sizes, "sweep": sweep, "left_out": failures}
        _PAGE.with_name("growth.json").write_text(json.dumps(content, indent=1) + "\n")
        shown = {cost.name: [c.ms for c in costs if c.name == cost.name] for cost in costs}
        _PAGE.with_name("growth.svg").write_text(plot.lines("Median time of a call", wanted, shown, "ms"))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
