"""``python -m api``: commands of operators, and their exit codes."""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from api import routes
from api.__main__ import EXIT_CONFIG, EXIT_EXISTS, EXIT_FAILED, main
from api.commands.ending import quietly
from api.core import config
from api.core.models import utc_now
from api.db.pool import Database
from api.jobs import rows as jobs
from tests.api.conftest import Gateway, fresh_database, settings
from tests.conftest import Servers


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    servers: Servers,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command with a separate database. Returns (exit code, stdout, stderr)."""
    environ = settings(fresh_database(servers), servers, tmp_path_factory.mktemp("commands"))
    monkeypatch.setattr("api.core.config.load.__defaults__", (environ,))

    def command(*arguments: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        code = main(list(arguments))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


Command = Callable[..., tuple[int, str, str]]


def test_a_user_is_made_with_a_password_that_is_printed_once(run: Command) -> None:
    assert run("user", "count")[:2] == (0, "0\n")
    code, out, _ = run("user", "create", "Root", "--admin")
    lines = dict(line.split(": ") for line in out.splitlines())
    assert (code, lines["username"]) == (0, "root")
    assert len(lines["password"]) == 20
    assert run("user", "count")[:2] == (0, "1\n")


def test_a_given_password_is_taken_and_not_printed(run: Command) -> None:
    code, out, err = run("user", "create", "ann", "--password-stdin", typed="correct horse\n")
    assert (code, out, err) == (0, "username: ann\n", "")


def test_a_user_that_exists_and_one_that_cannot_be_are_told_apart(run: Command) -> None:
    run("user", "create", "ann")
    code, out, err = run("user", "create", "ANN")
    assert (code, out, err) == (EXIT_EXISTS, "", "The username is taken.\n")
    assert run("user", "create", "../x")[0] == EXIT_FAILED
    assert run("user", "create", "bob", "--password-stdin", typed="short\n")[0] == EXIT_FAILED


def test_migrating_again_changes_nothing(run: Command) -> None:
    assert run("migrate") == (0, "the database is up to date\n", "")


def test_every_route_is_listed_with_who_may_call_it(run: Command, gateway: Gateway) -> None:
    code, out, _ = run("routes")
    listed = {tuple(line.split()[:2]): line.split()[2] for line in out.splitlines()}
    assert code == 0
    assert list(listed) == [(route.method, route.path) for route in routes.ROUTES]
    assert listed["GET", "/internal/revocations"] == "edge"
    assert listed["POST", "/api/v1/users"] == "public"
    assert listed["GET", "/api/v1/files"] == "bearer"


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # PyMySQL forgets one that was refused
def test_a_database_that_is_down_is_reported_in_one_line(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from api.core import config

    (environ,) = config.load.__defaults__  # type: ignore[misc]
    away = environ | {"SLUICE_DATABASE_URL": "mysql://sluice@localhost/sluice?unix_socket=/nowhere.sock"}
    monkeypatch.setattr("api.core.config.load.__defaults__", (away,))
    code, out, err = run("user", "count")
    assert (code, out) == (EXIT_FAILED, "")
    assert err.count("\n") == 1
    assert err.startswith("DatabaseUnavailable")
    gc.collect()  # collect the leaked socket here and not in another test


def test_keys_that_are_given_inline_cannot_be_rotated(run: Command) -> None:
    code, out, err = run("keys", "rotate")
    assert (code, out) == (EXIT_CONFIG, "")
    assert "SLUICE_SECRET_KEYS_FILE" in err
    assert run("keys", "retire")[0] == EXIT_CONFIG
    assert run("keys", "list")[1].endswith("  signs\n")


def test_keys_of_a_file_are_rotated_and_retired(run: Command, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("k" * 64 + "\n")
    (environ,) = config.load.__defaults__ or ()
    del environ["SLUICE_SECRET_KEYS"]
    environ["SLUICE_SECRET_KEYS_FILE"] = str(path)
    assert run("keys", "retire")[0] == EXIT_FAILED
    code, out, _ = run("keys", "rotate", "--after", "0")
    assert code == 0
    assert "verifies immediately and signs from" in out
    assert "k" * 64 not in out
    listed = run("keys", "list")[1].splitlines()
    assert [line.split()[1] for line in listed] == ["verifies,", "signs"]
    assert all(word not in "".join(listed) for word in path.read_text().split())
    code, _, err = run("keys", "retire")
    assert code == EXIT_FAILED
    assert "--force" in err
    assert run("keys", "retire", "--force")[0] == 0
    assert len(run("keys", "list")[1].splitlines()) == 1


class TestJobs:
    @pytest.fixture
    def rows(self, run: Command) -> None:
        """A job that waits, and a dead one."""
        from api.core import config

        (environ,) = config.load.__defaults__  # type: ignore[misc]
        db, now = Database(environ["SLUICE_DATABASE_URL"], 1), utc_now()
        jobs.insert_many(db, "verify", [b"w" * 16, b"d" * 16], now)
        assert jobs.take(db, "verify", b"d" * 16, b"o" * 16, now)
        jobs.fail(db, "verify", b"d" * 16, b"o" * 16, ("STORAGE_UNAVAILABLE", "away for good"), now, None)
        db.close()

    def test_a_run_without_work_is_reported(self, run: Command) -> None:
        code, out, _ = run("jobs")
        assert code == 0
        assert "there are no jobs" in out

    @pytest.mark.usefixtures("rows")
    def test_what_waits_and_what_was_given_up_is_shown_with_its_reason(self, run: Command) -> None:
        code, out, _ = run("jobs")
        lines = out.splitlines()
        assert code == 0
        assert [line.split()[:3] for line in lines[1:3]] == [["verify", "dead", "1"], ["verify", "waiting", "1"]]
        assert lines[3].startswith("queue: finalize ")
        assert lines[4] == f"dead: verify {(b'd' * 16).hex()} after 1 tries: STORAGE_UNAVAILABLE away for good"

    @pytest.mark.usefixtures("rows")
    def test_the_same_as_json(self, run: Command) -> None:
        found = json.loads(run("jobs", "--json")[1])
        assert [(count["kind"], count["state"], count["jobs"]) for count in found["counts"]] == [
            ("verify", "dead", 1),
            ("verify", "waiting", 1),
        ]
        assert set(found["queue"]) == {"finalize", "verify", "background"}
        assert [(dead["subject"], dead["reason"]) for dead in found["dead"]] == [
            ((b"d" * 16).hex(), "STORAGE_UNAVAILABLE")
        ]

    @pytest.mark.usefixtures("rows")
    def test_what_was_given_up_is_tried_again(self, run: Command) -> None:
        assert run("jobs", "retry", "finalize")[:2] == (0, "0 will be tried again\n")
        assert run("jobs", "retry", "verify", (b"d" * 16).hex())[:2] == (0, "1 will be tried again\n")
        assert json.loads(run("jobs", "--json")[1])["dead"] == []
        assert run("jobs", "retry")[:2] == (0, "0 will be tried again\n")

    def test_an_invalid_id_is_reported(self, run: Command) -> None:
        code, _, err = run("jobs", "retry", "verify", "nonsense")
        assert (code, err) == (2, "nonsense is not an id: 32 hexadecimal characters\n")


@pytest.mark.parametrize("words", ["routes", "config", "storage list", "user count", "--help", "jobs --help"])
def test_a_reader_that_has_gone_is_no_error(words: str, servers: Servers, tmp_path: Path) -> None:
    """Like `python -m api … | head -1`, whose reader ends before the first line is written."""
    environ = settings(fresh_database(servers), servers, tmp_path)
    line = f"{sys.executable} -m api {words} | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(
        ["bash", "-c", line], env={**os.environ, **environ}, capture_output=True, check=False, timeout=60
    )
    assert (result.returncode in (0, 141), result.stderr) == (True, b"")


def test_what_broke_elsewhere_is_an_error_still() -> None:
    def run() -> int:
        raise BrokenPipeError(32, "a server's connection")

    with pytest.raises(BrokenPipeError):
        quietly(run)

    def interrupted() -> int:
        raise KeyboardInterrupt

    assert quietly(interrupted) == 130
