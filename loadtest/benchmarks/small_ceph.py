"""Small files to Ceph, eight in parallel: Sluice beside one bare PUT each, and beside a bare multipart upload each."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from loadtest.benchmarks.bench import Bench, Benchmark, cpu_used
from loadtest.benchmarks.client import Client, Sender
from loadtest.benchmarks.content import Content
from loadtest.benchmarks.measure import Pairs, Row, Sample
from loadtest.benchmarks.s3 import BUCKET, S3, in_parallel

_AT_ONCE = 8
_FILES = 2000
_QUICK = 200
_SIZE = 64 * 1024
_KEYS = itertools.count()


@dataclass
class _Spent:
    """CPU seconds by server, over all samples of an arm."""

    files: int = 0
    api: float = 0.0
    edge: float = 0.0
    database: float = 0.0
    ceph: float = 0.0

    def text(self) -> str:
        shares = {"API": self.api, "edge": self.edge, "MariaDB": self.database, "Ceph": self.ceph}
        return ", ".join(f"{name} {1e3 * seconds / self.files:.2f} ms" for name, seconds in shares.items() if seconds)


class _Small:
    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._s3 = S3(bench.stack)
        self.count = _QUICK if bench.seconds < 2 else _FILES
        self.spent = {name: _Spent() for name in ("ours", "put", "multipart")}

    def _measure(self, name: str, port: int, work: Callable[[int, Content, Sender], None]) -> Sample:
        """All files, distributed over threads, each with a kept connection to the target."""
        contents = [self._bench.content(_SIZE) for _ in range(self.count)]
        for content in contents:
            content.hashes()  # hashes are computed before the clock starts
        stack, spent = self._bench.stack, self.spent[name]

        def share(first: int) -> None:
            with Sender(port) as sender:
                for content in contents[first::_AT_ONCE]:
                    work(first, content, sender)

        with (
            cpu_used(stack.api) as api,
            cpu_used(stack.edge) as edge,
            cpu_used(stack.database_server) as database,
            cpu_used(stack.ceph) as ceph,
        ):
            began = time.monotonic()
            in_parallel(share, _AT_ONCE)
            seconds = time.monotonic() - began
        spent.files += self.count
        spent.api += api.seconds
        spent.edge += edge.seconds
        spent.database += database.seconds
        spent.ceph += ceph.seconds
        total = api.seconds + edge.seconds + database.seconds + ceph.seconds
        return Sample(self.count / seconds, total / self.count)

    def ours(self) -> Sample:
        """Two calls and a PUT per file: create with its part, send through the edge, complete."""
        owner = self._bench.client()
        clients: list[Client] = [owner.another() for _ in range(_AT_ONCE)]

        def work(thread: int, content: Content, sender: Sender) -> None:
            client = clients[thread]
            upload = client.create(content, "small.bin", parts=content.hashes())
            part = upload["parts"]["1"]
            url = urlsplit(part["url"])
            sender.put(url.path, content.part(1), url.netloc, part["headers"])
            done = client.call("POST", f"/uploads/{upload['id']}/complete")
            assert done["state"] == "done", done["state"]

        return self._measure("ours", self._bench.stack.port, work)

    def put(self) -> Sample:
        """One presigned PUT per file; signing is not counted."""
        urls = iter([self._s3.signed("put_object", f"small/{next(_KEYS)}")[0] for _ in range(self.count)])

        def work(_: int, content: Content, sender: Sender) -> None:
            url = urlsplit(next(urls))
            sender.put(f"{url.path}?{url.query}", content.part(1), url.netloc)

        return self._measure("put", self._s3.port, work)

    def multipart(self) -> Sample:
        """create, PUT, complete by boto3's client, the usual way to get multipart uploads."""
        client = self._s3.client

        def work(_: int, content: Content, sender: Sender) -> None:
            key = f"small/{next(_KEYS)}"
            upload = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
            url = urlsplit(self._s3.signed("upload_part", key, UploadId=upload, PartNumber=1)[0])
            etag = sender.put(f"{url.path}?{url.query}", content.part(1), url.netloc)
            parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
            client.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload=parts)

        return self._measure("multipart", self._s3.port, work)


def run(bench: Bench) -> Sequence[Row]:
    """CPU is that of all servers together, Ceph's included."""
    small = _Small(bench)
    rounds = min(bench.rounds, 2)  # each round takes minutes
    pairs = Pairs.in_turns(rounds, {"ours": small.ours, "put": small.put, "multipart": small.multipart})
    what = f"{small.count} files of 64 KiB to Ceph, {_AT_ONCE} in parallel"
    rows = {
        "put": pairs["put"].row("small-ceph-put", f"{what}; one bare PUT each", "files/s", "ms per file", 1e3),
        "multipart": pairs["multipart"].row(
            "small-ceph-multipart", "the same; create, PUT, complete by boto3", "files/s", "ms per file", 1e3
        ),
    }
    notes = "; ".join(f"{name}: {spent.text()}" for name, spent in small.spent.items())
    return [replace(rows["put"], notes=f"CPU per file: {notes}"), rows["multipart"]]


BENCHMARK = Benchmark("small-ceph", "2,000 files of 64 KiB to Ceph against bare PUTs", run, "ceph")
