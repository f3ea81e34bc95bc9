"""Content of every size goes up and comes back the same, by the SDK, on local storage."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest
from sluice import Client, ConfigError, DigestMismatch, File, LocalError, NotFound, Progress

from tests.client.conftest import Account
from tests.e2e.gateway import Gateway
from tests.e2e.sources import MIB, PART, Source, Sources

SIZES = [0, 1, 4096, MIB, PART - 1, PART, PART + 1, 3 * PART, 5 * PART + 12345]


def same(client: Client, file: File, source: Source, path: Path) -> bool:
    """Whether a download gives the source's bytes."""
    found = client.download(file, path)
    return hashlib.sha256(found.read_bytes()).hexdigest() == source.sha256


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("instant", ["never", "always"])
def test_a_file_goes_up_and_comes_back(
    account: Account, sources: Sources, tmp_path: Path, size: int, instant: str
) -> None:
    source = sources.make(size, f"{instant} {size}")
    with account.client(instant=instant) as client:
        result = client.upload(source.path)
        assert (result.file.name, result.file.size, result.file.digest) == (source.path.name, size, source.digest)
        assert (result.sent, result.kept, result.instant) == (size, 0, False)
        assert same(client, result.file, source, tmp_path / "back")
        assert client.read(result.file) == source.path.read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["back", "sources"], "no .part is left"


def test_bytes_file_objects_and_streams_are_uploaded(client: Client, sources: Sources) -> None:
    source = sources.make(PART + 7, "objects")
    data = source.path.read_bytes()
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as pipe:
        pipe.write(data[:1000])
    with source.path.open("rb") as file, os.fdopen(read_end, "rb") as stream:
        digests = [
            client.upload(data, "of bytes").file.digest,
            client.upload(memoryview(data), "of a view").file.digest,
            client.upload(io.BytesIO(data), "of an object").file.digest,
            client.upload(file).file.digest,
        ]
        assert client.read(client.upload(stream, "of a pipe").file) == data[:1000]
    assert digests == [source.digest] * 4
    with pytest.raises(ConfigError, match="needs a name"):
        client.upload(b"nameless")


def test_content_that_the_server_has_is_not_sent(account: Account, sources: Sources, gateway: Gateway) -> None:
    source = sources.make(2 * PART + 5, "instant")
    from tests.client.conftest import sign_up

    with account.client(instant="always") as first, sign_up(gateway.address).client(instant="always") as second:
        first.upload(source.path)
        told: list[Progress] = []
        result = second.upload(source.path, "mine", on_progress=told.append)
    assert (result.instant, result.sent) == (True, 0)
    assert result.file.digest == source.digest
    assert told[-1].stage == "done"
    assert told[-1].instant
    assert max(progress.hashed for progress in told) == source.size


def test_progress_adds_up(client: Client, sources: Sources, tmp_path: Path) -> None:
    source = sources.make(3 * PART + 99, "progress")
    up: list[Progress] = []
    down: list[Progress] = []
    file = client.upload(source.path, on_progress=up.append).file
    client.download(file, tmp_path / "back", on_progress=down.append)
    assert [told.moved for told in up] == sorted(told.moved for told in up)
    assert (up[-1].moved, up[-1].hashed, up[-1].stage) == (source.size, source.size, "done")
    assert (down[-1].moved, down[-1].stage) == (source.size, "done")


def test_a_link_is_downloaded_without_signing_in(client: Client, sources: Sources, tmp_path: Path) -> None:
    source = sources.make(PART + 1, "link")
    url = client.link(client.upload(source.path, "dé jà.bin").file).url
    with Client(client.url) as stranger:
        path = stranger.download(url, tmp_path)
        assert path == tmp_path / "dé jà.bin"
        assert path.read_bytes() == source.path.read_bytes()
        with pytest.raises(NotFound):
            stranger.download(f"{client.url}/nothing/here", tmp_path)


def test_a_file_that_is_there_is_left_alone(client: Client, tmp_path: Path) -> None:
    file = client.upload(b"content", "name").file
    path = tmp_path / "name"
    path.write_bytes(b"CONTENT")
    with pytest.raises(LocalError, match="other content"):
        client.download(file, path)
    assert path.read_bytes() == b"CONTENT"
    assert client.download(file, path, overwrite=True).read_bytes() == b"content"
    before = path.stat().st_mtime_ns
    assert client.download(file, path).stat().st_mtime_ns == before


def test_files_are_listed_found_renamed_deleted_and_restored(client: Client) -> None:
    files = [client.upload(f"{number}".encode(), f"n{number}").file for number in range(3)]
    assert [file.name for file in client.files()] == ["n0", "n1", "n2"]
    assert client.stat("n1") == client.stat(files[1].id) == files[1]
    assert client.rename("n1", "m1").name == "m1"
    client.delete("m1")
    assert [file.name for file in client.files(trashed=True)] == ["m1"]
    with pytest.raises(NotFound):
        client.stat("m1")
    assert client.restore(files[1]).name == "m1"
    assert [file.name for file in client.files("M")] == ["m1"]
    assert [file.name for file in client.by_digest(files[0].digest)] == ["n0"]


def test_wrong_bytes_are_never_given_the_files_name(client: Client, gateway: Gateway, tmp_path: Path) -> None:
    before = gateway.objects().keys()
    file = client.upload(os.urandom(PART + 10), "damaged").file
    (key,) = gateway.objects().keys() - before
    stored = gateway.storage / "objects" / key
    right = stored.read_bytes()
    os.chmod(stored, 0o600)
    try:
        stored.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
        with pytest.raises(DigestMismatch):
            client.download(file, tmp_path)
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(DigestMismatch):
            client.read(file)
    finally:
        stored.write_bytes(right)
    assert client.download(file, tmp_path).stat().st_size == PART + 10
