"""1 GiB to a real Ceph and back, beside the same PUTs and GETs without us: ``python -m loadtest.benchmarks.ceph``.

Up: create, 8 MiB parts by our URLs, four at once, complete; the peer signs the same parts with boto3 and completes by
itself. Down: a warm link through nginx; the peer is a GET signed by boto3, straight to radosgw. The client's hashing is
done before the clock starts. What passed the API is counted from nginx's log.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

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


def _peer(s3: Any, seed: int) -> Sample:
    content, key = Content(GIB, seed), f"peer/{seed}"
    began = time.monotonic()
    upload = s3.create_multipart_upload(Bucket=_BUCKET, Key=key)["UploadId"]
    names = {"Bucket": _BUCKET, "Key": key, "UploadId": upload}
    numbers = range(1, GIB // PART_SIZE + 1)
    urls = [
        (s3.generate_presigned_url("upload_part", {**names, "PartNumber": n, "ContentLength": PART_SIZE}), {})
        for n in numbers
    ]
    etags = _send(urls, content)
    parts = [{"PartNumber": n, "ETag": etags[n - 1]} for n in numbers]
    s3.complete_multipart_upload(**names, MultipartUpload={"Parts": parts})
    seconds = time.monotonic() - began
    s3.delete_object(Bucket=_BUCKET, Key=key)
    print(f"peer  {seconds:5.2f} s")
    return Sample(GIB / seconds / 1e6, 0)


def _get(port: int, path: str, host: str, pids: Sequence[int]) -> Sample:
    with Sender(port) as sender, cpu_used(pids) as used:
        began = time.monotonic()
        assert sender.get(path, host) == GIB
        seconds = time.monotonic() - began
    return Sample(GIB / seconds / 1e6, used.seconds)


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
            up = Pairs.take(_ROUNDS, lambda: _ours(stack, client, next(seeds)), lambda: _peer(s3, next(seeds)))
            wall = sorted(1 / ratio for ratio in (a.speed / b.speed for a, b in zip(up.ours, up.peer, strict=True)))
            print(
                f"up    wall ours/peer: median {wall[len(wall) // 2]:.3f} ({wall[0]:.3f} to {wall[-1]:.3f}), limit 1.10"
            )
            cpu = sorted(sample.cpu for sample in up.ours)
            print(f"up    API CPU: median {cpu[len(cpu) // 2]:.2f} s, limit 0.15")

            time.sleep(1.5)  # nginx writes its log once a second
            print("up    bytes by route, all uploads together:", _through_nginx(stack))

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
