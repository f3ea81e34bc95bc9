"""Uploads of other objects than files: each is stored exactly as it reads, and none as empty content."""

from __future__ import annotations

import array
import bz2
import contextlib
import gzip
import hashlib
import io
import json
import lzma
import mmap
import os
import socket
import subprocess
import tarfile
import tempfile
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sluice import Client, ConfigError, LocalError
from sluice.content import opened
from sluice.stream import Stream

from tests.client.conftest import SLUICE, Account, Command
from tests.e2e.gateway import Gateway
from tests.e2e.sources import MIB, PART, Sources

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
"""The objects that are opened here for one upload are closed by the garbage collector."""
DATA = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(3000))
"""96,000 bytes."""


# -- by the command: paths that are no regular files


def stored(command: Command, name: str) -> bytes:
    """Returns the content that the server has under a name."""
    result = subprocess.run(
        [*SLUICE, "cat", name], env=command.environment, capture_output=True, check=True, timeout=60
    )
    return result.stdout


@contextlib.contextmanager
def written(path: Path, data: bytes) -> Iterator[None]:
    """Writes into a pipe, beside the test."""
    thread = threading.Thread(target=lambda: path.write_bytes(data))
    thread.start()
    yield
    thread.join(20)


@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["empty", "one byte", "more than a pipe holds"])
def test_a_pipe_is_read_to_its_end(command: Command, data: bytes) -> None:
    path = command.folder / "pipe"
    os.mkfifo(path)
    with written(path, data):
        command.run("put", "pipe")
    assert stored(command, "pipe") == data


def test_a_process_substitution_is_read_to_its_end(command: Command) -> None:
    words = " ".join(SLUICE)
    line = f"{words} put <(echo Test) --name substituted"
    subprocess.run(["bash", "-c", line], env=command.environment, check=True, capture_output=True, timeout=60)
    assert stored(command, "substituted") == b"Test\n"


@pytest.mark.parametrize(
    "path", ["/proc/version", "/proc/sys/kernel/ostype", "/sys/kernel/mm/transparent_hugepage/enabled"]
)
def test_files_that_say_a_size_that_is_not_theirs(command: Command, path: str) -> None:
    """procfs says 0 of everything, sysfs 4096."""
    command.run("put", path, "--name", "special")
    assert stored(command, "special") == Path(path).read_bytes() != b""
    assert (
        command.run("digest", path).stdout.split()[0]
        == json.loads(command.run("stat", "special", "--json").stdout)["digest"]
    )


def test_a_block_device_is_read_to_its_end_or_refused(command: Command) -> None:
    command.run("put", "/dev/null", "--name", "nothing")
    assert stored(command, "nothing") == b""
    devices = [path for path in sorted(Path("/dev").glob("loop[0-9]*")) if path.is_block_device()]
    for device in devices[:1]:
        process = command.start("put", str(device), "--name", "device")
        _, told = process.communicate(timeout=60)
        if process.returncode == 0:
            assert stored(command, "device") == device.read_bytes() != b""
        else:
            assert "without content" in told or "cannot be read" in told or "may not be read" in told


def test_what_cannot_be_read_is_said(command: Command) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(command.folder)
        listener.bind("socket")
        os.chdir(here)
        assert "it is a socket" in command.run("put", "socket", code=1).stderr
    (command.folder / "nowhere").symlink_to("gone")
    assert "nowhere" in command.run("put", "nowhere", code=1).stderr
    assert "folder" in command.run("put", "/proc", code=2).stderr
    assert command.run("ls").stdout == ""


# -- by the command: standard input


def piped(command: Command, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*SLUICE, "put", "-", "--name", "stream", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**command.environment, **(environment or {})},
        cwd=command.folder,
    )


@pytest.mark.parametrize("size", [0, 1, PART, 2 * PART - 1, 2 * PART, 2 * PART + 1, 5 * PART, 5 * PART + 77])
def test_streams_of_every_length(command: Command, sources: Sources, size: int) -> None:
    source = sources.make(size, f"stream {size}")
    with source.path.open("rb") as file, piped(command, "--json") as process:
        assert process.stdin is not None
        while data := file.read(300_001):
            process.stdin.write(data)
        told, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    file_told = json.loads(told)["file"]
    assert (file_told["size"], file_told["digest"]) == (size, source.digest)
    assert hashlib.sha256(stored(command, "stream")).hexdigest() == source.sha256


def test_a_stream_is_sent_while_it_comes_and_touches_no_disk(
    command: Command, gateway: Gateway, client: Client
) -> None:
    """Parts are at the server before the end is written; the folder for temporary files does not exist."""
    part = os.urandom(MIB) * (PART // MIB)
    with piped(command, environment={"TMPDIR": "/nonexistent"}) as process:
        assert process.stdin is not None
        for _ in range(5):
            process.stdin.write(part)
        process.stdin.flush()
        while (
            not (found := [client.upload_status(each) for each in client.uploads("uploading")]) or not found[0].received
        ):
            assert process.poll() is None
        process.stdin.write(b"the end")
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert client.stat("stream").size == 5 * PART + 7
    assert list(client.uploads("uploading")) == []


def test_a_long_stream_takes_memory_for_a_few_parts_and_outgrows_its_first_size(command: Command) -> None:
    code = (
        "import re, sys; from sluice.__main__ import main; code = main();"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr); sys.exit(code)"
    )
    count = 600  # MiB: more than the size that the upload is made with
    line = f'head -c {count}M /dev/zero | {SLUICE[0]} -c "{code}" put - --name zeros -q'
    result = subprocess.run(
        ["bash", "-c", line], env=command.environment, capture_output=True, text=True, check=True, timeout=200
    )
    assert int(result.stderr.split()[-1]) < 120 * 1024, "KiB"
    assert json.loads(command.run("stat", "zeros", "--json").stdout)["size"] == count * MIB


def test_a_stream_that_is_interrupted_leaves_nothing(command: Command, client: Client) -> None:
    import signal

    with piped(command) as process:
        assert process.stdin is not None
        process.stdin.write(bytes(3 * PART))
        process.stdin.flush()
        while not list(client.uploads("uploading")):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    assert list(client.uploads("uploading")) == []
    assert list(client.files()) == []


def test_a_stream_that_is_there_already_is_not_stored_twice(account: Account, sources: Sources) -> None:
    source = sources.make(3 * PART + 5, "known stream")
    with account.client() as client:
        file = client.upload(source.path, "known").file
        with source.path.open("rb") as content, gzip_of(content, source.path.parent) as packed:
            result = client.upload(packed, "known", known=[file])
        assert (result.file, result.existing) == (file, True)
        assert len(list(client.files())) == 1
        assert list(client.uploads("uploading")) == []


@contextlib.contextmanager
def gzip_of(content: Any, folder: Path) -> Iterator[gzip.GzipFile]:
    path = folder / "packed.gz"
    with gzip.open(path, "wb", compresslevel=1) as packed:
        packed.write(content.read())
    with gzip.open(path) as found:
        yield found


# -- by the SDK: file objects


class Odd:
    """A custom object, whose `read` returns fewer or more bytes than were asked for."""

    def __init__(self, give: Callable[[int], int]) -> None:
        self._data, self._give = io.BytesIO(DATA), give

    def read(self, size: int = -1) -> bytes:
        return self._data.read(self._give(size))


class Louder(io.BytesIO):
    """A subclass that overrides ``read``."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size).replace(b"a", b"A")


def _packed(module: Any, folder: Path) -> Any:
    path = folder / "x.packed"
    with module.open(path, "wb") as file:
        file.write(DATA)
    return module.open(path)


def _spooled(folder: Path, most: int) -> Any:
    found = tempfile.SpooledTemporaryFile(most)  # noqa: SIM115
    found.write(DATA)
    found.seek(0)
    return found


def _unflushed(folder: Path) -> Any:
    """The last bytes are in the object's buffer, and not in the file."""
    found = (folder / "unflushed").open("w+b")
    found.write(DATA[:-3])
    found.flush()
    found.seek(0, os.SEEK_END)
    found.write(DATA[-3:])
    found.seek(0)
    return found


def _named(folder: Path) -> Any:
    found = tempfile.NamedTemporaryFile(dir=folder)  # noqa: SIM115
    found.write(DATA)
    found.seek(0)
    return found


def _plain(folder: Path, **how: Any) -> Any:
    (folder / "plain").write_bytes(DATA)
    return (folder / "plain").open("rb", **how)


def _member(folder: Path) -> Any:
    with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", DATA)
    return zipfile.ZipFile(folder / "x.zip").open("member")


def _tar_member(folder: Path) -> Any:
    _plain(folder).close()
    with tarfile.open(folder / "x.tar.gz", "w:gz") as archive:
        archive.add(folder / "plain", "member")
    return tarfile.open(folder / "x.tar.gz").extractfile("member")


def _mapped(folder: Path) -> Any:
    with _plain(folder) as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _pipe(folder: Path) -> Any:
    read_end, write_end = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(write_end, "wb") as file:
            file.write(DATA)

    threading.Thread(target=write).start()
    return os.fdopen(read_end, "rb")


def _socket(folder: Path) -> Any:
    here, there = socket.socketpair()

    def send() -> None:
        with there:
            there.sendall(DATA)

    threading.Thread(target=send).start()
    file = here.makefile("rb")
    here.close()
    return file


def _response(folder: Path) -> Any:
    _plain(folder).close()
    return urllib.request.urlopen((folder / "plain").as_uri())  # noqa: S310


def _process(folder: Path) -> Any:
    _plain(folder).close()
    return subprocess.Popen(["cat", folder / "plain"], stdout=subprocess.PIPE).stdout


KINDS: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda folder: DATA,
    "bytearray": lambda folder: bytearray(DATA),
    "memoryview": lambda folder: memoryview(DATA),
    "array": lambda folder: array.array("I", DATA),
    "path": lambda folder: Path(_plain(folder).name),
    "text path": lambda folder: _plain(folder).name,
    "BytesIO": lambda folder: io.BytesIO(DATA),
    "BufferedReader": _plain,
    "FileIO": lambda folder: _plain(folder, buffering=0),
    "BufferedReader of BytesIO": lambda folder: io.BufferedReader(io.BytesIO(DATA)),
    "BufferedRandom, not flushed": _unflushed,
    "NamedTemporaryFile": _named,
    "SpooledTemporaryFile in memory": lambda folder: _spooled(folder, 10**6),
    "SpooledTemporaryFile on the disk": lambda folder: _spooled(folder, 10),
    "gzip": lambda folder: _packed(gzip, folder),
    "bz2": lambda folder: _packed(bz2, folder),
    "lzma": lambda folder: _packed(lzma, folder),
    "member of a zip": _member,
    "member of a tar.gz": _tar_member,
    "mmap": _mapped,
    "pipe": _pipe,
    "socket": _socket,
    "response": _response,
    "output of a process": _process,
    "an object that gives little": lambda folder: Odd(lambda size: min(size, 7)),
    "an object that gives more": lambda folder: Odd(lambda size: size + 1000),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skipped", [0, 1000])
def test_what_read_gives_from_where_the_object_stands_is_stored(
    client: Client, tmp_path: Path, kind: str, skipped: int
) -> None:
    content = KINDS[kind](tmp_path)
    wanted = DATA
    if skipped:
        if not hasattr(content, "read") or isinstance(content, Path | Odd):
            pytest.skip("it stands nowhere")
        assert content.read(skipped) == DATA[:skipped]
        wanted = DATA[skipped:]
    file = client.upload(content, "kind").file
    assert file.size == len(wanted)
    assert client.read(file) == wanted


@pytest.mark.parametrize(
    "kind", ["BufferedReader", "BytesIO", "gzip", "mmap", "pipe", "socket", "response", "an object that gives more"]
)
def test_large_content_of_every_kind_is_sent_in_parts(
    client: Client, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "DATA", os.urandom(MIB) * 17)
    content = KINDS[kind](tmp_path)
    assert client.read(client.upload(content, "large").file) == DATA


def test_an_object_of_ones_own_is_read_by_its_read(client: Client) -> None:
    assert client.read(client.upload(Louder(b"banana"), "loud").file) == b"bAnAnA"


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: (folder / "t").open("w+"),
        lambda folder: io.StringIO("text"),
        lambda folder: tempfile.TemporaryFile("w+"),  # noqa: SIM115
        lambda folder: tempfile.SpooledTemporaryFile(mode="w+"),  # noqa: SIM115
        lambda folder: gzip.open(folder / "t.gz", "wt"),  # noqa: SIM115
        lambda folder: (folder / "t").open("wb"),
        lambda folder: _closed(folder),
        lambda folder: 7,
        lambda folder: None,
        lambda folder: ["a list"],
    ],
)
def test_what_gives_no_bytes_is_refused(client: Client, tmp_path: Path, make: Callable[[Path], Any]) -> None:
    with pytest.raises(ConfigError):
        client.upload(make(tmp_path), "name")
    assert list(client.files()) == []


def _closed(folder: Path) -> Any:
    file = _plain(folder)
    file.close()
    return file


def test_a_file_objects_descriptor_is_used_only_if_it_is_known_to_be_plain(tmp_path: Path) -> None:
    for kind, is_stream in (
        ("BufferedReader", False),
        ("FileIO", False),
        ("BytesIO", False),
        ("mmap", False),
        ("gzip", True),
        ("pipe", True),
    ):
        with opened(KINDS[kind](tmp_path), "x") as found:
            assert isinstance(found, Stream) is is_stream, kind


def test_content_needs_a_name_unless_it_is_a_file(client: Client, tmp_path: Path) -> None:
    for content in (b"nameless", io.BytesIO(b"nameless"), _packed(gzip, tmp_path)):
        with pytest.raises(ConfigError, match="needs a name"):
            client.upload(content)
    with _plain(tmp_path) as file:
        assert client.upload(file).file.name == "plain"


def test_a_read_that_fails_stores_nothing(client: Client) -> None:
    class Broken:
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            if self.given > 3 * PART:
                raise OSError("the tape is torn")
            return bytes(size)

    with pytest.raises(LocalError, match="the tape is torn"):
        client.upload(Broken(), "torn")
    assert list(client.files()) == []
    assert list(client.uploads("uploading")) == []
