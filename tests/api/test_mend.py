"""A replica that an edge could not read: others are named first, and a job checks it, heals it or declares it lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import falcon.testing
import pytest

from api import __main__ as command
from api.jobs import rows as jobs
from api.operations import health
from tests.api.conftest import EDGE_KEY, Content, User, error, fresh_database
from tests.api.two import Two
from tests.conftest import Servers

DATA = b"content to mend"


class Mending(Two):
    """`Two` with one blob on both storages."""

    def ask(self, failed: str = "", reason: str = "") -> falcon.testing.Result:
        """An edge's request for a target."""
        ((file,),) = self.rows("SELECT LOWER(HEX(id)) FROM file LIMIT 1")
        params = {name: value for name, value in (("failed", failed), ("reason", reason)) if value}
        return self.http.simulate_get(f"/internal/targets/{file}", params=params, headers={"X-Sluice-Edge": EDGE_KEY})

    def named(self, failed: str = "", reason: str = "") -> str:
        """The storage that an edge gets."""
        answer = self.ask(failed, reason)
        assert answer.status_code == 200, answer.text
        return str(answer.json["name"])

    def mend(self) -> list[bytes]:
        """Runs such jobs until none is due. Returns the blobs that were checked."""
        looked = []
        for _ in range(9):
            due = jobs.due(self.db, "mend", self.clock(), timedelta(seconds=-1), 10)
            for blob in due:
                assert self.services.runner.run("mend", blob)
            looked += due
            self.clock.turn(3)
        return looked

    def marks(self) -> dict[str, tuple[str | None, bool]]:
        """By storage: why its replica is suspect, and whether it is known to be missing."""
        rows = self.rows("SELECT storage, suspect, missing_at IS NOT NULL FROM replica")
        return {storage: (suspect, bool(missing)) for storage, suspect, missing in rows}


@pytest.fixture
def gateway(environ: dict[str, str], servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mending]:
    monkeypatch.setattr("api.storage.stores.HEALTH_CACHE_SECONDS", 0.0)
    monkeypatch.setattr(health, "HEALTH_CACHE_SECONDS", 0.0)
    more = {"SLUICE_SCRUB_RATE": str(10**12), "SLUICE_STORAGES": "local,second:s3"}
    ends = {f"SLUICE_S3_{name}": "x" for name in ("BUCKET", "ACCESS_KEY", "SECRET_KEY")}
    ends["SLUICE_S3_ENDPOINT"] = "http://127.0.0.1:1"
    made = Mending(environ | ends | more | {"SLUICE_DATABASE_URL": fresh_database(servers)})
    yield made
    made.db.close()


@pytest.fixture
def file(gateway: Mending, user: User) -> dict[str, Any]:
    """A blob on both storages."""
    made = user.upload(Content(DATA))
    gateway.copy(DATA)
    assert gateway.marks() == {"local": (None, False), "second": (None, False)}
    return made


@pytest.fixture
def alone(user: User) -> dict[str, Any]:
    """A blob on the first storage only."""
    return user.upload(Content(DATA))


class TestAnEdgesReport:
    def test_names_another_replica_and_wakes_a_job_once(self, gateway: Mending, file: dict[str, Any]) -> None:
        assert gateway.named() == "local"
        assert gateway.ask().json["others"] is True
        for _ in range(5):
            answer = gateway.ask("local", "error").json
            assert (answer["name"], answer["others"]) == ("second", False)
        writes = [sql for sql, _ in gateway.statements if sql.startswith("INSERT INTO job") and "mend" in str(_)]
        assert len(writes) == 1
        assert [kind for kind, _ in gateway.queue.kept].count("mend") == 1
        # an edge that has not tried also gets the sound replica first
        assert gateway.named() == "second"
        assert gateway.ask().json["others"] is True

    def test_is_not_believed(self, gateway: Mending, file: dict[str, Any]) -> None:
        for reason in ("error", "timeout", "missing", "length", "cut"):
            assert gateway.named("local", reason) == "second"
            assert gateway.marks()["local"] == (reason, False)
            assert len(gateway.mend()) == 1
            assert gateway.marks()["local"] == (None, False)
            assert gateway.named() == "local"
        assert gateway.rows("SELECT 1 FROM job WHERE kind = 'mend'") == ()
        assert gateway.rows("SELECT 1 FROM doomed") == ()

    def test_that_tried_all_gets_the_best_again(self, gateway: Mending, file: dict[str, Any]) -> None:
        answer = gateway.ask("second,local", "error").json
        assert (answer["name"], answer["others"]) == ("second", False)
        assert gateway.marks() == {"local": ("error", False), "second": (None, False)}

    def test_without_a_reason_writes_nothing(self, gateway: Mending, file: dict[str, Any]) -> None:
        assert gateway.named("local") == "second"
        assert gateway.marks()["local"] == (None, False)

    def test_about_a_storage_that_is_known_to_be_away_writes_nothing(
        self, gateway: Mending, file: dict[str, Any]
    ) -> None:
        gateway.second.away = True
        assert gateway.named("second", "timeout") == "local"
        assert gateway.marks()["second"] == (None, False)

    @pytest.mark.parametrize(
        ("failed", "reason", "status"), [("local", "x", 400), ("", "error", 400), ("gone,", "error", 200)]
    )
    def test_that_makes_no_sense(
        self, gateway: Mending, file: dict[str, Any], failed: str, reason: str, status: int
    ) -> None:
        assert gateway.ask(failed, reason).status_code == status
        assert gateway.marks() == {"local": (None, False), "second": (None, False)}

    def test_during_the_jobs_last_look_is_not_forgotten(self, gateway: Mending, file: dict[str, Any]) -> None:
        gateway.named("local", "error")
        (blob,) = jobs.due(gateway.db, "mend", gateway.clock(), timedelta(seconds=-1), 10)
        real = gateway.second.stat

        def late(object_key: str) -> int:
            gateway.second.stat = real  # type: ignore[method-assign]
            gateway.named("local", "missing")
            return real(object_key)

        gateway.second.stat = late  # type: ignore[method-assign]
        assert gateway.services.runner.run("mend", blob)
        assert gateway.marks()["local"] == ("missing", False)
        assert len(gateway.rows("SELECT 1 FROM job WHERE kind = 'mend'")) == 1
        gateway.mend()
        assert gateway.marks()["local"] == (None, False)


@pytest.mark.parametrize("how", ["gone", "shorter", "longer"])
class TestABrokenReplica:
    def spoil(self, gateway: Mending, how: str, storage: str = "local") -> str:
        key, store = gateway.key(storage), gateway.storages[storage]
        objects: dict[str, bytes] = store.objects  # type: ignore[attr-defined]
        if how == "gone":
            del objects[key]
        else:
            objects[key] = DATA[:-1] if how == "shorter" else DATA + b"x"
        return key

    def test_is_healed_from_the_other_under_a_new_key(self, gateway: Mending, file: dict[str, Any], how: str) -> None:
        key = self.spoil(gateway, how)
        assert gateway.named("local", "missing") == "second"
        gateway.mend()
        assert gateway.key() != key
        assert gateway.storage.objects[gateway.key()] == DATA
        assert gateway.rows("SELECT object_key FROM doomed") == ((key,),)
        assert gateway.marks() == {"local": (None, False), "second": (None, False)}
        assert gateway.rows("SELECT 1 FROM job WHERE kind = 'mend'") == ()
        assert gateway.named() == "local"

    def test_is_declared_by_two_looks_and_not_by_one(self, gateway: Mending, alone: dict[str, Any], how: str) -> None:
        key = self.spoil(gateway, how)
        gateway.named("local", "length")
        (blob,) = jobs.due(gateway.db, "mend", gateway.clock(), timedelta(seconds=-1), 10)
        gateway.services.runner.run("mend", blob)
        assert gateway.marks() == {"local": ("length", False)}
        assert jobs.due(gateway.db, "mend", gateway.clock(), timedelta(seconds=-1), 10) == []
        gateway.storage.objects[key] = DATA
        gateway.mend()
        assert gateway.marks() == {"local": (None, False)}

    def test_without_another_is_lost_and_says_so(
        self, gateway: Mending, alone: dict[str, Any], how: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert gateway.http.simulate_get("/readyz").json["status"] == "ok"
        key = self.spoil(gateway, how)
        assert gateway.named("local", "missing") == "local"
        gateway.mend()
        assert gateway.marks() == {"local": (None, True)}
        error(gateway.ask(), 410, "CONTENT_LOST")
        (said,) = [record for record in caplog.records if "content is lost" in record.message]
        assert said.places == [f"local/{key}"]  # type: ignore[attr-defined]
        ready = gateway.http.simulate_get("/readyz")
        assert (ready.status_code, ready.json["status"]) == (200, "degraded")
        assert ready.json["checks"]["content"] == "1 objects are missing, 1 contents are lost: python -m api lost"
        figures = gateway.http.simulate_get("/internal/metrics", headers={"X-Sluice-Edge": EDGE_KEY}).text
        assert "\nsluice_lost_blobs 1.0\n" in figures
        assert "\nsluice_missing_replicas 1.0\n" in figures

    def test_that_is_back_is_served_again(self, gateway: Mending, alone: dict[str, Any], how: str) -> None:
        key = self.spoil(gateway, how)
        gateway.named("local", "missing")
        gateway.mend()
        error(gateway.ask(), 410, "CONTENT_LOST")
        gateway.storage.objects[key] = DATA
        gateway.mend()  # it was requested, so a job checks it
        assert gateway.named() == "local"
        assert gateway.marks() == {"local": (None, False)}
        assert gateway.http.simulate_get("/readyz").json["status"] == "ok"

    def test_is_healed_by_an_upload_of_the_same_and_heals_the_others(
        self, gateway: Mending, file: dict[str, Any], how: str
    ) -> None:
        for storage in ("local", "second"):
            self.spoil(gateway, how, storage)
            gateway.named(storage, "missing")
        gateway.mend()
        error(gateway.ask(), 410, "CONTENT_LOST")
        gateway.user().upload(Content(DATA), "again")
        assert gateway.named() == "local"
        gateway.mend()
        assert gateway.marks() == {"local": (None, False), "second": (None, False)}
        assert gateway.second.objects[gateway.key("second")] == DATA

    def test_proves_no_upload(self, gateway: Mending, user: User, how: str) -> None:
        content = Content.of_parts(2, "mend proof")
        user.upload(content, "large")
        gateway.copy(content.data)
        objects, key = gateway.storage.objects, gateway.key()
        objects[key] = b"" if how == "gone" else content.data[: 8 if how == "shorter" else -1] + b"x"
        other = gateway.user()
        upload = other.create(content, digest=content.digest)
        done = other.post(f"/uploads/{upload['id']}/proof", content.prove(upload["challenge"]))
        assert done.json["state"] == "done"


def test_a_storage_that_cannot_be_used_has_lost_nothing(gateway: Mending, file: dict[str, Any]) -> None:
    """Even if the storage says that the object does not exist: an unmounted disk does the same."""
    gateway.named("local", "missing")
    gateway.storage.away = True
    gateway.storage.objects.clear()
    for _ in range(3):
        assert len(gateway.mend()) == 1
        assert gateway.marks()["local"] == ("missing", False)
        gateway.clock.turn(300)
    assert gateway.named() == "second"


def test_a_replica_that_looks_whole_and_is_not_is_read_and_healed(gateway: Mending, file: dict[str, Any]) -> None:
    key = gateway.key()
    gateway.storage.objects[key] = DATA[:5] + b"-" + DATA[6:]
    gateway.named("local", "error")
    gateway.mend()
    assert gateway.key() == key, "no error concerned the object itself"
    gateway.named("local", "cut")
    gateway.mend()
    assert gateway.storage.objects[gateway.key()] == DATA
    assert gateway.key() != key


def test_a_scrub_that_heals_the_same_blob_is_not_disturbed(gateway: Mending, file: dict[str, Any]) -> None:
    key = gateway.key()
    del gateway.storage.objects[key]
    gateway.named("local", "missing")
    ((blob,),) = gateway.rows("SELECT LOWER(HEX(id)) FROM `blob`")
    with gateway.db.named_lock(f"heal {blob}", 0) as held:
        assert held
        gateway.mend()
        assert gateway.key() == key
        assert gateway.rows("SELECT 1 FROM healing") == ()
    gateway.clock.turn(60)
    gateway.mend()
    assert gateway.storage.objects[gateway.key()] == DATA


def test_the_sweep_finds_lost_objects_that_no_client_requested(gateway: Mending, file: dict[str, Any]) -> None:
    key = gateway.key()
    del gateway.storage.objects[key]
    gateway.services.sweep.by_hand(lambda *_: None)
    gateway.mend()
    assert gateway.storage.objects[gateway.key()] == DATA
    del gateway.second.objects[gateway.key("second")]
    gateway.services.sweep.by_hand(lambda *_: None)
    gateway.mend()
    assert gateway.marks() == {"local": (None, False), "second": (None, False)}


def test_the_command_lists_lost_content_and_names_no_user(
    gateway: Mending,
    alone: dict[str, Any],
    user: User,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environ: dict[str, str],
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLUICE_DATABASE_URL", gateway.config.database_url)
    assert command.main(["lost"]) == 0
    assert capsys.readouterr().out == "no content is lost\n"
    other = gateway.user()
    other.upload(Content(DATA), "theirs")
    other.upload(Content(DATA), "theirs too")
    key = gateway.key()
    del gateway.storage.objects[key]
    gateway.named("local", "missing")
    gateway.mend()
    assert command.main(["lost", "--json"]) == 1
    (line,) = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert line["places"] == [{"storage": "local", "object": key}]
    assert (line["files"], line["owners"], line["bytes"]) == (3, 2, len(DATA))
    gateway.storage.objects[key] = DATA
    assert command.main(["lost", "--check"]) == 1
    out = capsys.readouterr().out
    assert f"{len(DATA)} bytes, 3 files of 2 accounts, lost since " in out
    assert "1 contents are lost" in out
    assert user.name not in out
    assert "theirs" not in out
    gateway.mend()
    assert command.main(["lost"]) == 0
