"""Storage ``s3`` when Ceph's daemons are killed at the worst moments, and with other credentials."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError

from api.core.config import S3Config
from api.core.errors import CompleteDoubtful, StorageError, StorageUnavailable, UploadGone
from api.storage.s3.storage import S3Storage
from tests.listening import Listening
from tests.storage.ceph import Ceph
from tests.storage.contract import PART, PREFIX, Content, nothing, read
from tests.storage.test_s3 import send

CHUNK = 65536


@pytest.fixture
def storage(s3_config: S3Config) -> S3Storage:
    return S3Storage(s3_config, lambda: PREFIX)


@pytest.fixture
def upload(storage: S3Storage) -> Content:
    """An open upload of three parts, of which only the first is stored."""
    content = Content(os.urandom(3 * PART - 5), binds_hash=True)
    content.open(storage)
    assert send(storage, content.ref, 1, content.part(1))
    return content


@pytest.fixture
def mortal(ceph: Ceph) -> Iterator[Ceph]:
    """A Ceph whose daemons a test may kill."""
    try:
        yield ceph
    finally:
        ceph.run("start")


def send_all(storage: S3Storage, content: Content) -> None:
    there = storage.list_parts(content.ref)
    for number in content.numbers:
        if number not in there:
            assert send(storage, content.ref, number, content.part(number))


def complete_at_last(storage: S3Storage, content: Content, seconds: float = 60) -> str:
    """Settles a sent complete, as the worker does, until it succeeds. Returns the key that counts."""
    deadline = time.monotonic() + seconds
    ref, key = replace(content.ref, completes_sent=1), Content(b"x").ref.object_key
    while True:
        try:
            assert storage.copy_completed(ref, key, nothing).verified == ref.binds_hash
            return key
        except StorageUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)  # before the next try


class HalfSent:
    """A PUT of a part whose body stops in the middle."""

    def __init__(self, storage: S3Storage, content: Content, number: int) -> None:
        self._data = content.part(number)
        sha256 = hashlib.sha256(self._data).hexdigest()
        signed = storage.presign_part(content.ref, number, sha256, int(time.time()) + 600)
        url = urlsplit(signed.url)
        self._connection = http.client.HTTPConnection(url.netloc, timeout=60)
        self._connection.putrequest("PUT", f"{url.path}?{url.query}")
        for name, value in {"content-length": str(len(self._data)), **signed.headers}.items():
            self._connection.putheader(name, value)
        self._connection.endheaders()
        self._connection.send(self._data[: len(self._data) // 2])

    def finish(self) -> int:
        """Sends the rest. Returns the status, or 0 if the connection broke."""
        try:
            self._connection.send(self._data[len(self._data) // 2 :])
            return self._connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            self._connection.close()


def test_radosgw_killed_in_a_part_loses_that_part_alone(mortal: Ceph, storage: S3Storage, upload: Content) -> None:
    half = HalfSent(storage, upload, 2)
    mortal.kill("client.rgw")
    assert half.finish() == 0
    with pytest.raises(StorageUnavailable):
        storage.list_parts(upload.ref)
    mortal.run("start")
    assert storage.list_parts(upload.ref) == {1: PART}
    send_all(storage, upload)
    assert storage.complete(upload.ref, upload.hashes, nothing).verified
    assert read(storage, upload.ref.object_key) == upload.data


def test_an_osd_killed_in_a_part_costs_time_alone(mortal: Ceph, storage: S3Storage, upload: Content) -> None:
    half = HalfSent(storage, upload, 2)
    mortal.kill("osd.0")
    with ThreadPoolExecutor(1) as pool:
        status = pool.submit(half.finish)
        mortal.run("start")
        assert status.result() in (0, 200, 500, 503)
    send_all(storage, upload)
    assert read(storage, complete_at_last(storage, upload)) == upload.data


def test_everything_killed_together_loses_no_finished_part(mortal: Ceph, storage: S3Storage, upload: Content) -> None:
    for daemon in ("mon.a", "osd.0", "client.rgw"):
        mortal.kill(daemon)
    mortal.run("start")
    assert storage.list_parts(upload.ref) == {1: PART}
    send_all(storage, upload)
    assert read(storage, complete_at_last(storage, upload)) == upload.data


class Between(Listening):
    """A proxy between a client and radosgw that runs an action at one moment of a complete.

    Args:
        target: radosgw's URL.
        when: "before" the request is passed on, or "after", when its response begins (which is not passed on).
    """

    def __init__(self, target: str, when: str, act: Callable[[], None]) -> None:
        self._target = (str(urlsplit(target).hostname), int(urlsplit(target).port or 80))
        self._when = when
        self._act = act
        self.acted = False
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"

    def serve(self, client: socket.socket) -> None:
        with socket.create_connection(self._target) as server:
            chosen = False
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(CHUNK)
                    chosen = chosen or (ready is client and data.startswith(b"POST ") and not self.acted)
                    if chosen and ready is (client if self._when == "before" else server):
                        self.acted = True
                        self._act()
                        return
                    if not data:
                        return
                    (server if ready is client else client).sendall(data)


@pytest.mark.parametrize("when", ["before", "after"])
def test_radosgw_killed_in_complete(
    mortal: Ceph, s3_config: S3Config, storage: S3Storage, upload: Content, when: str
) -> None:
    send_all(storage, upload)
    between = Between(s3_config.endpoint, when, lambda: mortal.kill("client.rgw"))
    try:
        through = S3Storage(
            replace(s3_config, endpoint=between.url, public_endpoint=s3_config.endpoint), lambda: PREFIX
        )
        with pytest.raises(CompleteDoubtful):
            through.complete(upload.ref, upload.hashes, nothing)
        assert between.acted
    finally:
        between.close()
    mortal.run("start")
    key = complete_at_last(storage, upload)
    storage.abort(upload.ref)
    storage.delete(upload.ref.object_key)
    assert read(storage, key) == upload.data
    assert upload.ref.upload_id not in set(storage.list_uploads())


def test_the_lock_of_a_radosgw_that_died_in_complete_is_waited_for(
    ceph: Ceph, storage: S3Storage, upload: Content
) -> None:
    """RGW returns 500 to every complete meanwhile. The parts stay, and no client gets a wrong error."""
    send_all(storage, upload)
    pool = "default.rgw.buckets.non-ec"
    (meta,) = (name for name in ceph.tool("rados", "-p", pool, "ls").splitlines() if upload.ref.multipart_id in name)
    ceph.tool("rados", "-p", pool, "lock", "get", meta, "RGWCompleteMultipart", "--lock-duration", "3")
    with pytest.raises(CompleteDoubtful, match="InternalError"):
        storage.complete(upload.ref, upload.hashes, nothing)
    assert len(storage.list_parts(upload.ref)) == 3
    assert read(storage, complete_at_last(storage, upload)) == upload.data


def test_a_wrong_repeat_of_complete_changes_nothing(s3_config: S3Config, storage: S3Storage, upload: Content) -> None:
    send_all(storage, upload)
    where = {"Bucket": s3_config.bucket, "Key": upload.ref.object_key, "UploadId": upload.ref.multipart_id}
    parts: list[Any] = [
        {"PartNumber": number, "ETag": etag} for number, (_, etag) in storage._listed(upload.ref).items()
    ]
    storage.complete(upload.ref, upload.hashes, nothing)
    assert read(storage, complete_at_last(storage, upload)) == upload.data
    for wrong in (parts[:1], [{**parts[0], "ETag": parts[1]["ETag"]}, *parts[1:]]):
        with pytest.raises(ClientError):
            storage._client.complete_multipart_upload(**where, MultipartUpload={"Parts": wrong})
        assert read(storage, upload.ref.object_key) == upload.data


def test_complete_after_abort_is_an_upload_that_is_gone(storage: S3Storage, upload: Content) -> None:
    send_all(storage, upload)
    storage.abort(upload.ref)
    with pytest.raises(UploadGone):
        storage.complete(upload.ref, upload.hashes, nothing)


def test_concurrent_completes_make_one_object(storage: S3Storage, upload: Content) -> None:
    send_all(storage, upload)
    barrier = threading.Barrier(4)

    def complete() -> object:
        barrier.wait()
        try:
            return storage.complete(upload.ref, upload.hashes, nothing).verified
        except StorageError as ex:
            return type(ex)

    with ThreadPoolExecutor(4) as pool:
        outcomes = {outcome.result() for outcome in [pool.submit(complete) for _ in range(4)]}
    assert True in outcomes
    assert outcomes <= {True, CompleteDoubtful}, "never wrong, at most to be settled"
    assert read(storage, complete_at_last(storage, upload)) == upload.data


# -- other credentials


def whole_way(storage: S3Storage) -> None:
    """Probe, upload, complete, read by the edge's URL, delete."""
    assert storage.probe()
    content = Content(os.urandom(2 * PART), binds_hash=True)
    content.open(storage)
    send_all(storage, content)
    assert storage.complete(content.ref, content.hashes, nothing).verified
    assert read(storage, content.ref.object_key) == content.data
    url = urlsplit(storage.internal_uri(content.ref.object_key))
    connection = http.client.HTTPConnection(url.netloc, timeout=20)
    connection.request("GET", f"{url.path}?{url.query}")
    assert connection.getresponse().read() == content.data
    connection.close()
    storage.delete(content.ref.object_key)


def test_the_bucket_as_a_host(s3_config: S3Config, monkeypatch: pytest.MonkeyPatch) -> None:
    port = urlsplit(s3_config.endpoint).port
    look_up = socket.getaddrinfo
    hosts: set[str] = set()

    def localhost(host: str, *arguments: Any, **more: Any) -> Any:
        hosts.add(host)
        return look_up("127.0.0.1" if host.endswith(".localhost") else host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", localhost)
    virtual = replace(s3_config, endpoint=f"http://localhost:{port}", virtual_hosted=True)
    whole_way(S3Storage(virtual, lambda: PREFIX))
    assert f"{s3_config.bucket}.localhost" in hosts


@pytest.fixture(scope="session")
def session_config(ceph: Ceph, s3_config: S3Config) -> S3Config:
    """Temporary keys for 15 minutes, with a session token."""

    def document(statement: dict[str, object]) -> str:
        # RGW 16 does not decode the '+' of a form's spaces (ceph/ceph PR 55329)
        return json.dumps({"Version": "2012-10-17", "Statement": [statement]}, separators=(",", ":"))

    trust = document(
        {"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/sluice"]}, "Action": ["sts:AssumeRole"]}
    )
    rights = document({"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]})
    ceph.run("admin", "caps", "add", "--uid", "sluice", "--caps", "roles=*")
    ceph.run("admin", "role", "create", "--role-name=borrower", "--path=/", f"--assume-role-policy-doc={trust}")
    ceph.run("admin", "role-policy", "put", "--role-name=borrower", "--policy-name=all", f"--policy-doc={rights}")
    sts = boto3.client(
        "sts",
        endpoint_url=s3_config.endpoint,
        aws_access_key_id=s3_config.access_key,
        aws_secret_access_key=s3_config.secret_key,
        region_name=s3_config.region,
    )
    lent = sts.assume_role(RoleArn="arn:aws:iam:::role/borrower", RoleSessionName="session", DurationSeconds=900)
    keys = lent["Credentials"]
    return replace(
        s3_config,
        access_key=keys["AccessKeyId"],
        secret_key=keys["SecretAccessKey"],
        session_token=keys["SessionToken"],
    )


def test_lent_keys_sign_and_work(session_config: S3Config) -> None:
    whole_way(S3Storage(session_config, lambda: PREFIX))


def test_lent_keys_are_nothing_without_their_token(session_config: S3Config) -> None:
    for token in ("", session_config.session_token[:-8] + "AAAAAAA="):
        with pytest.raises(StorageError):
            S3Storage(replace(session_config, session_token=token), lambda: PREFIX).probe()
