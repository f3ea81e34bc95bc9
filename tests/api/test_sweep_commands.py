"""``python -m api sweep``: its output, its exit codes, and that a dry run changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from api.__main__ import EXIT_FAILED, main
from api.core.models import new_id
from api.db import deployment
from api.db.pool import Database
from tests.api.conftest import fresh_database, settings
from tests.conftest import Servers

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def place(servers: Servers, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of objects of a separate deployment; twelve objects have no row."""
    folder = tmp_path_factory.mktemp("sweep")
    environ = settings(fresh_database(servers), servers, folder)
    monkeypatch.setattr("api.core.config.load.__defaults__", (environ,))
    db = Database(environ["SLUICE_DATABASE_URL"], 1)
    objects = folder / "objects" / deployment.identity(db) / "00"
    db.close()
    objects.mkdir(parents=True)
    for _ in range(12):
        (objects / f"{'0' * 12}{new_id().hex()[12:]}").write_bytes(b"x")
    return objects


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], place: Path) -> Command:
    def command(*arguments: str) -> tuple[int, str, str]:
        code = main(["sweep", *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


def test_a_dry_run_names_everything_and_keeps_nothing_in_mind(run: Command, place: Path) -> None:
    for _ in range(2):
        code, out, _ = run("--dry-run")
        assert code == 0
        assert out.count("unknown_objects: object ") == 12
        assert "would be unknown_objects: 12\n" in out
    assert len(list(place.iterdir())) == 12


def test_what_is_held_back_is_said_and_accepted(run: Command) -> None:
    code, out, _ = run()
    assert code == EXIT_FAILED
    assert "HELD BACK (share) local: 12 of 12 objects have no row\n" in out
    assert run("--accept")[0] == 0


def test_programs_get_json_a_line_each(run: Command) -> None:
    code, out, _ = run("--json", "--storage", "local")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == EXIT_FAILED
    assert [line["what"] for line in lines[:-1]] == ["unknown_objects"] * 12
    assert lines[-1]["counts"] == {"unknown_objects": 12}
    assert [doubt["kind"] for doubt in lines[-1]["doubts"]] == ["share"]
    assert lines[-1]["missing"] == []


def test_an_unknown_storage_is_reported_in_one_line(run: Command) -> None:
    code, out, err = run("--storage", "nowhere")
    assert (code, out) == (EXIT_FAILED, "")
    assert "nowhere" in err
