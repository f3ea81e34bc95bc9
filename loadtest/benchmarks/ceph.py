"""1 GiB to a real Ceph and back, beside the same without us: ``python -m loadtest.benchmarks.ceph``.

Up: create, 8 MiB parts by our URLs, four at once, complete. One peer sends the same PUTs, hash bound, signed by
botocore; another sends what boto3 presigns, which binds no hash: between the two lies what radosgw pays for comparing
it. Both complete by themselves. Down: a warm link through nginx; the peer is a GET signed by boto3, straight to
radosgw. The client's hashing is done before the clock starts. What passed the API is counted from nginx's log, what was
read back from radosgw's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from loadtest.benchmarks.bench import cpu_used
from loadtest.benchmarks.client import Client, Sender
from loadtest.benchmarks.content import GIB, PART_SIZE, Content
from loadtest.benchmarks.measure import Pairs, Sample, resident_bytes
from loadtest.benchmarks.stack import ROOT, Stack

_ROUNDS = 7
_AT_ONCE = 4
_BUCKET = "bench"


def _send(urls: Sequence[tuple[str, dict[str, str]]], content: Content) -> list[str]:
    """PUTs every part, each of four connections its share; the ETags."""
    etags = [""] * len(urls)

    def share(first: int) -> None:
        with Sender(urlsplit(urls[0][0]).port or 80) as sender:
            for index in range(first, len(urls), _AT_ONCE):
                url, headers = urls[index]
                parts = urlsplit(url)
                etags[index] = sender.put(f"{parts.path}?{parts.query}", content.part(index + 1), parts.netloc, headers)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(share, range(_AT_ONCE)))
    return etags


def _through_nginx(stack: Stack) -> dict[str, int]:
    """Bytes of requests and answers that nginx has logged, by route; what the API saw is the route ``api``."""
    found: dict[str, int] = {}
    for text in (stack.data / "log" / "access.log").read_text().splitlines():
        line = json.loads(text)
        found[line["route"]] = found.get(line["route"], 0) + line["request_length"] + line["bytes_sent"]
    return found


def _objects_read(stack: Stack) -> int:
    """GETs of uploaded objects that radosgw has answered; lists of parts are none."""
    found = re.findall(
        r'"GET /sluice/([^ ?]+)(\S*) HTTP', (stack.data / "log" / "client.rgw.log").read_text("utf-8", "replace")
    )
    return sum("uploadId=" not in query and "/probe/" not in key for key, query in found)


def _ours(stack: Stack, client: Client, seed: int) -> Sample:
    content = Content(GIB, seed)
    hashes = content.hashes()
    client.sign_in()
    with cpu_used(stack.api) as used:
        began = time.monotonic()
        upload = client.create(content, f"{seed}.bin", parts=hashes)
        _send([(part["url"], part["headers"]) for part in upload["parts"].values()], content)
        answer = client.call("POST", f"/uploads/{upload['id']}/complete")
        while answer["state"] != "done":
            answer = client.call("GET", f"/uploads/{upload['id']}")
        seconds = time.monotonic() - began
    assert answer["file"]["state"] == "ready", "verified without being read back"
    print(f"ours  {seconds:5.2f} s  api cpu {used.seconds:.2f} s")
    return Sample(GIB / seconds / 1e6, used.seconds)


class _BoundAuth(S3SigV4QueryAuth):
    """botocore's own signer, told the body's hash: its presigned URLs bind none."""

    def payload(self, request: Any) -> str:
        return str(request.headers["x-amz-content-sha256"])


def _bound(credentials: Any, url: str, sha256: str) -> tuple[str, dict[str, str]]:
    """The URL of a PUT of one part, signed by botocore, with the header to send."""
    headers = {"x-amz-content-sha256": sha256}
    request = AWSRequest(method="PUT", url=url, headers={**headers, "content-length": str(PART_SIZE)})
    _BoundAuth(credentials, "s3", "us-east-1", expires=900).add_auth(request)
    return str(request.url), headers


@dataclass(frozen=True)
class _Peer:
    """Who uploads without us."""

    s3: Any
    credentials: Any

    def send(self, seed: int, *, bound: bool) -> Sample:
        """1 GiB in the same parts, with the same connections."""
        content, key = Content(GIB, seed), f"peer/{seed}"
        hashes = content.hashes()
        began = time.monotonic()
        upload = self.s3.create_multipart_upload(Bucket=_BUCKET, Key=key)["UploadId"]
        names = {"Bucket": _BUCKET, "Key": key, "UploadId": upload}
        numbers = range(1, GIB // PART_SIZE + 1)
        if bound:
            where = f"{self.s3.meta.endpoint_url}/{_BUCKET}/{key}?uploadId={quote(upload, safe='')}&partNumber="
            urls = [_bound(self.credentials, f"{where}{n}", hashes[str(n)]) for n in numbers]
        else:
            sign = self.s3.generate_presigned_url
            urls = [(sign("upload_part", {**names, "PartNumber": n, "ContentLength": PART_SIZE}), {}) for n in numbers]
        etags = _send(urls, content)
        parts = [{"PartNumber": n, "ETag": etags[n - 1]} for n in numbers]
        self.s3.complete_multipart_upload(**names, MultipartUpload={"Parts": parts})
        seconds = time.monotonic() - began
        self.s3.delete_object(Bucket=_BUCKET, Key=key)
        print(f"{'same' if bound else 'plain'}  {seconds:5.2f} s", flush=True)
        return Sample(GIB / seconds / 1e6, 0)


def _get(port: int, path: str, host: str, pids: Sequence[int]) -> Sample:
    with Sender(port) as sender, cpu_used(pids) as used:
        began = time.monotonic()
        assert sender.get(path, host) == GIB
        seconds = time.monotonic() - began
    return Sample(GIB / seconds / 1e6, used.seconds)


def _in_turns(arms: Mapping[str, Callable[[], Sample]]) -> dict[str, list[Sample]]:
    """Samples of each arm, in an order that turns every round; the first round warms up and is dropped."""
    found: dict[str, list[Sample]] = {name: [] for name in arms}
    names = list(arms)
    for number in range(_ROUNDS + 1):
        for name in names:
            sample = arms[name]()
            if number:
                found[name].append(sample)
        names.append(names.pop(0))
    return found


def main() -> None:
    """Prints both rows."""
    os.environ["OSD_GB"] = "40"
    with tempfile.TemporaryDirectory(prefix="sluice-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with Stack(folder, "--storage", "ceph") as stack:
            environ = {**os.environ, "CEPH_ROOT": str(stack.data / "ceph")}
            words = subprocess.run(
                [ROOT / "scripts/ceph", "env"], env=environ, check=True, capture_output=True, text=True
            )
            settings = dict(word.split("=", 1) for word in words.stdout.split()[1:])
            s3 = boto3.client(
                "s3",
                endpoint_url=settings["SLUICE_S3_ENDPOINT"],
                aws_access_key_id=settings["SLUICE_S3_ACCESS_KEY"],
                aws_secret_access_key=settings["SLUICE_S3_SECRET_KEY"],
                region_name="us-east-1",
                config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
            )
            s3.create_bucket(Bucket=_BUCKET)
            client, seeds = Client(stack.port), iter(range(1 << 40, 1 << 41))
            peer = _Peer(s3, Credentials(settings["SLUICE_S3_ACCESS_KEY"], settings["SLUICE_S3_SECRET_KEY"]))
            arms: dict[str, Callable[[], Sample]] = {
                "ours": lambda: _ours(stack, client, next(seeds)),
                "same": lambda: peer.send(next(seeds), bound=True),
                "plain": lambda: peer.send(next(seeds), bound=False),
            }
            up = _in_turns(arms)
            for name, what in (("same", "the same PUTs"), ("plain", "PUTs that bind no hash")):
                wall = sorted(b.speed / a.speed for a, b in zip(up["ours"], up[name], strict=True))
                print(f"up    wall ours / {what}: median {wall[len(wall) // 2]:.3f} ({wall[0]:.3f} to {wall[-1]:.3f})")
            cpu = sorted(sample.cpu for sample in up["ours"])
            print(f"up    API CPU: median {cpu[len(cpu) // 2]:.2f} s, limit 0.15")

            time.sleep(1.5)  # nginx writes its log once a second
            print("up    bytes by route, all uploads together:", _through_nginx(stack))
            print("up    reads of our objects in radosgw's log:", _objects_read(stack))

            file = client.call("GET", "/files?limit=1")["items"][0]
            link, memory = client.link(file), [resident_bytes(pid) for pid in stack.edge]
            listed = s3.list_objects_v2(Bucket=settings["SLUICE_S3_BUCKET"])["Contents"]
            key = next(entry["Key"] for entry in listed if entry["Size"] == GIB)
            url = urlsplit(
                s3.generate_presigned_url("get_object", {"Bucket": settings["SLUICE_S3_BUCKET"], "Key": key})
            )
            down = Pairs.take(
                _ROUNDS,
                lambda: _get(stack.port, link, f"127.0.0.1:{stack.port}", stack.edge),
                lambda: _get(url.port or 80, f"{url.path}?{url.query}", url.netloc, stack.edge),
            )
            ratio = down.ratio
            print(
                f"down  speed ours/peer: median {ratio.median:.3f} ({ratio.least:.3f} to {ratio.most:.3f}), limit 0.95"
            )
            speeds = sorted(sample.speed for sample in down.peer)
            print(f"down  the peer's own spread: {speeds[0] / speeds[-1]:.2f}; nginx grew by", end=" ")
            print([resident_bytes(pid) - before for pid, before in zip(stack.edge, memory, strict=True)], "bytes")


if __name__ == "__main__":
    main()
