"""Objects and multipart uploads without a row: watched for a day, and left alone while there is a doubt."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from api.core.errors import StorageUnavailable
from api.core.models import new_id
from api.sweep import rows as listings
from api.sweep.run import Run
from tests.api.conftest import Content, Gateway, User
from tests.api.sweeping import DAY, HOUR, doubts, keys, left, sweep, swept_gateway

gateway = swept_gateway


class TestAge:
    def test_an_orphan_goes_when_it_was_seen_twice_a_day_apart(self, gateway: Gateway, user: User) -> None:
        user.upload(Content(b"known"))
        orphans = keys(gateway, 3)
        assert sweep(gateway)["unknown_objects"] == 3
        gateway.clock.turn(DAY - 1)
        assert "objects_orphaned" not in sweep(gateway)
        assert left(gateway, orphans) == 3
        gateway.clock.turn(1)
        done = sweep(gateway)
        assert (done["objects_orphaned"], done["objects_deleted"]) == (3, 3)
        assert len(gateway.storage.objects) == 1
        assert gateway.rows("SELECT 1 FROM sighting") == ()

    def test_once_is_not_enough_however_old_it_is(self, gateway: Gateway) -> None:
        orphans = keys(gateway, 1)
        gateway.clock.turn(30 * DAY)
        sweep(gateway)
        sweep(gateway)
        assert left(gateway, orphans) == 1

    def test_one_that_a_row_names_meanwhile_stays(self, gateway: Gateway, user: User) -> None:
        file = user.upload(Content(b"found its row"))
        sql = (
            "SELECT r.blob_id, r.object_key FROM replica r JOIN file f ON f.blob_id = r.blob_id WHERE f.id = UNHEX(%s)"
        )
        ((blob, key),) = gateway.rows(sql, file["id"])
        gateway.db.execute("DELETE FROM upload_part")
        gateway.db.execute("DELETE FROM upload")
        gateway.db.execute("DELETE FROM replica")
        sweep(gateway)
        gateway.clock.turn(DAY)
        real = gateway.services.sweep._orphans.remove

        def late(run: Run, names: list[str]) -> None:
            insert = "INSERT INTO replica (blob_id, storage, object_key, created_at) VALUES (%s, 'local', %s, NOW(6))"
            gateway.db.execute(insert, (blob, key))
            real(run, names)

        gateway.services.sweep._orphans.remove = late  # type: ignore[method-assign]
        assert "objects_orphaned" not in sweep(gateway)
        assert key in gateway.storage.objects

    def test_others_objects_are_not_even_counted(self, gateway: Gateway) -> None:
        theirs = [f"0badcafe/{n:02x}/{n:032x}" for n in range(50)]
        gateway.storage.objects |= dict.fromkeys(theirs, b"x")
        for _ in range(3):
            assert "unknown_objects" not in sweep(gateway)
            gateway.clock.turn(DAY)
        assert left(gateway, theirs) == 50

    def test_every_row_that_names_an_object_protects_it(self, gateway: Gateway, user: User) -> None:
        one, two, three = keys(gateway, 3)
        user.upload(Content(b"a replica"))
        user.create(Content(b"an upload"))
        gateway.db.execute("UPDATE upload SET object_key = %s WHERE state = 'uploading'", (one,))
        gateway.db.execute(
            "INSERT INTO doomed (storage, object_key, created_at, keep_until) VALUES ('local', %s, NOW(6), "
            "NOW(6) + INTERVAL 1 YEAR)",
            (two,),
        )
        gateway.db.execute(
            "INSERT INTO transfer_item (id, transfer_id, blob_id, size, state, phase, storage, object_key, upload_id, "
            "due_at, created_at) SELECT id, id, id, 1, 'waiting', 'copy', 'local', %s, id, NOW(6), NOW(6) FROM ("
            "SELECT UNHEX(MD5(1)) id) x WHERE %s",
            (three, _no_foreign_keys(gateway)),
        )
        for _ in range(3):
            assert "unknown_objects" not in sweep(gateway)
            gateway.clock.turn(DAY)

    def test_a_multipart_upload_goes_likewise(self, gateway: Gateway, user: User) -> None:
        stranger, alive = new_id().hex(), user.create(Content(b"alive"))
        gateway.storage.uploads[stranger] = {1: b"x"}
        assert sweep(gateway)["unknown_uploads"] == 1
        gateway.clock.turn(DAY)
        assert sweep(gateway)["uploads_orphaned"] == 1
        assert list(gateway.storage.uploads) == [alive["id"]]

    def test_on_schedule_lists_are_made_every_six_hours(self, gateway: Gateway) -> None:
        orphans, passes = keys(gateway, 1), []
        for _ in range(70):
            gateway.clock.turn(HOUR / 2)
            passes.append(gateway.services.sweep.run()["unknown_objects"])
            if not left(gateway, orphans):
                break
        seen = [n for n, count in enumerate(passes) if count]
        assert [b - a for a, b in itertools.pairwise(seen)] == [12] * 4
        assert left(gateway, orphans) == 0


def _no_foreign_keys(gateway: Gateway) -> int:
    """The transfer of an item."""
    gateway.db.execute(
        "INSERT INTO transfer (id, source, destination, delete_source, keep_for, delay, state, planned_at, "
        "planned_blob, window_at, created_at, updated_at) VALUES (UNHEX(MD5(1)), 'a', 'b', 0, 0, 0, 'running', NOW(6), "
        "UNHEX(MD5(1)), NOW(6), NOW(6), NOW(6))"
    )
    return 1


class TestPaging:
    def test_a_pass_continues_where_it_was_stopped(self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
        orphans = sorted(keys(gateway, 25))
        monkeypatch.setattr("api.sweep.known_rows.BATCH", 10)
        monkeypatch.setattr("api.sweep.run.STEP_SECONDS", 0)
        gateway.clock.turn(7 * HOUR)
        seen = [gateway.services.sweep.run()["unknown_objects"] for _ in range(4)]
        assert seen == [10, 10, 5, 0]
        found = listings.get(gateway.db, "local")
        assert found is not None
        assert (found.objects, found.cursor) == (25, None)
        assert [row.object_key for row in listings.sightings(gateway.db, "local", 100)] == orphans

    def test_a_storage_that_fails_in_the_middle_is_gone_on_with(
        self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        orphans = sorted(keys(gateway, 25))
        monkeypatch.setattr("api.sweep.known_rows.BATCH", 10)
        real = gateway.storage.list_objects

        def failing(after: str = "") -> Iterator[str]:
            for number, key in enumerate(real(after)):
                if number == 12:
                    raise StorageUnavailable("away")
                yield key

        with monkeypatch.context() as patch:
            patch.setattr(gateway.storage, "list_objects", failing)
            assert sweep(gateway)["unknown_objects"] == 10
        gateway.clock.turn(DAY)
        assert "objects_orphaned" not in sweep(gateway)  # the end of that pass
        gateway.clock.turn(DAY)
        sweep(gateway)
        assert left(gateway, orphans) == 25  # more than a handful
        assert doubts(gateway) == {"share"}


class TestGuard:
    def test_ten_orphans_may_go_and_eleven_are_reported(self, gateway: Gateway) -> None:
        orphans = keys(gateway, 11)
        for _ in range(4):
            sweep(gateway)
            gateway.clock.turn(DAY)
        assert (left(gateway, orphans), doubts(gateway)) == (11, {"share"})

    def test_a_hundredth_of_many_may_go(self, gateway: Gateway) -> None:
        user = gateway.user()
        user.upload(Content(b"known"))
        known = keys(gateway, 1190)
        rows = ",".join(["(UNHEX(MD5(%s)), 1, UNHEX(SHA2(%s, 256)), REPEAT('\\0', 16), 'verified', NOW(6))"] * 1190)
        gateway.db.execute(
            f"INSERT INTO `blob` (id, size, digest, scope, state, created_at) VALUES {rows}",  # noqa: S608
            [key for key in known for _ in range(2)],
        )
        rows = ",".join(["(UNHEX(MD5(%s)), 'local', %s, NOW(6))"] * 1190)
        gateway.db.execute(
            f"INSERT INTO replica (blob_id, storage, object_key, created_at) VALUES {rows}",  # noqa: S608
            [key for key in known for _ in range(2)],
        )
        orphans = keys(gateway, 11)
        sweep(gateway)
        gateway.clock.turn(DAY)
        assert sweep(gateway)["objects_orphaned"] == 11
        assert left(gateway, known) == 1190
        assert left(gateway, orphans) == 0

    def test_a_person_accepts_and_they_go_when_they_are_old_enough(self, gateway: Gateway) -> None:
        orphans = keys(gateway, 30)
        sweep(gateway)
        gateway.clock.turn(DAY / 2)
        assert "objects_orphaned" not in sweep(gateway, accept=True)
        assert doubts(gateway) == set()
        gateway.clock.turn(DAY / 2)
        assert sweep(gateway)["objects_orphaned"] == 30
        assert left(gateway, orphans) == 0

    def test_what_comes_after_the_acceptance_is_not_accepted(self, gateway: Gateway) -> None:
        keys(gateway, 30)
        sweep(gateway, accept=True)
        later = keys(gateway, 30)
        for _ in range(3):
            sweep(gateway)
            gateway.clock.turn(DAY)
        assert left(gateway, later) == 30
        assert doubts(gateway) == {"share"}

    def test_a_doubt_ends_when_rows_explain_all(self, gateway: Gateway) -> None:
        orphans = keys(gateway, 30)
        sweep(gateway)
        assert doubts(gateway) == {"share"}
        for key in orphans:
            gateway.storage.delete(key)
        sweep(gateway)
        assert doubts(gateway) == set()

    def test_while_there_is_a_doubt_nothing_is_purged(self, gateway: Gateway, user: User) -> None:
        file = user.upload(Content(b"in the trash"))
        user.call("DELETE", f"/files/{file['id']}")
        keys(gateway, 30)
        for _ in range(3):
            gateway.clock.turn(20 * DAY)
            done = sweep(gateway)
            assert not {"files_purged", "blobs_deleted", "objects_deleted"} & set(done)
        assert sweep(gateway, accept=True)["files_purged"] == 1


class TestMissing:
    def test_a_row_without_its_object_is_reported_once_an_hour_and_until_it_is_back(
        self, gateway: Gateway, user: User
    ) -> None:
        user.upload(Content(b"lost"))
        ((key,),) = gateway.rows("SELECT object_key FROM replica")
        data = gateway.storage.objects.pop(key)
        assert sweep(gateway)["objects_missing"] == 1
        ((storage, found, _, since),) = gateway.services.sweep.missing()
        assert (storage, found, since) == ("local", key, gateway.clock())
        gateway.clock.turn(HOUR)
        sweep(gateway)
        assert gateway.services.sweep.missing()[0][3] == since
        assert gateway.rows("SELECT state FROM `blob`") == (("verified",),)
        gateway.storage.objects[key] = data
        sweep(gateway)
        ((blob,),) = gateway.rows("SELECT subject FROM job WHERE kind = 'mend'")
        assert gateway.take("mend", blob)
        assert gateway.services.sweep.missing() == []

    def test_a_storage_that_cannot_be_asked_has_lost_nothing(
        self, gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*_: object) -> int:
            raise StorageUnavailable("away")

        user.upload(Content(b"not lost"))
        monkeypatch.setattr(gateway.storage, "list_objects", lambda after="": iter(()))
        monkeypatch.setattr(gateway.storage, "stat", away)
        assert "objects_missing" not in sweep(gateway)
        assert gateway.services.sweep.missing() == []

    def test_lost_and_unknown_together_is_a_sign_of_wrong_rows(self, gateway: Gateway, user: User) -> None:
        user.upload(Content(b"lost too"))
        gateway.storage.objects.clear()
        orphans = keys(gateway, 1)
        for _ in range(3):
            sweep(gateway)
            gateway.clock.turn(DAY)
        assert (left(gateway, orphans), doubts(gateway)) == (1, {"missing"})
