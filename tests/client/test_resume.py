"""Interrupted transfers resume: after a kill, from another machine, after Ctrl-C; and little is sent twice."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sluice import Client

from tests.client.conftest import Account, Command
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART, Source, Sources
from tests.waiting import await_true

PARTS = 10
PARALLEL = 3


def part_requests(gateway: Gateway) -> list[dict[str, Any]]:
    """nginx's log lines of parts."""
    lines = (gateway.data / "log" / "access.log").read_text().splitlines()
    return [entry for line in lines if (entry := json.loads(line))["route"] == "part"]


def taken(requests: list[dict[str, Any]]) -> int:
    return sum(200 <= entry["status"] < 300 for entry in requests)


def stored_parts(gateway: Gateway) -> int:
    return len(list((gateway.storage / "parts").glob("*/*")))


@pytest.fixture
def source(sources: Sources) -> Source:
    return sources.make(PARTS * PART - 1000, os.urandom(4).hex())


def interrupted(command: Command, gateway: Gateway, source: Source, number: signal.Signals, instant: str) -> str:
    """Starts `put`, ends it by a signal when some parts have arrived, and returns its output."""
    before = stored_parts(gateway)
    options = ("--parallel", str(PARALLEL), "--limit-rate", "60M", "--instant", instant, "--name", "resumed")
    process = command.start("put", str(source.path), *options)
    await_true(lambda: stored_parts(gateway) >= before + 3)
    process.send_signal(number)
    _, told = process.communicate(timeout=20)
    assert process.returncode == (-number if number == signal.SIGKILL else 130)
    return told


@pytest.mark.parametrize("instant", ["never", "always"])
def test_a_killed_put_goes_on_and_sends_at_most_twice_what_was_in_flight(
    command: Command, gateway: Gateway, source: Source, instant: str
) -> None:
    before = len(part_requests(gateway))
    interrupted(command, gateway, source, signal.SIGKILL, instant)
    result = json.loads(
        command.run("put", str(source.path), "--json", "--name", "resumed", "--instant", instant).stdout
    )
    assert result["kept"] >= 3 * PART
    assert result["sent"] + result["kept"] == source.size
    assert result["file"]["digest"] == source.digest
    await_true(lambda: taken(part_requests(gateway)[before:]) >= PARTS)  # nginx writes its log now and then
    tried = part_requests(gateway)[before:]
    # a part that was on its way may still arrive when the next run has looked
    assert len(tried) <= PARTS + PARALLEL, "what had arrived was not sent again"


def test_ctrl_c_says_how_to_go_on(command: Command, gateway: Gateway, source: Source) -> None:
    told = interrupted(command, gateway, source, signal.SIGINT, "never")
    assert "run the same command again" in told
    assert "Traceback" not in told
    assert "resumed" in command.run("uploads").stdout
    result = json.loads(command.run("put", str(source.path), "--json", "--name", "resumed").stdout)
    assert result["kept"] >= 3 * PART
    assert command.run("uploads").stdout == ""


def test_another_machine_goes_on_with_a_copy_of_other_times(
    command: Command, gateway: Gateway, source: Source, tmp_path: Path
) -> None:
    interrupted(command, gateway, source, signal.SIGKILL, "never")
    copy = tmp_path / "elsewhere"
    copy.write_bytes(source.path.read_bytes())
    other = Command(command.account, tmp_path / "home of the other machine", command.folder).login()
    result = json.loads(other.run("put", str(copy), "--json", "--name", "resumed").stdout)
    assert result["kept"] >= 3 * PART
    assert result["file"]["digest"] == source.digest


def test_other_content_that_looks_alike_is_not_mixed_in(command: Command, gateway: Gateway, source: Source) -> None:
    """The first parts are on the server, then the file changes at an offset that is not compared."""
    interrupted(command, gateway, source, signal.SIGKILL, "never")
    with source.path.open("r+b") as file:
        file.seek(PART // 2 + 12345)
        file.write(b"another file")
    changed = Source(source.path, source.size)
    result = json.loads(
        command.run("put", str(source.path), "--json", "--name", "resumed", "--instant", "never").stdout
    )
    assert result["file"]["digest"] == changed.digest
    assert result["sent"] == source.size


def test_two_machines_bring_one_upload_to_its_end(account: Account, source: Source, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(source.path.read_bytes())

    def put(path: Path) -> tuple[str, str]:
        with account.client(instant="never", limit_rate=50e6, parallel=2) as client:
            file = client.upload(path, "shared").file
            return file.id, file.digest

    with ThreadPoolExecutor(2) as pool:
        (first, digest), (second, _) = pool.map(put, [source.path, copy])
    assert first == second
    assert digest == source.digest
    with account.client() as client:
        assert len(list(client.files("shared"))) == 1


def test_a_killed_get_goes_on_from_what_its_journal_bears_out(command: Command, client: Client, source: Source) -> None:
    client.upload(source.path, "resumed")
    part, journal = command.folder / "resumed.part", command.folder / "resumed.part.journal"
    process = command.start("get", "resumed", "--limit-rate", "60M", "--parallel", str(PARALLEL))
    await_true(lambda: journal.exists() and len(journal.read_text().splitlines()) > 3)
    process.kill()
    process.communicate(timeout=20)
    kept = [int(line.split()[0]) for line in journal.read_text().splitlines()[1:]]
    with part.open("r+b") as file:  # a loss of power: the journal knows what the disk does not
        file.seek((kept[0] - 1) * PART + 5)
        file.write(b"never written")
    told = command.start("get", "resumed", "--json")
    out, _ = told.communicate(timeout=30)
    assert told.returncode == 0
    assert Path(command.folder / json.loads(out)["path"]).read_bytes() == source.path.read_bytes()
    assert sorted(entry.name for entry in command.folder.iterdir()) == ["resumed"]


def test_two_gets_of_one_file_do_not_write_into_each_other(command: Command, client: Client, source: Source) -> None:
    client.upload(source.path, "resumed")
    first = command.start("get", "resumed", "--limit-rate", "40M")
    await_true((command.folder / "resumed.part.journal").exists)
    assert "another process" in command.run("get", "resumed", code=1).stderr
    assert first.wait(30) == 0
    first.communicate()
    assert (command.folder / "resumed").read_bytes() == source.path.read_bytes()


def test_a_pipe_whose_reader_has_gone_is_no_error_message(command: Command, client: Client) -> None:
    for number in range(50):
        client.upload(f"{number}".encode() * 100, f"a file of a long name {number}" + "x" * 150)
    process = command.start("ls")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(20) == 141
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_second_put_of_a_folder_stores_nothing_twice(command: Command) -> None:
    (command.folder / "d").mkdir()
    for number in range(30):
        (command.folder / "d" / str(number)).write_text(f"{number}")
    command.run("put", "-rq", "d")
    again = [json.loads(line) for line in command.run("put", "-r", "d", "--json").stdout.splitlines()]
    assert [entry["existing"] for entry in again] == [True] * 30
    assert len(command.run("ls").stdout.splitlines()) == 30
