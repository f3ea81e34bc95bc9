"""An upload's calls on Ceph beside @uppy/companion's: part URLs per second; create, 16 parts, complete."""

from __future__ import annotations

import http.client
import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from loadtest.benchmarks import program
from loadtest.benchmarks.bench import Bench, Benchmark, cpu_used
from loadtest.benchmarks.client import JSON
from loadtest.benchmarks.content import PART_SIZE
from loadtest.benchmarks.measure import Pairs, Row, Sample
from loadtest.benchmarks.s3 import BUCKET, S3, Signed, in_parallel, put_all
from loadtest.benchmarks.stack import free_port

_AT_ONCE = 4
_PARTS = 1000
_CALLS = 12
"""Calls of 1,000 parts per sample; a user may have 100,000 part rows open."""
_UPLOADS = 16
"""Whole uploads per sample, of 16 parts each, all in parallel."""
_SIZE = 15 * PART_SIZE + 65536
_SIGN_RATIO = 10
_CYCLE_RATIO = 2
_CYCLE_CPU_MS = 12


class Companion:
    """@uppy/companion's routes, on kept connections, one per thread."""

    def __init__(self, port: int, pids: Sequence[int]) -> None:
        self.port = port
        self.pids = pids
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def another(self) -> Companion:
        return Companion(self.port, self.pids)

    def call(self, method: str, path: str, body: JSON | None = None) -> Any:
        text = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json", "Origin": "http://127.0.0.1", "Cookie": "companion=1"}
        try:
            self._connection.request(method, f"/s3/{path}", text, headers)
            response = self._connection.getresponse()
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
            self._connection.close()  # node closes connections that were idle for 5 s
            self._connection.request(method, f"/s3/{path}", text, headers)
            response = self._connection.getresponse()
        answer = response.read()
        if response.status >= 300:
            raise SystemExit(f"companion {method} {path[:40]}: {response.status} {answer[:200]!r}")
        return json.loads(answer or b"{}")

    def create(self) -> tuple[str, str]:
        """(key, upload id)."""
        body = {"filename": f"{secrets.token_hex(8)}.bin", "type": "application/octet-stream", "metadata": {}}
        answer = self.call("POST", "multipart", body)
        return answer["key"], answer["uploadId"]

    def sign(self, key: str, upload: str, numbers: range) -> dict[str, str]:
        listed = ",".join(map(str, numbers))
        found: dict[str, str] = self.call(
            "GET", f"multipart/{quote(upload, safe='')}/batch?key={quote(key, safe='')}&partNumbers={listed}"
        )["presignedUrls"]
        return found

    def complete(self, key: str, upload: str, etags: Sequence[str]) -> None:
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        self.call("POST", f"multipart/{quote(upload, safe='')}/complete?key={quote(key, safe='')}", {"parts": parts})


@contextmanager
def companion(bench: Bench, s3: S3) -> Iterator[Companion]:
    """A standalone Companion on the same radosgw. Raises LeftOut if it cannot run here."""
    folder = program.need("companion") / "companion"
    port = free_port()
    environment = {
        "NODE_ENV": "production",
        "COMPANION_PORT": str(port),
        "COMPANION_DOMAIN": f"127.0.0.1:{port}",
        "COMPANION_PROTOCOL": "http",
        "COMPANION_DATADIR": str(bench.folder),
        "COMPANION_SECRET": secrets.token_hex(16),
        "COMPANION_PREAUTH_SECRET": secrets.token_hex(16),
        "COMPANION_CLIENT_ORIGINS": "true",  # "*" is refused
        "COMPANION_UPLOAD_URLS": s3.endpoint,
        "COMPANION_AWS_KEY": s3.access_key,
        "COMPANION_AWS_SECRET": s3.secret_key,
        "COMPANION_AWS_BUCKET": BUCKET,
        "COMPANION_AWS_REGION": "us-east-1",
        "COMPANION_AWS_ENDPOINT": s3.endpoint,
        "COMPANION_AWS_FORCE_PATH_STYLE": "true",
    }
    script = folder / "node_modules" / "@uppy" / "companion" / "bin" / "companion"
    with program.serving([program.node(), script], port, bench.folder, environment) as server:
        yield Companion(port, server.pids)


def _shared(work: Callable[[int], None], count: int) -> Callable[[int], None]:
    """Runs `count` pieces of work, shared among the threads."""

    def share(first: int) -> None:
        for index in range(first, count, _AT_ONCE):
            work(index)

    return share


def _sign_ours(bench: Bench) -> Sample:
    """Each call is the first for its upload: it writes hashes and checks the owner."""
    client = bench.client()
    hashes = {str(number): f"{number:064x}" for number in range(1, _PARTS + 1)}
    uploads = [client.create(bench.content(_PARTS * PART_SIZE), "huge.bin")["id"] for _ in range(_CALLS)]
    clients = [client.another() for _ in range(_AT_ONCE)]

    def sign(index: int) -> None:
        status, _ = clients[index % _AT_ONCE].request("POST", f"/uploads/{uploads[index]}/parts", {"parts": hashes})
        assert status == 200, status

    with cpu_used(bench.stack.api) as used:
        began = time.monotonic()
        in_parallel(_shared(sign, _CALLS), _AT_ONCE)
        seconds = time.monotonic() - began
    for upload_id in uploads:
        client.call("DELETE", f"/uploads/{upload_id}")
    return Sample(_CALLS * _PARTS / seconds, used.seconds / _CALLS / _PARTS)


def _sign_companion(peer: Companion) -> Sample:
    """The same number of parts per call; fewer calls, because each takes longer."""
    calls = max(2, _CALLS // 4)
    key, upload = peer.create()
    peers = [peer.another() for _ in range(_AT_ONCE)]
    with cpu_used(peer.pids) as used:
        began = time.monotonic()
        in_parallel(
            _shared(lambda i: _count(peers[i % _AT_ONCE].sign(key, upload, range(1, _PARTS + 1))), calls), _AT_ONCE
        )
        seconds = time.monotonic() - began
    return Sample(calls * _PARTS / seconds, used.seconds / calls / _PARTS)


def _count(urls: dict[str, str]) -> None:
    assert len(urls) == _PARTS, len(urls)


def _cycle_ours(bench: Bench) -> Sample:
    """Measures the three calls only; the parts are sent to radosgw between them, unmeasured."""
    client = bench.client()
    clients = [client.another() for _ in range(_UPLOADS)]
    contents = [bench.content(_SIZE) for _ in range(_UPLOADS)]
    hashes = [content.hashes() for content in contents]
    made: list[JSON] = [{}] * _UPLOADS
    etags: list[list[str]] = [[]] * _UPLOADS

    def begin(index: int) -> None:
        own = clients[index]
        upload = own.create(contents[index], "cycle.bin")
        made[index] = own.call("POST", f"/uploads/{upload['id']}/parts", {"parts": hashes[index]}) | upload

    def end(index: int) -> None:
        body = {"etags": {str(number): etag for number, etag in enumerate(etags[index], 1)}}
        answer = clients[index].call("POST", f"/uploads/{made[index]['id']}/complete", body)
        assert answer["state"] == "done", answer["state"]
        made[index]["file"] = answer["file"]["id"]

    def send() -> None:
        for index, upload in enumerate(made):
            urls = [(part["url"], part["headers"]) for part in upload["parts"].values()]
            etags[index] = put_all(urls, contents[index], _AT_ONCE)

    sample = _timed(begin, send, end, bench.stack.api)
    for upload in made:
        client.call("DELETE", f"/files/{upload['file']}")
    return sample


def _cycle_companion(bench: Bench, s3: S3, peer: Companion) -> Sample:
    peers = [peer.another() for _ in range(_UPLOADS)]
    contents = [bench.content(_SIZE) for _ in range(_UPLOADS)]
    made: list[tuple[str, str, list[Signed]]] = [("", "", [])] * _UPLOADS
    etags: list[list[str]] = [[]] * _UPLOADS

    def begin(index: int) -> None:
        own = peers[index]
        key, upload = own.create()
        urls = own.sign(key, upload, range(1, contents[index].part_count + 1))
        made[index] = key, upload, [(urls[str(n)], {}) for n in range(1, contents[index].part_count + 1)]

    def send() -> None:
        for index, (_, _, urls) in enumerate(made):
            etags[index] = put_all(urls, contents[index], _AT_ONCE)

    def end(index: int) -> None:
        key, upload, _ = made[index]
        peers[index].complete(key, upload, etags[index])

    sample = _timed(begin, send, end, peer.pids)
    for key, _, _ in made:
        s3.delete(key)
    return sample


def _timed(
    begin: Callable[[int], None], send: Callable[[], None], end: Callable[[int], None], pids: Sequence[int]
) -> Sample:
    seconds, cpu = 0.0, 0.0
    for work in (begin, end):
        with cpu_used(pids) as used:
            began = time.monotonic()
            in_parallel(work, _UPLOADS)
            seconds += time.monotonic() - began
        cpu += used.seconds
        if work is begin:
            send()
    return Sample(_UPLOADS / seconds, cpu / _UPLOADS)


def run(bench: Bench) -> Sequence[Row]:
    """Companion has no accounts, hashes or state."""
    s3 = S3(bench.stack)
    with companion(bench, s3) as peer:
        sign = Pairs.take(bench.rounds, lambda: _sign_ours(bench), lambda: _sign_companion(peer))
        cycle = Pairs.take(bench.rounds, lambda: _cycle_ours(bench), lambda: _cycle_companion(bench, s3, peer))
    what = "part URLs in calls of 1,000, 4 in parallel, hashes kept; @uppy/companion batch"
    signed = sign.row("sign-parts", what, "URLs/s", "µs a URL", 1e6)
    what = f"create, 16 part URLs, complete on Ceph, {_UPLOADS} in parallel; @uppy/companion"
    cycled = cycle.row("upload-calls", what, "uploads/s", "ms API per upload", 1e3)
    assert cycled.cpu_ours is not None
    holds = cycle.ratio.median >= _CYCLE_RATIO and cycled.cpu_ours < _CYCLE_CPU_MS
    return [
        replace(signed, limit=f"≥ {_SIGN_RATIO}", holds=sign.ratio.median >= _SIGN_RATIO),
        replace(cycled, limit=f"≥ {_CYCLE_RATIO}, API < {_CYCLE_CPU_MS} ms", holds=holds),
    ]


BENCHMARK = Benchmark("calls-ceph", "part URLs, and create + parts + complete on Ceph, against Companion", run, "ceph")
