"""Outputs that are closed, full, gone, of another encoding, or a terminal; and Ctrl-C at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import random
import signal
import subprocess
import time

import pytest
from sluice import Client
from sluice.cli.streams import one_line

from tests.client.conftest import PYTHON, SLUICE, Command
from tests.e2e.sources import MIB

NAMES = ["plain", "Screenshot 2026-01-01 at 10.00.00\u202fAM.png", "名前\u3000ü €.txt", "e\u0301 \U0001f600"]
LOCALES: dict[str, dict[str, str]] = {
    "UTF-8": {"LC_ALL": "C.UTF-8"},
    "C": {"LC_ALL": "C"},
    "POSIX without coercion": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "ascii, strict": {"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "UTF-16": {"PYTHONIOENCODING": "utf-16"},
}


def shell(command: Command, line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of bash in which ``sluice`` is the command."""
    words = " ".join(SLUICE)
    return subprocess.run(
        ["bash", "-c", f'sluice() {{ {words} "$@"; }}; {line}'],
        env={**command.environment, **environment},
        cwd=command.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("locale", LOCALES)
def test_json_is_utf8_in_every_locale(command: Command, client: Client, locale: str) -> None:
    for name in NAMES:
        client.upload(b"x", name)
    result = shell(command, "sluice ls --json", **LOCALES[locale])
    assert (result.returncode, result.stderr) == (0, b"")
    assert sorted(json.loads(line)["name"] for line in result.stdout.decode().splitlines()) == sorted(NAMES)
    # and in text nothing ends it half-way
    result = shell(command, "sluice ls -l && sluice stat '*' && sluice find nothing", **LOCALES[locale])
    assert (result.returncode, result.stderr) == (0, b"")
    assert len(result.stdout.splitlines()) >= len(NAMES)
    result = shell(command, "sluice get -q '*'", **LOCALES[locale])
    brought = sorted(path.name for path in command.folder.iterdir())
    if locale.startswith("POSIX"):  # files have ASCII names there
        assert (result.returncode, brought) == (15, ["plain"])
        assert result.stderr.count(b"this locale has no such characters") == 3
    else:
        assert (result.returncode, brought) == (0, sorted(NAMES))


def test_names_in_a_pipe_are_the_files_names(command: Command, client: Client) -> None:
    for name in NAMES:
        client.upload(name.encode(), name)
    listed = shell(command, "sluice ls").stdout.decode().splitlines()
    assert sorted(line[30:] for line in listed) == sorted(NAMES)
    for line in listed:
        assert shell(command, f"sluice cat '{line[30:]}'").stdout.decode() == line[30:]


def test_local_names_of_other_bytes_stay_these_bytes(command: Command) -> None:
    name = b"latin \xe9.txt"
    with open(os.path.join(os.fsencode(command.folder), name), "wb") as file:
        file.write(b"x")
    result = shell(command, "sluice digest *")
    assert result.stdout.split(b"  ")[1] == name + b"\n"
    result = shell(command, "sluice digest * --json")
    assert json.loads(result.stdout)["path"].encode(errors="surrogateescape") == name
    result = shell(command, "sluice put *")
    assert (result.returncode, result.stderr.count(b"\n")) == (13, 1)
    result.stderr.decode()


def on_a_terminal(command: Command, *arguments: str) -> str:
    """Returns the output of a run on a terminal."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [*SLUICE, *arguments], env=command.environment | {"TERM": "xterm"}, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):
        while data := os.read(controller, 65536):
            shown += data
    os.close(controller)
    assert process.wait(20) == 0
    return shown.decode()


def test_a_terminal_obeys_no_name(command: Command, client: Client) -> None:
    for name in NAMES:
        client.upload(b"x", name)
    shown = on_a_terminal(command, "ls")
    for name in NAMES:
        assert name in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\\x0ab"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("tab\there", "tab\\x09here"),
        *((name, name) for name in NAMES),
        ("\u200f\u200e\u00ad\ufeff\u2028", "\u200f\u200e\u00ad\ufeff\u2028"),
    ],
)
def test_only_what_a_terminal_obeys_is_written_out(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_a_name_of_two_lines_makes_one_of_an_error(command: Command) -> None:
    for arguments, code in (
        (("get", "a\nb"), 4),
        (("put", "a\nb"), 1),
        (("link", "x\x1b[2J\r\n"), 4),
        (("mv", "a\nb", "c"), 4),
    ):
        assert len(command.run(*arguments, code=code).stderr.splitlines()) == 1
    (command.folder / "a\nb").mkdir()
    assert len(command.run("put", "a\nb", code=2).stderr.splitlines()) == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(command: Command, client: Client, closed: str) -> None:
    (command.folder / "f").write_text("content")
    for line in ("sluice put f", "sluice ls", "sluice get f -o back -f", "sluice ls --json", "sluice version"):
        result = shell(command, f"{line} {closed}")
        assert result.returncode == 0, (line, result.stderr)
        assert b"should not happen" not in result.stderr
    assert client.read("f") == b"content"
    assert (command.folder / "back").read_text() == "content"
    assert shell(command, f"sluice get nothing {closed}").returncode == 4


@pytest.mark.parametrize("line", ["sluice ls", "sluice ls --json", "sluice cat f", "sluice version", "sluice stat f"])
def test_an_output_that_is_full(command: Command, client: Client, line: str) -> None:
    client.upload(b"content", "f")
    result = shell(command, f"{line} > /dev/full")
    assert result.returncode == 11, result.stderr
    assert b"standard output: the disk is full" in result.stderr
    assert result.stderr.count(b"\n") == 1
    assert shell(command, "sluice get nothing 2> /dev/full").returncode == 4


@pytest.mark.parametrize("line", ["ls", "ls --json", "cat big", "get big -o -", "find f", "completion bash"])
def test_a_reader_that_has_gone(command: Command, client: Client, line: str) -> None:
    client.upload(os.urandom(MIB), "big")
    for number in range(3):
        client.upload(b"x", f"f{number}" + "x" * 200)
    result = shell(command, f"sluice {line} | true; exit ${{PIPESTATUS[0]}}")
    assert (result.returncode in (0, 141), result.stderr) == (True, b"")


# -- Ctrl-C


@pytest.mark.parametrize(
    "words", [("version",), ("put", "f"), ("ls",), ("get", "f", "-o", "-"), ("login", "{url}", "-u", "x")]
)
def test_ctrl_c_at_any_moment_of_the_start(command: Command, words: tuple[str, ...]) -> None:
    """Silent, from the package's first line on; Python's own start is not ours."""
    (command.folder / "f").write_bytes(os.urandom(100))
    script = "import sys; from sluice.__main__ import main; sys.exit(main())"  # as pip writes it
    moments = random.Random(7)
    for _ in range(12):
        process = subprocess.Popen(
            [PYTHON, "-c", script, *(word.format(url=command.account.url) for word in words)],
            env=command.environment,
            cwd=command.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        time.sleep(moments.uniform(0.01, 0.4))  # any moment will do: nothing is waited for
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
        assert b"/sluice/" not in told
        if b"Traceback" not in told:
            assert process.returncode in (0, 2, 4, 130, -signal.SIGINT), told
            assert process.returncode != 130 or told == b""


def test_a_process_that_ignores_ctrl_c_goes_on(command: Command) -> None:
    line = (
        f"trap '' INT; {' '.join(SLUICE)} put - --name late < <(sleep 1; echo late) & sleep 0.6; kill -INT $!; wait $!"
    )
    assert shell(command, line).returncode == 0
    assert command.run("cat", "late").stdout == "late\n"
