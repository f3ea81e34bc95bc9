"""Groups of small files: how they are made, and that a file that fails is uploaded by itself, or reported."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sluice import APIError, Client
from sluice.group import LARGEST, MOST, Groups, Small
from sluice.models import Upload
from sluice.progress import Progress

from tests.client.conftest import Account, Command


def files_of(folder: Path, count: int, size: int = 500) -> list[Small]:
    folder.mkdir(exist_ok=True)
    made = []
    for number in range(count):
        path = folder / f"{number:03}"
        path.write_bytes(os.urandom(size))
        made.append(Small(path, path.name, size))
    return made


class TestGroups:
    def test_hold_each_file_once_in_order_and_grow(self) -> None:
        groups, found = Groups(8), []
        files = [Small(Path(str(n)), str(n), 10) for n in range(1000)]
        for file in files:
            if full := groups.add(file):
                found.append(full)
        found.append(groups.rest() or [])
        assert [file for group in found for file in group] == files
        lengths = [len(group) for group in found]
        assert lengths[:8] == [1] * 8
        assert max(lengths) == 10  # eight of them are begun concurrently, and a user may have 100 unfinished uploads
        assert sorted(lengths[:-1]) == lengths[:-1]
        assert groups.rest() is None

    @pytest.mark.parametrize(("parallel", "most"), [(1, MOST), (4, MOST), (8, 10), (50, 1), (1000, 1)])
    def test_leave_room_among_unfinished_uploads(self, parallel: int, most: int) -> None:
        groups = Groups(parallel)
        made = [groups.add(Small(Path("a"), "a", 1)) for _ in range(50 * parallel)]
        assert max(len(group) for group in made if group) == most

    def test_are_no_larger_than_a_few_files(self) -> None:
        groups = Groups(1)
        made = [groups.add(Small(Path("a"), "a", LARGEST)) for _ in range(100)]
        assert max(len(group) for group in made if group) == 4


def test_a_group_is_uploaded(client: Client, tmp_path: Path) -> None:
    files = files_of(tmp_path / "sources", 20)
    results = client.upload_group(files)
    for file, result in zip(files, results, strict=True):
        assert result is not None
        assert (result.file.name, result.sent, result.instant) == (file.name, file.size, False)
        assert client.read(result.file) == file.path.read_bytes()
    # content that is there already makes one more file each, and not two
    again = client.upload_group([replace(file, name=f"{file.name} again") for file in files])
    assert [result.instant for result in again if result is not None] == [True] * 20
    assert len(list(client.files())) == 40


def test_what_is_not_plain_is_left(client: Client, tmp_path: Path) -> None:
    files = files_of(tmp_path / "sources", 8)
    there = client.upload(files[0].path).file
    files[0] = Small(files[0].path, files[0].name, files[0].size, known=[there])
    files[1].path.unlink()
    files[2].path.write_bytes(b"")
    files[3].path.write_bytes(bytes(LARGEST + 1))
    changing = files[4].path

    def change(_: Progress) -> None:
        changing.write_bytes(os.urandom(500))
        os.utime(changing, ns=(1, 1))

    files[4] = Small(changing, files[4].name, 500, on_progress=change)
    results = client.upload_group(files)
    assert [result is not None for result in results] == [False] * 5 + [True] * 3
    assert list(client.uploads("uploading")) == []  # what had changed was aborted
    assert client.upload(changing).file.size == 500


def test_an_older_server_is_asked_once(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unknown(wanted: Any) -> list[Upload | None]:
        asked.append(len(wanted))
        raise APIError(405, "METHOD_NOT_ALLOWED", "no")

    monkeypatch.setattr(client._calls, "create_many", unknown)
    files = files_of(tmp_path / "sources", 3)
    for _ in range(2):
        assert client.upload_group(files) == [None] * 3
    assert asked == [3]


def test_one_refusal_spares_the_others(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that the server does not take; and a storage that says no to one of the parts."""
    files = files_of(tmp_path / "sources", 4)
    files[1] = Small(files[1].path, "n" * 2000, 500)
    real = client._calls.create_many

    def broken(wanted: Any) -> list[Upload | None]:
        uploads = real(wanted)
        third = uploads[2]
        assert third is not None
        client._calls.abort(third.id)
        return uploads

    monkeypatch.setattr(client._calls, "create_many", broken)
    assert [result is not None for result in client.upload_group(files)] == [True, False, False, True]


def lines_of(output: str) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_put_tells_of_each(command: Command, account: Account) -> None:
    """Groups of several from the 17th file on; a second run stores nothing twice."""
    files = files_of(command.folder / "many", 120)
    (command.folder / "many" / "empty").touch()
    bad = command.folder / "many" / "/".join(["d" * 250] * 5) / "long"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"x")
    told = lines_of(command.run("put", "-r", "--json", "--parallel", "4", "many", code=15).stdout)
    assert len(told) == 122
    errors = [line for line in told if "error" in line]
    assert [line["exit_code"] for line in errors] == [5]
    done = {line["file"]["name"]: line for line in told if "file" in line}
    assert len(done) == 121
    assert all(done[f"many:{file.name}"]["sent"] == 500 for file in files)
    again = lines_of(command.run("put", "-r", "--json", "many", code=15).stdout)
    assert sum(line.get("existing", False) for line in again) == 121
