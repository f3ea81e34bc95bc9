"""The command as a person or a script runs it."""

from __future__ import annotations

import json

from tests.client.conftest import Command
from tests.e2e.sources import PART, Sources


def test_put_list_link_and_get(command: Command, sources: Sources) -> None:
    source = sources.make(PART + 3, "walk")
    assert "(8.0 MiB)" in command.run("put", str(source.path), "--name", "walk.bin").stdout
    assert "walk.bin" in command.run("ls").stdout
    url = command.run("link", "walk.bin").stdout.strip()
    command.run("get", url, "-o", "by link")
    command.run("get", "walk.bin")
    for name in ("by link", "walk.bin"):
        assert (command.folder / name).read_bytes() == source.path.read_bytes()
    assert command.run("whoami").stdout.startswith(command.account.username)
    assert command.run("digest", str(source.path)).stdout.split()[0] == source.digest
    command.run("mv", "walk.bin", "other.bin")
    assert json.loads(command.run("find", "OTHER", "--json").stdout)["digest"] == source.digest
    assert json.loads(command.run("du", "--json").stdout)["bytes"] == source.size
    command.run("rm", "other.bin")
    assert command.run("ls").stdout == ""
    assert "other.bin" in command.run("ls", "--trash").stdout


def test_a_folder_goes_up_and_comes_back(command: Command) -> None:
    for place in ("a", "a/b", "a/c d"):
        (command.folder / place).mkdir()
        for name in ("1", "ü €.txt"):
            (command.folder / place / name).write_text(f"{place} {name}")
    command.run("put", "-r", "a")
    assert len(command.run("ls", "a:*").stdout.splitlines()) == 6
    command.run("get", "-r", "a:*", "-o", "back")
    for path in (command.folder / "a").rglob("*"):
        if path.is_file():
            assert (command.folder / "back" / path.relative_to(command.folder)).read_text() == path.read_text()


def test_tokens_are_for_their_owner_alone(command: Command) -> None:
    (path,) = (command.home / "credentials").glob("*.json")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    command.run("logout")
    assert not path.exists()
    assert "sluice login" in command.run("ls", code=3).stderr
