"""Folders with things in them that cannot be uploaded; targets that are no new file; homes that cannot be written."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from sluice import Client, LocalError

from tests.client.conftest import PASSWORD, SLUICE, Command
from tests.e2e.sources import PART, Sources

NOBODY = 65534


def as_nobody(command: Command, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A run by a user whom permissions hold back: tests may be root."""
    for folder in (command.home, *command.home.rglob("*"), command.folder):
        os.chown(folder, NOBODY, NOBODY)
    for folder in (command.folder, *command.folder.parents):
        if folder != Path("/") and folder.owner() == "root" and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    return subprocess.run(
        [*SLUICE, *arguments],
        env={**command.environment, **environment},
        cwd=command.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        user=NOBODY if os.geteuid() == 0 else None,
        timeout=60,
        check=False,
    )


def names(command: Command) -> list[str]:
    return [json.loads(line)["name"] for line in command.run("ls", "--json").stdout.splitlines()]


@pytest.fixture
def tree(command: Command) -> Path:
    """d with two files, and one below."""
    tree = command.folder / "d"
    (tree / "sub").mkdir(parents=True)
    for path in (tree / "a", tree / "b", tree / "sub" / "c"):
        path.write_text(path.name)
    return tree


def test_what_may_not_be_read_is_told_and_the_rest_goes_up(command: Command, tree: Path) -> None:
    (tree / "closed").mkdir()
    (tree / "closed" / "x").write_text("x")
    (tree / "secret").write_text("x")
    (tree / "closed").chmod(0)
    (tree / "secret").chmod(0)
    result = as_nobody(command, "put", "-r", "d")
    assert result.returncode == 15
    lines = result.stderr.splitlines()
    assert [line for line in lines if "d/closed" in line and "Permission denied" in line]
    assert [line for line in lines if "secret" in line and "may not be read" in line]
    assert lines[-1] == "sluice: 2 of 5 files failed"
    assert names(command) == ["d:a", "d:b", "d:sub:c"]


def test_what_is_no_file_is_told_and_the_rest_goes_up(command: Command, tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    (tree / "dangling").symlink_to("nothing")
    (tree / "loop").symlink_to("loop")
    (tree / "linked").symlink_to("sub")
    (tree / "file link").symlink_to("a")
    (tree / "device").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(tree)
        listener.bind("socket")
        os.chdir(here)
    result = command.run("put", "-r", "d", code=15)
    told = dict(line.removeprefix("sluice: ").split(": ", 1) for line in result.stderr.splitlines()[:-1])
    assert {path.removeprefix("d/"): why for path, why in told.items()} == {
        "pipe": "is a pipe, and no file",
        "dangling": "is a link to nothing",
        "loop": "cannot be read: Too many levels of symbolic links",
        "linked": "is a link to a folder (--follow-links takes what is in it)",
        "device": "is a device, and no file",
        "socket": "is a socket, and no file",
    }
    assert result.stderr.splitlines()[-1] == "sluice: 6 of 10 files failed"
    assert names(command) == ["d:a", "d:b", "d:file link", "d:sub:c"]
    as_json = [json.loads(line) for line in command.run("put", "-r", "d", "--json", code=15).stdout.splitlines()]
    assert sorted(line["exit_code"] for line in as_json if "error" in line) == [1] * 6


def test_links_to_folders_are_followed_if_that_is_asked_for(command: Command, tree: Path) -> None:
    (tree / "linked").symlink_to("sub")
    (tree / "sub" / "up").symlink_to("..")
    result = command.run("put", "-r", "--follow-links", "d", code=15)
    assert result.stderr.count("is a link to a folder that it lies in") == 2
    assert names(command) == ["d:a", "d:b", "d:linked:c", "d:sub:c"]


def test_files_that_vanish_are_told(
    command: Command, tree: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the walk and the upload."""
    from sluice.cli.main import run
    from sluice.cli.walk import Walk

    real = Walk.of

    def vanishing(self: Walk, arguments: tuple[str, ...]):  # type: ignore[no-untyped-def]
        for found in real(self, arguments):
            if found.name == "d:b":
                (tree / "b").unlink()
            yield found

    monkeypatch.setattr(Walk, "of", vanishing)
    monkeypatch.chdir(command.folder)
    for name, value in command.environment.items():
        monkeypatch.setenv(name, value)
    assert run(["put", "-rq", "d"]) == 15
    assert names(command) == ["d:a", "d:sub:c"]


def test_exclude_and_dry_run(command: Command, tree: Path) -> None:
    (tree / ".git").mkdir()
    (tree / ".git" / "x").write_text("x")
    (tree / "a.tmp").write_text("x")
    arguments = ("put", "-r", "d", "--exclude", ".git", "-x", "*.tmp", "-x", "sub/c")
    told = [json.loads(line) for line in command.run(*arguments, "--dry-run", "--json").stdout.splitlines()]
    assert [(line["name"], line["existing"]) for line in told] == [("d:a", False), ("d:b", False)]
    assert names(command) == []
    command.run(*arguments)
    assert names(command) == ["d:a", "d:b"]
    (tree / "b").write_text("another")
    told = [json.loads(line) for line in command.run(*arguments, "--dry-run", "--json").stdout.splitlines()]
    assert [(line["name"], line["existing"]) for line in told] == [("d:a", True), ("d:b", False)]


def test_a_copy_of_a_folder_is_as_many_files(command: Command) -> None:
    for folder in ("a", "b"):
        (command.folder / folder).mkdir()
        for number in range(40):
            (command.folder / folder / str(number)).write_text(f"content {number}")
    for folder in ("a", "b", "b"):
        command.run("put", "-rq", folder)
    assert len(names(command)) == 80


def test_a_folder_is_named_exactly(command: Command) -> None:
    folder = command.folder / "d"
    folder.mkdir()
    for name in ("*", "1", "2"):
        (folder / name).write_text(name)
    command.run("put", "-rq", "d")
    command.run("put", "-q", "d/1", "--name", "dd:1")
    command.run("get", "-rq", "d:", "-o", "back")
    assert sorted(path.name for path in (command.folder / "back" / "d").iterdir()) == ["*", "1", "2"]
    assert [path.name for path in (command.folder / "back").iterdir()] == ["d"]
    command.run("get", "-r", "e:", code=4)


def test_check_compares_a_folder_with_the_server(command: Command, tree: Path) -> None:
    command.run("put", "-rq", "d")
    assert command.run("check", "d").stdout == "3 files are the same\n"
    (tree / "a").write_text("another")
    (tree / "new").write_text("new")
    (tree / "b").unlink()
    told = [json.loads(line) for line in command.run("check", "d", "--json", code=15).stdout.splitlines()]
    assert {line["name"]: line["state"] for line in told} == {
        "d:a": "different",
        "d:b": "only there",
        "d:new": "missing",
        "d:sub:c": "same",
    }
    text = command.run("check", "d", code=15)
    assert [line.split()[0] for line in text.stdout.splitlines()] == ["different", "missing", "only"]
    assert "1 different, 1 missing, 1 only there, 1 same" in text.stderr
    command.run("check", "d/sub/c", code=15)  # under its file name it is not on the server
    command.run("check", "nothing", code=1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("film.mp4", "video/mp4"),
        ("FILM.MP4", "video/mp4"),
        ("a.b.webm", "video/webm"),
        ("song.opus", "audio/ogg"),
        ("photo.jpeg", "image/jpeg"),
        ("x.tar.gz", "application/gzip"),
        ("x.json", "application/json"),
        ("README", "application/octet-stream"),
        (".profile", "application/octet-stream"),
        ("strange.ending", "application/octet-stream"),
    ],
)
def test_the_type_follows_from_the_name(command: Command, client: Client, name: str, kind: str) -> None:
    (command.folder / name).write_bytes(os.urandom(10))
    command.run("put", name)
    assert client.stat(name).content_type == kind
    command.run("put", name, "--name", "other.png", "--content-type", "text/x-mine")
    assert client.stat("other.png").content_type == "text/x-mine"


def test_the_type_of_files_that_go_together(command: Command, client: Client) -> None:
    folder = command.folder / "d"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.html").write_text(f"{number}")
    command.run("put", "-rq", "d")
    assert {file.content_type for file in client.files()} == {"text/html"}


# -- the path of a download


def test_devices_and_pipes_are_written_into(command: Command, client: Client, sources: Sources) -> None:
    source = sources.make(PART + 3, "device")
    client.upload(source.path, "f")
    for force in ((), ("-f",)):
        command.run("get", "f", "-o", "/dev/null", *force)
        assert not Path("/dev/null").is_file()
    path, found = command.folder / "pipe", []
    os.mkfifo(path)
    thread = threading.Thread(target=lambda: found.append(path.read_bytes()))
    thread.start()
    command.run("get", "f", "-o", "pipe")
    thread.join(20)
    assert found == [source.path.read_bytes()]
    assert path.is_fifo()
    assert command.run("get", "f", "-o", "/dev/full", code=11).stderr.count("\n") == 1
    assert "--force" not in command.run("get", "f", "-o", "/dev/full", code=11).stderr
    assert sorted(path.name for path in command.folder.iterdir()) == ["pipe"]


def test_descriptors_are_written_into(command: Command, client: Client) -> None:
    client.upload(b"content", "f")
    for target in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        assert command.run("get", "-q", "f", "-o", target).stdout == "content"
        with (command.folder / "file").open("wb") as file:
            subprocess.run([*SLUICE, "get", "-q", "f", "-o", target], env=command.environment, stdout=file, check=True)
        assert (command.folder / "file").read_text() == "content"


def test_a_socket_and_a_folder_are_refused(client: Client, tmp_path: Path) -> None:
    file = client.upload(b"content", "f").file
    (tmp_path / "f").mkdir()
    with pytest.raises(LocalError, match="folder"):
        client.download(file, tmp_path, overwrite=True)
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(tmp_path):
        listener.bind("socket")
        with pytest.raises(LocalError, match="socket"):
            client.download(file, "socket", overwrite=True)


def test_a_link_stays_a_link(client: Client, tmp_path: Path) -> None:
    file = client.upload(b"content", "f").file
    (tmp_path / "real").write_text("old")
    for name, to in (("link", "real"), ("dangling", "not there yet")):
        (tmp_path / name).symlink_to(to)
        client.download(file, tmp_path / name, overwrite=True)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / to).read_text() == "content"


# -- a home that cannot be written


def with_password(command: Command, home: Path | None) -> Command:
    made = command.with_settings(URL=command.account.url, USERNAME=command.account.username, PASSWORD=PASSWORD)
    return made.with_settings(HOME=str(home)) if home else made


@pytest.mark.parametrize("where", ["/proc/nowhere", "/dev/null/x", "/sys/kernel/x"])
def test_a_session_is_kept_in_memory_with_a_note(command: Command, client: Client, where: str) -> None:
    (command.folder / "f").write_text("content")
    there = with_password(command, Path(where))
    result = there.run("put", "f")
    assert "the session is kept in memory" in result.stderr
    assert result.stderr.count("\n") == 1
    assert there.run("ls", "-q").stderr == ""
    assert client.read("f") == b"content"
    assert (
        "cannot be written"
        in there.run("login", "--password-stdin", stdin=PASSWORD, code=1 if "null" in where else None).stderr
    )


def test_a_user_without_a_home(command: Command) -> None:
    environment = {
        name: value for name, value in command.environment.items() if name not in ("HOME", "SLUICE_CLIENT_HOME")
    }
    settings = {"URL": command.account.url, "USERNAME": command.account.username, "PASSWORD": PASSWORD}
    result = subprocess.run(
        [*SLUICE, "ls"],
        env=environment | {f"SLUICE_CLIENT_{name}": value for name, value in settings.items()},
        cwd=command.folder,
        capture_output=True,
        text=True,
        user=54321 if os.geteuid() == 0 else None,
        check=False,
    )
    if os.geteuid() == 0:
        assert (result.returncode, result.stderr.count("\n")) == (0, 1), result.stderr
    assert list(command.folder.iterdir()) == []


def test_a_session_in_a_home_that_became_read_only_is_used_and_not_renewed(command: Command) -> None:
    (path,) = (command.home / "credentials").glob("*.json")
    kept = json.loads(path.read_text())
    kept[command.account.url]["renew_at"] = 0.0
    path.write_text(json.dumps(kept))
    for folder in (command.home, command.home / "credentials"):
        folder.chmod(0o500)
    before = path.read_text()
    result = as_nobody(command, "whoami")
    assert result.returncode in (0, 12), result.stderr
    assert path.read_text() == before
    result = as_nobody(command, "whoami", SLUICE_CLIENT_PASSWORD=PASSWORD)
    assert (result.returncode, "kept in memory" in result.stderr) == (0, True), result.stderr
    assert path.read_text() == before
