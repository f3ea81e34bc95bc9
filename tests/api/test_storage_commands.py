"""``python -m api storage``: list, init and check, their lines and exit codes; and how /readyz shows a storage."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import falcon.testing
import pytest

from api.__main__ import EXIT_FAILED, main
from api.app import compose, create_app
from api.core.config import load
from api.core.errors import DatabaseUnavailable
from api.db.pool import Database
from api.operations.health import Health
from api.storage.base import MultipartStorage
from api.storage.memory import MemoryStorage
from api.storage.stores import Stores
from tests.api.conftest import fresh_database, settings
from tests.conftest import Servers
from tests.storage.ceph import Ceph
from tests.unit.test_probe import Asked

Command = Callable[..., tuple[int, list[str], str]]

# Several commands run in this one process, where the collector finds what
# boto3 leaves open; a command's own process ends first.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket .* family=2:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def environ(servers: Servers, ceph: Ceph, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A local storage, a bucket that does not exist yet, and a separate database."""
    return {
        **settings(fresh_database(servers), servers, tmp_path_factory.mktemp("storages")),
        **ceph.settings,
        "SLUICE_S3_BUCKET": f"commands{os.urandom(4).hex()}",
        "SLUICE_STORAGES": "main:s3,local:local",
        "SLUICE_TIER_STORAGES": "basic:local",
        "SLUICE_MIN_FREE": "0",
        "SLUICE_PUBLIC_URL": "http://127.0.0.1:9",
    }


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], environ: dict[str, str]) -> Command:
    """Runs a command. Returns (exit code, lines of stdout, stderr)."""

    def command(*arguments: str, **changes: str) -> tuple[int, list[str], str]:
        monkeypatch.setattr("api.core.config.load.__defaults__", (environ | changes,))
        code = main(["storage", *arguments])
        gc.collect()  # the command's connections end with its process
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err

    return command


def test_the_storages_are_listed_with_what_they_take(run: Command, environ: dict[str, str]) -> None:
    code, lines, _ = run("list")
    assert code == 0
    assert [line.split(maxsplit=2)[:2] for line in lines] == [["main", "s3"], ["local", "local"]]
    assert "new uploads " in lines[0]
    assert lines[0].endswith(f"{environ['SLUICE_S3_ENDPOINT']} bucket {environ['SLUICE_S3_BUCKET']}")
    assert "new uploads of tier basic" in lines[1]
    assert lines[1].endswith(environ["SLUICE_STORAGE_ROOT"])


def test_check_names_the_fault_and_how_to_mend_it_which_then_helps(run: Command, environ: dict[str, str]) -> None:
    bucket = environ["SLUICE_S3_BUCKET"]
    code, lines, _ = run("check", "main")
    assert code == EXIT_FAILED == 1
    assert f"main: WRONG bucket: there is no bucket {bucket} (python -m api storage init main)" in lines
    assert lines[-1] == "main: note  the rest: was not tried (mend the above first)"

    code, lines, _ = run("init", "main")
    assert (code, len(lines)) == (0, 4)
    assert lines[0] == f"bucket {bucket}: made"

    code, lines, _ = run("check", "main")
    assert code == 0, lines
    assert "main: ok    hashes: binds sha256: wrong parts are refused, no object has to be read back" in lines
    assert lines[-1].startswith("main: note  download: was not tried: no gateway answers at http://127.0.0.1:9")


def test_check_without_a_name_examines_every_storage(run: Command) -> None:
    run("init", "main")
    code, lines, _ = run("check")
    assert code == 0, lines
    assert {line.partition(":")[0] for line in lines} == {"main", "local"}


def test_one_faulty_storage_makes_the_exit_code(run: Command) -> None:
    run("init", "main")
    code, lines, _ = run("check", SLUICE_S3_SECRET_KEY="wrong")
    assert code == EXIT_FAILED
    assert any(line.startswith("main: WRONG credentials: ") for line in lines)
    assert any(line.startswith("local: ok    ") for line in lines)


@pytest.mark.parametrize("command", ["init", "check"])
def test_a_storage_that_is_not_configured_is_reported(run: Command, command: str) -> None:
    code, lines, complaint = run(command, "archive")
    assert (code, lines) == (EXIT_FAILED, [])
    assert "archive is not configured" in complaint


def test_init_that_fails_says_why(run: Command) -> None:
    code, lines, complaint = run("init", "main", SLUICE_S3_ACCESS_KEY="nobody")
    assert (code, lines) == (EXIT_FAILED, [])
    assert "403" in complaint


class TestLocal:
    def check(self, run: Command, **changes: str) -> tuple[int, str]:
        code, lines, _ = run("check", "local", **changes)
        return code, "\n".join(lines)

    def test_a_good_folder(self, run: Command, environ: dict[str, str]) -> None:
        code, said = self.check(run)
        assert code == 0
        assert "filesystem: is the same for all of them" in said
        assert run("init", "local")[:2] == (0, ["incoming, parts, assembling, objects exist"])
        root = Path(environ["SLUICE_STORAGE_ROOT"])
        assert [path for path in root.rglob("*") if path.is_file()] == [], "nothing stays behind"

    def test_too_little_room(self, run: Command) -> None:
        code, said = self.check(run, SLUICE_MIN_FREE=str(2**60))
        assert code == EXIT_FAILED
        assert "local: WRONG room: " in said

    def test_a_folder_on_another_filesystem(self, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        def rename(self: Path, target: Path) -> Path:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(Path, "rename", rename)
        code, said = self.check(run)
        assert code == EXIT_FAILED
        assert "local: WRONG filesystem: files cannot be renamed: Invalid cross-device link" in said

    def test_a_folder_that_cannot_be_written(self, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        allowed = os.access
        monkeypatch.setattr("os.access", lambda path, mode: "parts" not in str(path) and allowed(path, mode))
        code, said = self.check(run)
        assert code == EXIT_FAILED
        assert "/parts cannot be written (it must belong to the user that nginx and the API run as)" in said


# -- the known state of a storage, without a call to it


@pytest.fixture
def gateway_database(environ: dict[str, str]) -> Iterator[Database]:
    database = Database(environ["SLUICE_DATABASE_URL"], 1)
    yield database
    database.close()


def health(database: Database, **storages: MultipartStorage) -> Health:
    class Cache:
        def check(self) -> bool:
            return True

    return Health(database, Cache(), Stores(storages))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "note"), [(True, "binds sha256"), (False, "does not bind sha256: objects are read back")]
)
def test_what_a_probe_found_is_noted(gateway_database: Database, found: bool, note: str) -> None:
    storage = Asked(lambda: found)
    asked = health(gateway_database, main=storage, local=MemoryStorage())
    assert asked.notes() == {"storage:main": "not probed yet: until then uploads are read back"}
    assert storage.asked == 0
    for thread in asked.probe_in_background():
        thread.join(5)
    assert asked.notes() == {"storage:main": note}
    assert storage.asked == 1


def test_a_probe_that_fails_is_repeated_and_delays_no_call(gateway_database: Database) -> None:
    waits: list[float] = []
    problems: list[Exception] = [DatabaseUnavailable("not migrated"), DatabaseUnavailable("away")]

    def probe() -> bool:
        if problems:
            raise problems.pop()
        return True

    asked = health(gateway_database, main=Asked(probe))
    (thread,) = asked.probe_in_background(waits.append)
    thread.join(5)
    assert asked.notes() == {"storage:main": "binds sha256"}
    assert len(waits) == 2


def test_readyz_shows_the_note_beside_the_checks(environ: dict[str, str], ceph: Ceph) -> None:
    config = load(environ | {"SLUICE_S3_BUCKET": ceph.settings["SLUICE_S3_BUCKET"]})
    db = Database(config.database_url, 2)
    services = compose(config, db=db)
    for thread in services.health.probe_in_background():
        thread.join(20)
    answer = falcon.testing.TestClient(create_app(services)).simulate_get("/readyz")
    assert answer.status_code == 200
    well = dict.fromkeys(("database", "redis", "storage:main", "storage:local", "content"), "ok")
    assert answer.json["checks"] == well
    assert answer.json["notes"] == {"storage:main": "binds sha256"}
    db.close()
