"""The trash, blobs without references, and the effects of an old dump of the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from api.core import errors
from api.core.errors import StorageUnavailable
from api.files import trash_rows as trash
from api.sweep.run import Run
from tests.api.conftest import Content, Gateway, User, Watch, error, together
from tests.api.sweeping import DAY, doubts, left, sweep, swept_gateway

gateway = swept_gateway


def purge(gateway: Gateway) -> None:
    """The retention of the trash has passed, with the worker running all the time."""
    gateway.clock.turn(31 * DAY)
    sweep(gateway)


class TestTrash:
    def test_files_are_purged_after_thirty_days_and_their_content_with_them(self, gateway: Gateway, user: User) -> None:
        kept, gone = user.upload(Content(b"kept"), "kept"), user.upload(Content(b"gone"), "gone")
        user.call("DELETE", f"/files/{gone['id']}")
        gateway.clock.turn(30 * DAY)
        assert "files_purged" not in sweep(gateway)  # to the second
        gateway.clock.turn(1)
        done = sweep(gateway)
        assert (done["files_purged"], done["blobs_deleted"], done["objects_deleted"]) == (1, 1, 1)
        assert gateway.rows("SELECT LOWER(HEX(id)) FROM file") == ((kept["id"],),)
        assert list(gateway.storage.objects.values()) == [b"kept"]
        for table in ("blob", "blob_digest", "blob_parts", "replica"):
            assert len(gateway.rows(f"SELECT * FROM `{table}`")) == 1, table  # noqa: S608
        for table in ("doomed", "blob_candidate", "job"):
            assert gateway.rows(f"SELECT * FROM `{table}`") == (), table  # noqa: S608

    def test_content_that_another_file_is_on_stays(self, gateway: Gateway, user: User) -> None:
        content, other = Content(b"on two files"), gateway.user()
        mine, _ = user.upload(content), other.upload(content)
        user.call("DELETE", f"/files/{mine['id']}")
        purge(gateway)
        assert list(gateway.storage.objects.values()) == [content.data]
        assert gateway.rows("SELECT * FROM blob_candidate") == ()

    def test_a_corrupt_blob_goes_with_its_last_file(self, gateway: Gateway, user: User) -> None:
        file = user.upload(Content(b"corrupt"))
        gateway.db.execute("UPDATE `blob` SET state = 'corrupt'")
        gateway.db.execute("DELETE FROM blob_digest")
        user.call("DELETE", f"/files/{file['id']}")
        purge(gateway)
        assert gateway.storage.objects == {}
        assert gateway.rows("SELECT * FROM `blob`") == ()

    def test_one_whose_object_cannot_be_deleted_yet_keeps_its_rows(
        self, gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(key: str) -> None:
            raise StorageUnavailable("away")

        file = user.upload(Content(b"away"))
        user.call("DELETE", f"/files/{file['id']}")
        with monkeypatch.context() as patch:
            patch.setattr(gateway.storage, "delete", away)
            purge(gateway)
            sweep(gateway)
        assert gateway.rows("SELECT state FROM `blob`") == (("deleting",),)
        sweep(gateway)
        assert gateway.rows("SELECT state FROM `blob`") == ()
        assert gateway.storage.objects == {}

    def test_what_is_deleted_can_be_uploaded_again_at_every_moment(self, gateway: Gateway, user: User) -> None:
        content = Content(b"again and again")
        file = user.upload(content)
        user.call("DELETE", f"/files/{file['id']}")
        gateway.clock.turn(31 * DAY)
        purged = gateway.services.sweep._contents
        real = purged.delete_doomed

        def while_deleting(run: Any) -> None:
            assert gateway.rows("SELECT state FROM `blob`") == (("deleting",),)
            again.append(gateway.user().upload(content))
            real(run)

        again: list[dict[str, Any]] = []
        purged.delete_doomed = while_deleting  # type: ignore[method-assign]
        sweep(gateway)
        assert len(again) == 1
        assert list(gateway.storage.objects.values()) == [content.data]
        ((key,),) = gateway.rows("SELECT object_key FROM replica")
        assert gateway.storage.objects[key] == content.data

    def test_a_link_stays_dead_after_its_file_was_purged(self, gateway: Gateway, user: User) -> None:
        file = user.upload(Content(b"linked"))
        user.post(f"/files/{file['id']}/links", {"expires_in": 604_800})
        user.call("DELETE", f"/files/{file['id']}")
        gateway.db.execute("UPDATE file SET trashed_at = trashed_at - INTERVAL 40 DAY")
        assert sweep(gateway)["files_purged"] == 1
        answer = gateway.http.simulate_get(f"/internal/targets/{file['id']}", headers={"X-Sluice-Edge": "e" * 64})
        error(answer, 404, "FILE_NOT_FOUND")


class TestRace:
    """Every way to add a reference to a blob, at the moment of its deletion."""

    ROUNDS = 200

    @pytest.fixture
    def content(self) -> Content:
        """The smallest content with instant uploads."""
        return Content(b"r" * (8 * 1024**2 + 5))

    def test_never_is_there_a_file_whose_bytes_are_gone(self, gateway: Gateway, user: User, content: Content) -> None:
        racer, linked, deleted = gateway.user(), 0, 0
        for number in range(self.ROUNDS):
            file = user.upload(content)
            way = (self.prove, self.merge, self.restore)[number % 3]
            add = way(racer, user, file, content)
            user.call("DELETE", f"/files/{file['id']}")
            if way != self.restore:
                self.purge(gateway)
            _, gone = together(add, lambda: self.delete(gateway))
            deleted += gone
            gateway.services.sweep._contents.delete_doomed(Run(gateway.services.sweep._moments()))
            linked += self.whole(gateway, content)
            gateway.db.execute("UPDATE file SET trashed_at = %s", (gateway.clock.now.replace(tzinfo=None),))
        assert gateway.rows("SELECT COUNT(*) FROM `blob` WHERE state = 'verified'")[0][0] <= 1
        assert linked > 10, (linked, deleted)
        assert deleted > 10, (linked, deleted)

    def test_references_are_counted_behind_the_lock(self, gateway: Gateway, user: User) -> None:
        content, racer = Content(b"linked just before the lock"), gateway.user()
        file = user.upload(content)
        user.call("DELETE", f"/files/{file['id']}")
        self.purge(gateway)
        gateway.statements = Watch("SELECT state FROM `blob` WHERE id = %s FOR UPDATE", lambda: racer.upload(content))
        assert self.delete(gateway) == 0
        assert self.whole(gateway, content) == 1

    @staticmethod
    def prove(racer: User, user: User, file: dict[str, Any], content: Content) -> Callable[[], Any]:
        upload = racer.create(content, digest=content.digest)
        if upload["state"] != "proving":  # the one that was too late in the previous round
            racer.call("DELETE", f"/uploads/{upload['id']}")
            upload = racer.create(content, digest=content.digest)
        body = content.prove(upload["challenge"])
        return lambda: racer.post(f"/uploads/{upload['id']}/proof", body)

    @staticmethod
    def merge(racer: User, user: User, file: dict[str, Any], content: Content) -> Callable[[], Any]:
        upload = racer.create(content)
        racer.put(upload, content)
        return lambda: racer.complete(upload)

    @staticmethod
    def restore(racer: User, user: User, file: dict[str, Any], content: Content) -> Callable[[], Any]:
        return lambda: user.post(f"/files/{file['id']}/restore")

    @staticmethod
    def purge(gateway: Gateway) -> None:
        later, now = gateway.clock() + timedelta(seconds=1), gateway.clock()
        while due := trash.due(gateway.db, later):
            gateway.db.transaction(partial(trash.purge, file_ids=due, before=later, now=now))

    def delete(self, gateway: Gateway) -> int:
        """Sweeps. Returns the number of blobs marked for deletion."""
        self.purge(gateway)
        return sum(
            gateway.db.transaction(partial(trash.condemn, blob_id=blob_id, now=gateway.clock()))
            for blob_id in trash.candidates(gateway.db, b"")
        )

    @staticmethod
    def whole(gateway: Gateway, content: Content) -> int:
        """The number of live files. Each must have its bytes."""
        files = gateway.rows(
            "SELECT b.state, r.object_key FROM file f JOIN `blob` b ON b.id = f.blob_id "
            "LEFT JOIN replica r ON r.blob_id = b.id WHERE f.trashed_at IS NULL"
        )
        for state, key in files:
            assert (state, gateway.storage.objects.get(key)) == ("verified", content.data)
        return len(files)


class TestRestoredDump:
    """An old state of the database, beside a newer bucket."""

    @staticmethod
    def dump(gateway: Gateway) -> dict[str, Sequence[Any]]:
        tables = [name for (name,) in gateway.rows("SHOW TABLES") if "yoyo" not in name]
        return {name: gateway.rows(f"SELECT * FROM `{name}`") for name in tables}  # noqa: S608

    @staticmethod
    def restore(gateway: Gateway, dump: dict[str, Sequence[Any]]) -> None:
        with gateway.db._connection() as connection:
            cursor = connection.cursor()
            cursor.execute("SET foreign_key_checks = 0")
            for table, rows in dump.items():
                cursor.execute(f"DELETE FROM `{table}`")  # noqa: S608
                if rows:
                    values = ",".join(["%s"] * len(rows[0]))
                    cursor.executemany(f"INSERT INTO `{table}` VALUES ({values})", rows)  # noqa: S608
            cursor.execute("SET foreign_key_checks = 1")

    @pytest.mark.parametrize("age", [600, 2 * DAY, 60 * DAY])
    @pytest.mark.parametrize("idle", [0, 20 * DAY])
    def test_nothing_is_deleted_that_came_after_it(
        self, gateway: Gateway, user: User, age: float, idle: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("time.time_ns", lambda: int(gateway.clock().timestamp() * 1e9))
        old = user.upload(Content(b"in the dump"), "old")
        trashed = user.upload(Content(b"in the trash then"), "trashed")
        user.call("DELETE", f"/files/{trashed['id']}")
        sweep(gateway)
        dump = self.dump(gateway)
        user.post(f"/files/{trashed['id']}/restore")
        self.go_on(gateway, age)
        fresh = _again(user)
        fresh.upload(Content(b"after the dump"), "new")
        unfinished = fresh.create(Content(b"unfinished"))
        if idle:
            self.go_on(gateway, idle)
        before = dict(gateway.storage.objects)
        assert len(before) == 3
        self.restore(gateway, dump)
        for _ in range(30):
            gateway.services.sweep.run()
            gateway.clock.turn(DAY / 4)
        gateway.clock.turn(40 * DAY)
        gateway.services.sweep.run()
        gateway.clock.turn(DAY)
        gateway.services.sweep.run()
        assert left(gateway, list(before)) == 3
        assert doubts(gateway)
        if not idle:
            assert unfinished["id"] in gateway.storage.uploads
        assert _again(user).get(f"/files/{old['id']}").json["state"] == "ready"

    @staticmethod
    def go_on(gateway: Gateway, seconds: float) -> None:
        """Time passes while the worker runs."""
        for _ in range(12):
            gateway.clock.turn(seconds / 12)
            gateway.services.sweep.run()

    def test_a_worker_that_was_off_for_a_week_continues(self, gateway: Gateway, user: User) -> None:
        file = user.upload(Content(b"trashed before"))
        user.call("DELETE", f"/files/{file['id']}")
        gateway.clock.turn(60 * DAY)
        done = gateway.services.sweep.run()
        assert done["files_purged"] == 1  # every storage was listed, and there is no doubt
        assert doubts(gateway) == set()


def _again(user: User) -> User:
    body = {"username": user.name, "password": user.password}
    user.session = user.gateway.http.simulate_post("/api/v1/sessions", json=body).json
    return user


def test_a_restored_file_is_the_owners_or_said_to_be_gone(gateway: Gateway, user: User) -> None:
    file = user.upload(Content(b"purged under the owner"))
    user.call("DELETE", f"/files/{file['id']}")
    purge(gateway)
    error(_again(user).post(f"/files/{file['id']}/restore"), 404, errors.FILE_NOT_FOUND.code)
