"""A bucket on the stack's radosgw for clients without Sluice, with requests signed by botocore."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode, urlsplit

import boto3
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from loadtest.benchmarks.client import Sender
from loadtest.benchmarks.content import Content
from loadtest.benchmarks.stack import Stack

BUCKET = "bench"
Signed = tuple[str, Mapping[str, str]]
"""A URL and the headers to send with it."""


class _BoundAuth(S3SigV4QueryAuth):  # type: ignore[misc]  # botocore has no types
    """botocore's signer, with the body's hash: its default presigned URLs bind no hash."""

    def payload(self, request: Any) -> str:
        return str(request.headers["x-amz-content-sha256"])


class S3:
    """A separate bucket on the stack's radosgw."""

    def __init__(self, stack: Stack) -> None:
        folder = stack.data / "ceph"
        settings = dict(line.split("=", 1) for line in (folder / "settings").read_text().split())
        self.endpoint = f"http://127.0.0.1:{settings['RGW_PORT']}"
        self.port = int(settings["RGW_PORT"])
        self.access_key = (folder / "access-key").read_text().strip()
        self.secret_key = (folder / "secret-key").read_text().strip()
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                max_pool_connections=32,
            ),
        )
        self.client.create_bucket(Bucket=BUCKET)

    @property
    def environment(self) -> dict[str, str]:
        """The environment with the bucket's credentials, for other programs."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "S3_ENDPOINT_URL": self.endpoint,
        }

    def signed(self, call: str, key: str, **names: object) -> Signed:
        """A presigned request of the bucket."""
        url: str = self.client.generate_presigned_url(call, {"Bucket": BUCKET, "Key": key, **names})
        return url, {}

    def bound(self, key: str, upload_id: str, number: int, size: int, sha256: str) -> Signed:
        """The PUT of one part, with signed length and SHA-256 (hex), so that only these bytes are accepted."""
        query = urlencode({"uploadId": upload_id, "partNumber": number})
        headers = {"x-amz-content-sha256": sha256}
        request = AWSRequest(
            method="PUT",
            url=f"{self.endpoint}/{BUCKET}/{key}?{query}",
            headers={**headers, "content-length": str(size)},
        )
        signer = _BoundAuth(Credentials(self.access_key, self.secret_key), "s3", "us-east-1", expires=900)
        signer.add_auth(request)
        return str(request.url), headers

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=key)

    def empty(self) -> None:
        """Deletes everything in the bucket."""
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            if keys := [{"Key": entry["Key"]} for entry in page.get("Contents", ())]:
                self.client.delete_objects(Bucket=BUCKET, Delete={"Objects": keys, "Quiet": True})


def put_all(urls: Sequence[Signed], content: Content, at_once: int) -> list[str]:
    """PUTs every part on kept connections, distributed over threads. Returns the ETags in order."""
    etags = [""] * len(urls)

    def share(first: int) -> None:
        with Sender(urlsplit(urls[0][0]).port or 80) as sender:
            for index in range(first, len(urls), at_once):
                url, headers = urls[index]
                parts = urlsplit(url)
                target = f"{parts.path}?{parts.query}" if parts.query else parts.path
                etags[index] = sender.put(target, content.part(index + 1), parts.netloc, headers)

    in_parallel(share, at_once)
    return etags


def in_parallel(work: Callable[[int], None], at_once: int) -> None:
    """Runs `work` with 0, 1, … in this many threads, and raises what one of them raises."""
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(work, range(at_once)))
