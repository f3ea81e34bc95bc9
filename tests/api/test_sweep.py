"""The sweep: it frees what has ended, and leaves everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from api.core.errors import StorageUnavailable
from tests.api.conftest import Content, Gateway, User, fresh_database
from tests.conftest import Servers

WEEK = 604_800


@pytest.fixture
def gateway(build: Callable[..., Gateway], servers: Servers) -> Gateway:
    """The API with a separate database, because a sweep covers all of it."""
    return build(database_url=fresh_database(servers))


def again(user: User) -> User:
    """The account with a new session: its token has expired."""
    body = {"username": user.name, "password": user.password}
    user.session = user.gateway.http.simulate_post("/api/v1/sessions", json=body).json
    return user


def part_rows(gateway: Gateway, upload: dict[str, Any]) -> int:
    return int(gateway.rows("SELECT COUNT(*) FROM upload_part WHERE upload_id = UNHEX(%s)", upload["id"])[0][0])


def test_nothing_to_do_does_nothing(gateway: Gateway, user: User) -> None:
    user.create(Content(b"alive"))
    user.upload(Content(b"done"), "done")
    gateway.services.sweep.run()  # drops the part rows of the second
    assert gateway.services.sweep.run() == {}
    assert len(gateway.storage.uploads) == 1
    assert len(gateway.storage.objects) == 1


class TestExpiry:
    def test_uploads_whose_week_is_over_end_and_their_parts_are_freed(self, gateway: Gateway, user: User) -> None:
        one, proving = Content(b"late"), Content.of_parts(2, "late and proving")
        uploads = [user.create(one), user.create(proving, "p", digest=proving.digest)]
        user.put(uploads[0], one)
        gateway.clock.turn(WEEK)
        assert gateway.services.sweep.run()["uploads_expired"] == 0  # to the second
        gateway.clock.turn(1)
        young = again(user).create(one, "young")
        done = gateway.services.sweep.run()
        assert done["uploads_expired"] == 2
        assert list(gateway.storage.uploads) == [young["id"]]
        for upload in uploads:
            seen = user.get(f"/uploads/{upload['id']}").json
            assert (seen["state"], seen["error"]) == ("expired", "UPLOAD_EXPIRED")
            assert part_rows(gateway, upload) == 0
        assert user.get(f"/uploads/{young['id']}").json["state"] == "uploading"

    def test_what_is_being_finalized_never_expires(self, build: Callable[..., Gateway], servers: Servers) -> None:
        gateway = build(database_url=fresh_database(servers), finalize_inline=0)
        user, content = gateway.user(), Content(b"finalizing")
        upload = user.create(content)
        user.put(upload, content)
        user.complete(upload)
        gateway.clock.turn(2 * WEEK)
        assert gateway.services.sweep.run()["uploads_expired"] == 0
        gateway.take("finalize", bytes.fromhex(upload["id"]))
        assert again(user).get(f"/uploads/{upload['id']}").json["state"] == "done"

    def test_a_storage_that_is_away_is_swept_later(
        self, gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*_: object) -> None:
            raise StorageUnavailable("away")

        upload = user.create(Content(b"stuck"))
        gateway.clock.turn(WEEK + 1)
        with monkeypatch.context() as patch:
            patch.setattr(gateway.storage, "abort", away)
            assert gateway.services.sweep.run()["uploads_expired"] == 1
        with monkeypatch.context() as patch:
            patch.setattr(gateway.storage, "list_uploads", away)
            gateway.services.sweep.run()
        assert upload["id"] in gateway.storage.uploads
        assert gateway.services.sweep.run()["uploads_freed"] == 1
        assert gateway.storage.uploads == {}

    def test_more_than_a_batch_is_freed_in_one_sweep(self, gateway: Gateway, user: User) -> None:
        for n in range(90):
            user.call("DELETE", f"/uploads/{user.create(Content(b'x'), f'{n}')['id']}")
        ended = gateway.rows("SELECT LOWER(HEX(id)) FROM upload")
        for (upload_id,) in ended:
            gateway.storage.uploads[upload_id] = {1: b"x"}
        stranger = {f"{n:032x}": {1: b"x"} for n in range(60)} | {"lost+found": {}, "X" * 32: {}}
        gateway.storage.uploads |= stranger  # uploads of other deployments
        assert gateway.services.sweep.run()["uploads_freed"] == 90
        assert set(gateway.storage.uploads) == set(stranger)


class TestRows:
    def test_part_rows_of_ended_uploads_are_dropped_and_others_kept(self, gateway: Gateway, user: User) -> None:
        content = Content.of_parts(2, "kept rows")
        alive, done = user.create(content, "alive"), user.create(content, "done")
        user.put(alive, content)
        user.put(done, content)
        user.complete(done)
        assert part_rows(gateway, done) == 2
        assert gateway.services.sweep.run()["part_lists_dropped"] == 1
        assert (part_rows(gateway, alive), part_rows(gateway, done)) == (2, 0)
        assert user.complete(done).json["state"] == "done"
        assert user.complete(alive).json["state"] == "done"

    def test_ended_uploads_can_be_asked_for_for_a_week_and_their_files_stay(self, gateway: Gateway, user: User) -> None:
        file = user.upload(Content(b"outlives its upload"))
        (upload,) = user.get("/uploads").json["items"]
        gateway.clock.turn(WEEK)
        gateway.services.sweep.run()
        assert again(user).get(f"/uploads/{upload['id']}").status_code == 200
        gateway.clock.turn(1)
        assert gateway.services.sweep.run()["uploads_dropped"] == 1
        assert user.get(f"/uploads/{upload['id']}").status_code == 404
        assert user.get(f"/files/{file['id']}").json["state"] == "ready"

    def test_sessions_and_revocations_that_are_over_are_dropped(self, gateway: Gateway, user: User) -> None:
        user.call("DELETE", "/sessions/current")
        gateway.clock.turn(900 + 300)
        assert gateway.services.sweep.run()["revocations_dropped"] == 0
        gateway.clock.turn(1)
        assert gateway.services.sweep.run()["revocations_dropped"] == 1
        gateway.clock.turn(30 * 86_400 + WEEK)
        assert gateway.services.sweep.run()["sessions_dropped"] == 1
        assert gateway.rows("SELECT 1 FROM session") == ()


class TestDoomed:
    @pytest.fixture
    def doomed(self, gateway: Gateway) -> list[str]:
        """Objects without references."""
        keys = [f"0badcafe/{n:02x}/{n:032x}" for n in range(3)]
        for key in keys:
            gateway.storage.objects[key] = b"x"
            gateway.db.execute(
                "INSERT INTO doomed (storage, object_key, created_at) VALUES ('local', %s, NOW(6))", (key,)
            )
        return keys

    def test_doomed_objects_are_deleted_and_nothing_else(self, gateway: Gateway, user: User, doomed: list[str]) -> None:
        user.upload(Content(b"not doomed"))
        (kept,) = set(gateway.storage.objects) - set(doomed)
        assert gateway.services.sweep.run()["objects_deleted"] == 3
        assert list(gateway.storage.objects) == [kept]
        assert gateway.rows("SELECT 1 FROM doomed") == ()

    def test_one_that_cannot_be_deleted_stops_no_other_and_is_tried_again(
        self, gateway: Gateway, doomed: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = gateway.storage.delete

        def fail_one(key: str) -> None:
            if key == doomed[1]:
                raise StorageUnavailable("away")
            real(key)

        with monkeypatch.context() as patch:
            patch.setattr(gateway.storage, "delete", fail_one)
            assert gateway.services.sweep.run()["objects_deleted"] == 2
        assert list(gateway.storage.objects) == [doomed[1]]
        assert gateway.services.sweep.run()["objects_deleted"] == 1

    def test_one_of_a_storage_that_is_not_configured_stays(self, gateway: Gateway, doomed: list[str]) -> None:
        gateway.db.execute("UPDATE doomed SET storage = 'gone' WHERE object_key = %s", (doomed[0],))
        assert gateway.services.sweep.run()["objects_deleted"] == 2
        assert gateway.rows("SELECT object_key FROM doomed") == ((doomed[0],),)
