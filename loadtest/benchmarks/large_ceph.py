"""1 GiB to a real Ceph and back: Sluice beside bare PUTs and GETs, plain nginx, and S3 programs."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from loadtest.benchmarks.bench import Bench, Benchmark, cpu_used
from loadtest.benchmarks.client import JSON, Client, Sender
from loadtest.benchmarks.complete import finalize
from loadtest.benchmarks.content import GIB, PART_SIZE
from loadtest.benchmarks.measure import Pairs, Row, Sample
from loadtest.benchmarks.s3 import BUCKET, S3, put_all
from loadtest.benchmarks.s3_programs import S3Programs

_AT_ONCE = 4
_MOST_ROUNDS = 5
"""Each round takes half a minute."""
_OWN_CPU = 0.2
_API_CPU = 0.15
_BOUND_SPEED = 1 / 1.10
_PROXY_CPU = 1.1
_DOWN_SPEED = 0.95
_UP = "1 GiB to Ceph in 8 MiB parts, 4 in parallel, hashes known"
_DOWN = "1 GiB from Ceph by a warm link"
Arms = dict[str, Callable[[], Sample]]


class _Ours:
    """Uploads by Sluice's URLs. CPU is that of every Sluice process: edge, API, worker, MariaDB, Redis."""

    def __init__(self, bench: Bench, client: Client) -> None:
        self._bench = bench
        self._client = client
        self.api_cpu: list[float] = []

    def up(self) -> Sample:
        content, stack = self._bench.content(GIB), self._bench.stack
        hashes = content.hashes()
        self._client.sign_in()
        with cpu_used(stack.own) as used, cpu_used(stack.api) as api:
            began = time.monotonic()
            upload = self._client.create(content, "large.bin", parts=hashes)
            put_all([(part["url"], part["headers"]) for part in upload["parts"].values()], content, _AT_ONCE)
            file = finalize(self._client, upload["id"])
            seconds = time.monotonic() - began
        assert file["state"] == "ready", "verified without being read back"
        self._client.call("DELETE", f"/files/{file['id']}")
        self.api_cpu.append(api.seconds)
        return Sample(GIB / seconds / 1e6, used.seconds)

    def note(self) -> str:
        """The API's part of the work, by its CPU clock and by the logs of nginx and radosgw."""
        time.sleep(1.5)  # nginx writes its log once per second
        cpu, count = statistics.median(self.api_cpu), len(self.api_cpu)
        verdict = "held" if cpu < _API_CPU else "**not held**"
        return (
            f"API CPU {cpu * 1e3:.0f} ms per GiB (limit {_API_CPU * 1e3:.0f}: {verdict}); {count} GiB passed "
            f"{self._api_bytes() / 1e6:.2f} MB through the API, and radosgw's log shows {self._reads()} reads of them"
        )

    def _api_bytes(self) -> int:
        """Bytes of the API's requests and responses, from nginx's log."""
        lines = map(json.loads, (self._bench.stack.data / "log" / "access.log").read_text().splitlines())
        return sum(line["request_length"] + line["bytes_sent"] for line in lines if line["route"] == "api")

    def _reads(self) -> int:
        """GETs of Sluice's objects in radosgw's log, without lists of parts and the probe's requests."""
        log = (self._bench.stack.data / "log" / "client.rgw.log").read_text("utf-8", "replace")
        found = re.findall(r'"GET /sluice/([^ ?]+)(\S*) HTTP', log)
        return sum("uploadId=" not in query and "/probe/" not in key for key, query in found)


def _bare_up(bench: Bench, s3: S3, *, bound: bool) -> Sample:
    """Equal PUTs without Sluice, with the hash bound to the URL or not (boto3's default). CPU is not measured."""
    content, key = bench.content(GIB), f"bare/{time.monotonic_ns()}"
    hashes = content.hashes()
    began = time.monotonic()
    upload = s3.client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    numbers = range(1, content.part_count + 1)
    if bound:
        urls = [s3.bound(key, upload, n, PART_SIZE, hashes[str(n)]) for n in numbers]
    else:
        names = {"UploadId": upload, "ContentLength": PART_SIZE}
        urls = [s3.signed("upload_part", key, PartNumber=n, **names) for n in numbers]
    etags = put_all(urls, content, _AT_ONCE)
    parts = [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, 1)]
    s3.client.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    seconds = time.monotonic() - began
    s3.delete(key)
    return Sample(GIB / seconds / 1e6, 0)


def _get(port: int, url: str, pids: Sequence[int]) -> Sample:
    parts = urlsplit(url)
    with Sender(port) as sender, cpu_used(pids) as used:
        began = time.monotonic()
        assert sender.get(f"{parts.path}?{parts.query}".rstrip("?"), parts.netloc or f"127.0.0.1:{port}") == GIB
        seconds = time.monotonic() - began
    return Sample(GIB / seconds / 1e6, used.seconds)


class _Programs(S3Programs):
    """S3 programs. CPU is that of the program; no Sluice server takes part."""

    def __init__(self, bench: Bench, s3: S3) -> None:
        super().__init__(bench, s3, _AT_ONCE, ["ceph-up-{}", "ceph-down-{}"])
        self._bucket = s3
        self.file = bench.folder / "large.bin"
        bench.content(GIB).write(self.file)

    def up(self, name: str) -> Sample:
        run = self.copy(name, self.file, f"s3://{BUCKET}/{name}", {})
        self._bucket.delete(name)
        return run.sample(GIB / 1e6, 1)

    def down(self, name: str) -> Sample:
        target = self.file.with_suffix(".down")
        run = self.copy(name, f"s3://{BUCKET}/down", target, {})
        target.unlink()
        return run.sample(GIB / 1e6, 1)


def _rows(bench: Bench, names: dict[str, str], what: str, pairs: dict[str, Pairs], unit: str) -> list[Row]:
    return [pairs[name].row(f"{what}-{name}", text, "MB/s", unit, 1e3) for name, text in names.items() if name in pairs]


def run(bench: Bench) -> Iterator[Row]:
    """Each arm once per round, in rotating order. The peers' objects are deleted."""
    s3, client = S3(bench.stack), bench.client()
    programs = _Programs(bench, s3)
    ours = _Ours(bench, client)
    arms: Arms = {
        "ours": ours.up,
        "bound": lambda: _bare_up(bench, s3, bound=True),
        "bare": lambda: _bare_up(bench, s3, bound=False),
    }
    arms |= {name: lambda name=name: programs.up(name) for name in programs.found}  # type: ignore[misc]
    up = Pairs.in_turns(min(bench.rounds, _MOST_ROUNDS), arms)
    s3.empty()
    names = {
        "bound": f"{_UP}; the same PUTs, length and hash bound",
        "bare": "the same; the same PUTs by boto3's URLs, which bind no hash",
    }
    names |= {name: f"the same; {name} straight to radosgw, the program's CPU" for name in programs.found}
    rows = _rows(bench, names, "ceph-up", up, "ms/GiB")
    rows[:2] = [replace(row, cpu_peer=None, cpu_ratio=None) for row in rows[:2]]
    speed, cpu = up["bound"].ratio.median, rows[1].cpu_ours
    assert cpu is not None
    rows[0] = replace(rows[0], limit=f"≥ {_BOUND_SPEED:.2f}", holds=speed >= _BOUND_SPEED, notes=ours.note())
    rows[1] = replace(rows[1], limit=f"Sluice's CPU in total < {_OWN_CPU * 1e3:.0f} ms", holds=cpu < _OWN_CPU * 1e3)
    yield from rows
    yield from _down(bench, s3, client, programs)


def _down(bench: Bench, s3: S3, client: Client, programs: _Programs) -> list[Row]:
    content = bench.content(GIB)
    upload = client.create(content, "down.bin", parts=content.hashes())
    put_all([(part["url"], part["headers"]) for part in upload["parts"].values()], content, _AT_ONCE)
    file: JSON = finalize(client, upload["id"])
    link = client.link(file)
    s3.client.upload_file(str(programs.file), BUCKET, "down")
    direct, _ = s3.signed("get_object", "down")
    arms: Arms = {
        "ours": lambda: _get(bench.stack.port, link, bench.stack.edge),
        "nginx": lambda: _get(bench.peer.port, direct, bench.peer.workers),
        "radosgw": lambda: _get(s3.port, direct, bench.stack.edge),
    }
    arms |= {name: lambda name=name: programs.down(name) for name in programs.found}  # type: ignore[misc]
    pairs = Pairs.in_turns(min(bench.rounds, _MOST_ROUNDS), arms)
    names = {"nginx": f"{_DOWN}; plain nginx proxying a presigned URL", "radosgw": "the same; GET straight to radosgw"}
    names |= {name: f"the same; {name} from radosgw to a file, the program's CPU" for name in programs.found}
    rows = _rows(bench, names, "ceph-down", pairs, "ms/GiB")
    ratio = rows[0].cpu_ratio
    holds = ratio is not None and ratio.median <= _PROXY_CPU
    rows[0] = replace(rows[0], limit=f"CPU ≤ {_PROXY_CPU}", holds=holds)
    straight = pairs["radosgw"]
    speeds = [sample.speed for sample in straight.peer]
    limit = min(_DOWN_SPEED, min(speeds) / max(speeds))
    holds = straight.ratio.median >= limit
    limit_text = f"≥ {_DOWN_SPEED}, or the peer's own spread ({min(speeds) / max(speeds):.2f})"
    rows[1] = replace(rows[1], cpu_peer=None, cpu_ratio=None, limit=limit_text, holds=holds)
    client.call("DELETE", f"/files/{file['id']}")
    s3.empty()
    return rows


BENCHMARK = Benchmark("large-ceph", "1 GiB to Ceph and back, against bare PUTs, nginx, s5cmd, aws, rclone", run, "ceph")
