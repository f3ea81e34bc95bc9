"""The cost of API calls through nginx: 1,000 part URLs, a list of 50 files, a sign-in."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence

from api.app import HASHER
from loadtest.benchmarks.bench import Bench, Benchmark, cpu_used
from loadtest.benchmarks.client import PASSWORD, Client
from loadtest.benchmarks.content import PART_SIZE
from loadtest.benchmarks.measure import Row, Sample, Spread
from loadtest.benchmarks.wrk import Load

_PARTS = 1000
_FILES = 50


def _row(name: str, what: str, unit: str, samples: Sequence[Sample], notes: str = "") -> Row:
    return Row(
        name=name,
        what=what,
        unit=unit,
        ours=Spread.of([sample.speed for sample in samples]),
        cpu_unit="ms API",
        cpu_ours=1e3 * statistics.mean(sample.cpu for sample in samples),  # a call takes about one clock tick
        notes=notes,
    )


def _sign_parts(bench: Bench, client: Client) -> Row:
    """Each call is the first for its upload, so it writes its 1,000 hashes."""
    samples: list[Sample] = []
    seconds: list[float] = []
    for _ in range(2 * bench.rounds + 1):
        content = bench.content(_PARTS * PART_SIZE)
        hashes = {str(number): f"{number:064x}" for number in range(1, _PARTS + 1)}
        upload = client.create(content, "huge.bin", resume_key=str(len(samples)))
        with cpu_used(bench.stack.api) as used:
            began = time.monotonic()
            client.call("POST", f"/uploads/{upload['id']}/parts", {"parts": hashes})
            seconds.append(time.monotonic() - began)
        samples.append(Sample(_PARTS / seconds[-1], used.seconds))
        client.call("DELETE", f"/uploads/{upload['id']}")
    notes = f"one call takes {1e3 * statistics.median(seconds):.0f} ms"
    return _row("parts-1000", "/parts of 1,000, first time, one at a time; CPU per call", "URLs/s", samples[1:], notes)


def _loaded(bench: Bench, load: Load) -> list[Sample]:
    samples = [load.put(bench.seconds, bench.stack.api) for _ in range(bench.rounds + 1)]
    return samples[1:]


def _list_files(bench: Bench, client: Client) -> Row:
    for number in range(_FILES):
        client.upload(bench.content(100), f"file {number}.txt")
    headers = {"Authorization": f"Bearer {client.token}"}
    load = Load(bench.stack.port, [f"/api/v1/files?limit={_FILES}"], headers=headers)
    return _row("list-50", "GET /files of 50; CPU per call", "requests/s", _loaded(bench, load))


def _sign_in(bench: Bench, client: Client) -> Row:
    body = json.dumps({"username": client.username, "password": PASSWORD})
    headers = {"Content-Type": "application/json"}
    load = Load(bench.stack.port, ["/api/v1/sessions"], 2, "POST", headers, body)  # with more connections, some get 503
    samples = _loaded(bench, load)
    known = HASHER.hash(PASSWORD)
    began = time.process_time()
    for _ in range(5):
        HASHER.verify(known, PASSWORD)
    alone = (time.process_time() - began) / 5
    notes = f"argon2id alone: {1e3 * alone:.0f} ms CPU"
    return _row("sign-in", "POST /sessions, 2 in parallel; CPU per call", "requests/s", samples, notes)


def run(bench: Bench) -> Sequence[Row]:
    """Uses a separate user for each call."""
    return [measure(bench, bench.client()) for measure in (_sign_parts, _list_files, _sign_in)]


BENCHMARK = Benchmark("calls", "cost of /parts of 1,000, GET /files of 50, sign-in", run)
