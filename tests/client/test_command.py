"""The command as a person or a script runs it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import threading

from tests.client.conftest import SLUICE, Command
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


def test_bars_are_for_terminals_and_results_for_files(command: Command, sources: Sources) -> None:
    source = sources.make(2 * PART, "bars")
    controller, terminal = pty.openpty()
    shown = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # the terminal's other end was closed
            while data := os.read(controller, 65536):
                shown.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    with (command.folder / "results").open("w") as results:
        process = subprocess.Popen(
            [*SLUICE, "put", str(source.path), "--name", "bars", "--limit-rate", "20M"],
            env=command.environment | {"TERM": "xterm", "COLUMNS": "120"},
            cwd=command.folder,
            stdout=results,
            stderr=terminal,
        )
        assert process.wait(30) == 0
    os.close(terminal)
    reader.join()
    os.close(controller)
    assert "MiB" in shown.decode(errors="replace")
    assert "bars" in shown.decode(errors="replace")
    assert (command.folder / "results").read_text() == "bars  (16.0 MiB)\n"


def test_of_several_files_of_one_name_the_newest_is_brought(command: Command) -> None:
    for text in ("first", "second"):
        (command.folder / "a.txt").write_text(text)
        command.run("put", "-q", "a.txt")
    (command.folder / "a.txt").unlink()
    assert len(command.run("ls", "a.*").stdout.splitlines()) == 2
    command.run("get", "-q", "a.*")
    assert (command.folder / "a.txt").read_text() == "second"
