"""Peers of other kinds: Falcon's X-Accel-Redirect, tus (files and S3), giftless."""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loadtest.benchmarks import program
from loadtest.benchmarks.bench import Bench, Benchmark, cpu_used
from loadtest.benchmarks.client import Client, put_parts_of
from loadtest.benchmarks.complete import finalize
from loadtest.benchmarks.content import GIB, Content
from loadtest.benchmarks.measure import LeftOut, Pairs, Row, Sample, settle
from loadtest.benchmarks.program import Server
from loadtest.benchmarks.s3 import S3, in_parallel, put_all
from loadtest.benchmarks.stack import ROOT, free_port
from loadtest.benchmarks.wrk import Load

_LINKS = 16
_AT_ONCE = 4
_OBJECTS = 80
_ROUNDS = 3
"""tus takes up to ten seconds per GiB."""


def run_accel(bench: Bench) -> Sequence[Row]:
    """16 files by Sluice's links, and by an app behind nginx that is called for each request."""
    client = bench.client()
    links, paths = [], []
    for number in range(_LINKS):
        content = bench.content(1024)
        links.append(client.link(client.upload(content, f"accel {number}.bin")))
        paths.append(f"/accel/{bench.object_key(content)}")
    socket = bench.peer.folder / "accel.sock"
    bind = f"unix:{socket}"
    options = ["-w", "2", "-k", "gthread", "--threads", "8", "--umask", "0", "--bind", bind, "--no-control-socket"]
    command: list[str | Path] = [ROOT / ".venv/bin/gunicorn", *options, "--chdir", ROOT / "loadtest/peers", "accel:app"]
    with program.serving(command, None, bench.folder, ready=socket.exists) as server:
        ours, peer = Load(bench.stack.port, links), Load(bench.peer.port, paths)
        pids = [*bench.peer.workers, *server.pids]
        pairs = Pairs.take(
            bench.rounds,
            lambda: ours.put(bench.seconds, [*bench.stack.edge, *bench.stack.api]),
            lambda: peer.put(bench.seconds, pids),
        )
    what = "signed download of 1 KiB, warm; nginx + Falcon answering X-Accel-Redirect, nothing checked"
    return [pairs.row("download-accel", what, "requests/s", "µs, edge and API", 1e6)]


# -- tus


@contextmanager
def _tus(bench: Bench, kind: str, where: str, environment: dict[str, str]) -> Iterator[tuple[int, Server, Path]]:
    folder = program.need("tus") / "tus"
    port = free_port()
    command: list[str | Path] = [program.node(), folder / "server.mjs", kind, where, str(port)]
    with program.serving(command, port, bench.folder, environment) as server:
        yield port, server, folder


def _tus_upload(folder: Path, file: Path, port: int, server: Server) -> Sample:
    with cpu_used(server.pids) as used:
        began = time.monotonic()
        result = subprocess.run(
            [program.node(), folder / "upload.mjs", file, str(port)], capture_output=True, text=True, check=False
        )
        seconds = time.monotonic() - began
    if result.returncode:
        raise LeftOut(f"tus-js-client: {result.stderr.strip()[-200:]}")
    return Sample(GIB / seconds / 1e6, used.seconds)


def _large_file(bench: Bench) -> Path:
    path, content = bench.folder / "large.bin", bench.content(GIB)
    content.write(path)
    return path


def _ours(bench: Bench, client: Client, send: Callable[[Client, Content, dict[str, object]], None]) -> Sample:
    content = bench.content(GIB)
    hashes = content.hashes()
    client.sign_in()
    settle(GIB)
    with cpu_used(bench.stack.own) as used:
        began = time.monotonic()
        upload = client.create(content, "tus.bin", parts=hashes)
        send(client, content, upload)
        file = finalize(client, upload["id"])
        seconds = time.monotonic() - began
    if bench.stack.objects.exists():
        bench.stack.objects.joinpath(bench.object_key(content)).unlink(missing_ok=True)  # frees space
    client.call("DELETE", f"/files/{file['id']}")
    return Sample(GIB / seconds / 1e6, used.seconds)


def run_tus_file(bench: Bench) -> Sequence[Row]:
    """1 GiB into files: Sluice checks every part's hash, tus none."""
    store, client, file = bench.folder / "tus", bench.client(), _large_file(bench)
    store.mkdir()

    def peer() -> Sample:
        settle(GIB)
        sample = _tus_upload(folder, file, port, server)
        for path in store.iterdir():
            path.unlink()
        return sample

    with _tus(bench, "file", str(store), {}) as (port, server, folder):
        pairs = Pairs.take(min(bench.rounds, _ROUNDS), lambda: _ours(bench, client, put_parts_of), peer)
    what = "1 GiB to local storage, created, sent, completed; tus-js-client to @tus/server with files, one request"
    return [pairs.row("tus-file", what, "MB/s", "ms/GiB", 1e3)]


def run_tus_s3(bench: Bench) -> Sequence[Row]:
    """1 GiB to the same radosgw: Sluice redirects clients to it, tus passes the bytes on."""
    s3, client, file = S3(bench.stack), bench.client(), _large_file(bench)

    def send(client: Client, content: Content, upload: dict[str, object]) -> None:
        parts = upload["parts"]
        assert isinstance(parts, dict)
        put_all([(part["url"], part["headers"]) for part in parts.values()], content, _AT_ONCE)

    def peer() -> Sample:
        sample = _tus_upload(folder, file, port, server)
        s3.empty()
        return sample

    with _tus(bench, "s3", s3.endpoint, s3.environment) as (port, server, folder):
        pairs = Pairs.take(min(bench.rounds, _ROUNDS), lambda: _ours(bench, client, send), peer)
    what = "1 GiB to Ceph, created, sent, completed; tus-js-client to @tus/server with its S3 store"
    return [pairs.row("tus-s3", what, "MB/s", "ms/GiB", 1e3)]


# -- giftless


_GIFTLESS = """
AUTH_PROVIDERS: [giftless.auth.allow_anon:read_write]
TRANSFER_ADAPTERS:
  basic:
    factory: giftless.transfer.basic_external:factory
    options:
      storage_class: giftless.storage.amazon_s3:AmazonS3Storage
      storage_options: {{bucket_name: bench, endpoint: "{endpoint}", path_prefix: lfs}}
"""


def run_giftless(bench: Bench) -> Sequence[Row]:
    """Upload URLs for 80 new files of one part: Sluice in 80 calls, four in parallel; giftless in one batch."""
    s3, folder, port = S3(bench.stack), program.need("giftless"), free_port()
    config = bench.folder / "giftless.yaml"
    config.write_text(_GIFTLESS.format(endpoint=s3.endpoint))
    command: list[str | Path] = [
        folder / "bin/giftless-gunicorn",
        "-w",
        "2",
        "--bind",
        f"127.0.0.1:{port}",
        "giftless.wsgi_entrypoint:app",
    ]
    environment = s3.environment | {"GIFTLESS_CONFIG_FILE": str(config)}
    with program.serving(command, port, bench.folder, environment, patient=True) as server:
        pairs = Pairs.take(bench.rounds, lambda: _ours_batch(bench), lambda: _giftless_batch(port, server))
    what = f"URLs to upload {_OBJECTS} new files of one part on Ceph, one call each; giftless, one batch, presigned S3"
    return [pairs.row("giftless-batch", what, "files/s", "ms per file", 1e3)]


def _ours_batch(bench: Bench) -> Sample:
    owner = bench.client()
    clients = [owner.another() for _ in range(_AT_ONCE)]
    contents = [bench.content(64 * 1024) for _ in range(_OBJECTS)]
    hashes = [content.hashes() for content in contents]
    made: list[str] = []

    def work(thread: int) -> None:
        for index in range(thread, _OBJECTS, _AT_ONCE):
            made.append(clients[thread].create(contents[index], "batch.bin", parts=hashes[index])["id"])

    with cpu_used(bench.stack.api) as used:
        began = time.monotonic()
        in_parallel(work, _AT_ONCE)
        seconds = time.monotonic() - began
    for upload_id in made:
        owner.call("DELETE", f"/uploads/{upload_id}")
    return Sample(_OBJECTS / seconds, used.seconds / _OBJECTS)


def _giftless_batch(port: int, server: Server) -> Sample:
    objects = [{"oid": hashlib.sha256(secrets.token_bytes(16)).hexdigest(), "size": 65536} for _ in range(_OBJECTS)]
    body = json.dumps({"operation": "upload", "transfers": ["basic"], "objects": objects})
    headers = {"Content-Type": "application/vnd.git-lfs+json", "Accept": "application/vnd.git-lfs+json"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with cpu_used(server.pids) as used:
        began = time.monotonic()
        connection.request("POST", "/org/repo/objects/batch", body, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        seconds = time.monotonic() - began
    connection.close()
    if response.status != 200 or not all("upload" in found.get("actions", {}) for found in answer["objects"]):
        raise LeftOut(f"giftless answered {response.status}: {str(answer)[:200]}")
    return Sample(_OBJECTS / seconds, used.seconds / _OBJECTS)


ACCEL = Benchmark("accel", "signed download of 1 KiB against Falcon's X-Accel-Redirect", run_accel)
TUS_FILE = Benchmark("tus-file", "1 GiB to local storage against tus with files", run_tus_file)
TUS_S3 = Benchmark("tus-s3", "1 GiB to Ceph against tus with S3", run_tus_s3, "ceph")
GIFTLESS = Benchmark("giftless", "upload URLs of 80 files on Ceph against giftless", run_giftless, "ceph")
