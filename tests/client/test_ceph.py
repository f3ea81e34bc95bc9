"""On a real Ceph: every size, parts straight to radosgw, which is killed in the middle."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sluice import FileChanged
from sluice.calls import Calls

from tests.client.conftest import Account, sign_up
from tests.client.test_groups import files_of
from tests.client.test_rough import once_moved
from tests.e2e.conftest import running
from tests.e2e.gateway import Gateway
from tests.e2e.sources import MIB, PART, Sources
from tests.storage.ceph import Ceph
from tests.waiting import await_true

SIZES = [0, 1, PART - 1, PART, PART + 1, 5 * PART + 12345]


@pytest.fixture(scope="module")
def gateway(ceph: Ceph) -> Iterator[Gateway]:
    """A gateway whose new uploads go to Ceph."""
    with running({"SLUICE_STORAGES": "ceph:s3,local:local", **ceph.settings}) as made:
        await_true(lambda: "binds sha256" in _ready(made))
        yield made


def _ready(gateway: Gateway) -> str:
    return httpx.get(f"{gateway.address}/readyz", trust_env=False).text


@pytest.fixture
def account(gateway: Gateway) -> Account:
    return sign_up(gateway.address)


@pytest.mark.parametrize("instant", ["never", "always"])
def test_every_size_goes_up_and_comes_back(account: Account, sources: Sources, tmp_path: Path, instant: str) -> None:
    with account.client(instant=instant) as client:
        for size in SIZES:
            source = sources.make(size, f"ceph {instant}")
            result = client.upload(source.path)
            assert (result.file.digest, result.sent) == (source.digest, size)
            path = client.download(result.file, tmp_path / str(size))
            assert path.read_bytes() == source.path.read_bytes()


def test_small_files_are_one_put_each(account: Account, gateway: Gateway, tmp_path: Path) -> None:
    """Together or alone, through the edge; nothing is opened, and nothing is read back."""
    files = files_of(tmp_path / "sources", 10, 64 * 1024)
    with account.client() as client:
        results = client.upload_group(files[:9])
        results.append(client.upload(files[9].path))
        for file, result in zip(files, results, strict=True):
            assert result is not None
            assert (result.file.state, result.sent) == ("ready", file.size)
            assert client.read(result.file) == file.path.read_bytes()
            kinds = gateway.query("SELECT multipart_id FROM upload WHERE file_id = UNHEX(%s)", [result.file.id])
            assert kinds == [("single put",)]
    await_true(lambda: len(_parts(gateway)) >= 10)
    assert [(line["storage"], line["status"]) for line in _parts(gateway)[-10:]] == [("s3", 200)] * 10


def _parts(gateway: Gateway) -> list[dict[str, object]]:
    """Returns the lines of the edge's access log for parts of more than 64 KiB."""
    text = (gateway.data / "log" / "access.log").read_text()
    log = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in log if line["route"] == "part" and line["request_length"] > 64 * 1024]


def test_a_gigabyte_goes_up_and_comes_back(account: Account, sources: Sources, tmp_path: Path) -> None:
    source = sources.make(1024 * MIB, "ceph")
    with account.client() as client:
        result = client.upload(source.path)
        assert (result.file.digest, result.sent) == (source.digest, source.size)
        path = client.download(result.file, tmp_path / "back")
        with path.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == source.sha256
        client.delete(result.file)


def test_radosgw_dies_in_the_middle(account: Account, ceph: Ceph, sources: Sources, tmp_path: Path) -> None:
    source = sources.make(8 * PART, os.urandom(4).hex())
    starting: list[threading.Thread] = []

    def kill() -> None:
        ceph.kill("client.rgw")
        starting.append(threading.Thread(target=ceph.run, args=("start",)))
        starting[-1].start()

    with account.client(instant="never", parallel=2, limit_rate=60e6) as client:
        file = client.upload(source.path, on_progress=once_moved(2 * PART, kill)).file
        assert file.digest == source.digest
        path = client.download(file, tmp_path / "back", on_progress=once_moved(2 * PART, kill))
        assert path.read_bytes() == source.path.read_bytes()
    assert len(starting) == 2
    for thread in starting:
        thread.join()


def test_a_part_that_the_storage_has_is_not_sent_again(account: Account, gateway: Gateway, sources: Sources) -> None:
    """Ceph 16 never frees what a part's second copy took."""
    source = sources.make(6 * PART, os.urandom(4).hex())

    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    with account.client(instant="never", parallel=1) as client:
        with pytest.raises(Stop):
            client.upload(source.path, on_progress=once_moved(3 * PART + 5, stop))
        result = client.upload(source.path)
        assert result.kept >= 3 * PART
        assert result.sent + result.kept == source.size
        assert result.file.digest == source.digest


def test_the_etags_of_all_parts_go_with_complete(
    account: Account, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed upload does not know the earlier ETags: its complete names none."""
    told: list[dict[str, object]] = []
    real = Calls.call

    def call(self: Calls, method: str, path: str, body: Any = None, *rest: Any) -> Any:
        if path.endswith("/complete"):
            told.append((body or {}).get("etags", {}))
        return real(self, method, path, body, *rest)

    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    monkeypatch.setattr(Calls, "call", call)
    whole, resumed = (sources.make(3 * PART + 1, os.urandom(4).hex()) for _ in range(2))
    with account.client(instant="never", parallel=1) as client:
        assert client.upload(whole.path).file.digest == whole.digest
        md5s = [hashlib.md5(data, usedforsecurity=False).hexdigest() for data in _parts_of(whole.path)]
        assert told == [{str(number): f'"{md5}"' for number, md5 in enumerate(md5s, 1)}]
        with pytest.raises(Stop):
            client.upload(resumed.path, on_progress=once_moved(2 * PART + 5, stop))
        assert client.upload(resumed.path).file.digest == resumed.digest
        assert told[1:] == [{}]


def _parts_of(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [data[at : at + PART] for at in range(0, len(data), PART)]


def test_radosgw_itself_refuses_what_changed_on_the_way(account: Account, sources: Sources) -> None:
    source = sources.make(4 * PART, os.urandom(4).hex())
    times = source.path.stat()

    def change() -> None:
        with source.path.open("r+b") as file:
            file.seek(3 * PART + 5)
            file.write(b"changed")
        os.utime(source.path, ns=(times.st_atime_ns, times.st_mtime_ns))

    with account.client(instant="always", parallel=1, limit_rate=40e6) as client:
        with pytest.raises(FileChanged):
            client.upload(source.path, on_progress=once_moved(PART, change))
        assert list(client.files()) == []
