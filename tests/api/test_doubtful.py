"""Completes without a clean response: acknowledged content stays whole, and remains are deleted.

Storage in memory loses bytes like Ceph RGW: an abort of an upload that was left open frees its object's bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from api.core.errors import CompleteDoubtful
from api.storage.base import Completed, MultipartRef
from api.storage.wholeness import is_whole as stored_whole
from tests.api.conftest import Content, Gateway, User, error
from tests.api.sweeping import DAY, swept_gateway
from tests.api.test_complete import LEASE_OVER, ready, state

__all__ = ["swept_gateway"]

CUTS = ["unmade", "open", "closed"]


@pytest.fixture(autouse=True)
def doubtful(gateway: Gateway) -> None:
    gateway.storage.doubtful = True


def key_of(gateway: Gateway, file: dict[str, Any]) -> str:
    """The key of a file's object."""
    sql = "SELECT r.object_key FROM file f JOIN replica r ON r.blob_id = f.blob_id WHERE f.id = UNHEX(%s)"
    return str(gateway.rows(sql, file["id"])[0][0])


def row(gateway: Gateway, upload: dict[str, Any]) -> tuple[str, str | None, int]:
    """(object key, copy key, completes sent)."""
    sql = "SELECT object_key, copy_key, completes_sent FROM upload WHERE id = UNHEX(%s)"
    key, copy_key, sent = gateway.rows(sql, upload["id"])[0]
    return key, copy_key, sent


def is_whole(gateway: Gateway, upload: dict[str, Any], content: Content) -> bool:
    """Whether the upload is done and its content is readable."""
    sql = (
        "SELECT u.state, b.state, r.object_key FROM upload u JOIN file f ON f.id = u.file_id "
        "JOIN `blob` b ON b.id = f.blob_id JOIN replica r ON r.blob_id = b.id WHERE u.id = UNHEX(%s)"
    )
    ((upload_state, blob_state, key),) = gateway.rows(sql, upload["id"])
    assert (upload_state, blob_state) == ("done", "verified")
    return stored_whole(gateway.storage, key, content.size) and gateway.storage.objects[key] == content.data


def sweep_for_days(gateway: Gateway, days: int = 3) -> None:
    for _ in range(days):
        gateway.services.sweep.run()
        gateway.clock.turn(DAY + 1)
    gateway.services.sweep.run()


@pytest.mark.parametrize("cut", CUTS)
def test_it_is_finalizing_until_a_worker_has_brought_the_object_under_another_key(
    gateway: Gateway, user: User, cut: str
) -> None:
    content = Content.of_parts(2, f"cut {cut}")
    upload = ready(user, content)
    gateway.storage.cut = cut
    answer = user.complete(upload)
    assert (answer.status_code, answer.json["state"], answer.json["file"]) == (202, "finalizing", None)
    gateway.storage.cut = ""
    for _ in range(3):
        assert user.complete(upload).status_code == 202, "a client repeats the call, and the complete is not repeated"
    assert gateway.storage.completes.count(upload["id"]) == 1
    old, new, _ = row(gateway, upload)
    assert new not in (None, old)
    assert gateway.queue.kept[-1] == ("finalize", bytes.fromhex(upload["id"]))
    assert gateway.take(*gateway.queue.kept[-1])
    assert is_whole(gateway, upload, content)
    assert key_of(gateway, state(user, upload)["file"]) == new
    assert user.complete(upload).json["state"] == "done"
    sweep_for_days(gateway)
    assert is_whole(gateway, upload, content)
    assert old not in gateway.storage.objects
    assert upload["id"] not in gateway.storage.uploads


def test_one_that_no_object_was_made_of_is_completed_again_by_the_worker_alone(gateway: Gateway, user: User) -> None:
    content = Content(b"made again")
    upload = ready(user, content)
    gateway.storage.cut = "unmade"
    user.complete(upload)
    gateway.storage.cut = ""
    gateway.work("finalize")
    assert gateway.storage.completes.count(upload["id"]) == 2
    assert is_whole(gateway, upload, content)


@pytest.mark.parametrize("cut", [*CUTS, "unsent"])
def test_the_row_knows_of_a_complete_whose_process_died(
    gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    content = Content(f"died {cut}".encode())
    upload = ready(user, content)
    real = gateway.storage.complete

    class Died(BaseException):
        pass

    def die(ref: MultipartRef, hashes: bytes, keep_alive: Callable[[], None]) -> Completed:
        if cut != "unsent":
            gateway.storage.cut = cut
            with pytest.raises(CompleteDoubtful):
                real(ref, hashes, keep_alive)
            gateway.storage.cut = ""
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(gateway.storage, "complete", die)
        with pytest.raises(Died):
            user.complete(upload)
    old, new, sent = row(gateway, upload)
    assert (new, sent) == (None, 1)
    assert user.complete(upload).status_code == 202
    gateway.clock.turn(LEASE_OVER)
    gateway.work("finalize")
    assert is_whole(gateway, upload, content)
    assert key_of(gateway, state(user, upload)["file"]) != old
    sweep_for_days(gateway)
    assert is_whole(gateway, upload, content)


def test_a_worker_that_dies_with_the_copy_half_done_is_followed_by_one_that_copies_to_the_same_key(
    gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Content(b"half a copy")
    upload = ready(user, content)
    gateway.storage.cut = "open"
    user.complete(upload)
    gateway.storage.cut = ""
    keys: list[str] = []
    real = gateway.storage.copy_completed

    def die(ref: MultipartRef, object_key: str, keep_alive: Callable[[], None]) -> Completed:
        keys.append(object_key)
        real(ref, object_key, keep_alive)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gateway.storage, "copy_completed", die)
        with pytest.raises(KeyboardInterrupt):
            gateway.work("finalize")
    gateway.clock.turn(100)
    gateway.work("finalize")
    assert is_whole(gateway, upload, content)
    assert keys == [key_of(gateway, state(user, upload)["file"])]


def test_a_copy_that_is_in_doubt_itself_gets_another_key(
    gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Content(b"doubt of a copy")
    upload = ready(user, content)
    gateway.storage.cut = "open"
    user.complete(upload)
    gateway.storage.cut = ""
    first = row(gateway, upload)[1]
    assert first is not None

    def doubt(ref: MultipartRef, object_key: str, keep_alive: Callable[[], None]) -> Completed:
        gateway.storage.objects[object_key] = b"?"
        raise CompleteDoubtful("of the copy")

    with monkeypatch.context() as patch:
        patch.setattr(gateway.storage, "copy_completed", doubt)
        gateway.work("finalize")
    gateway.clock.turn(100)
    gateway.work("finalize")
    assert is_whole(gateway, upload, content)
    assert key_of(gateway, state(user, upload)["file"]) != first
    sweep_for_days(gateway)
    assert first not in gateway.storage.objects
    assert is_whole(gateway, upload, content)


def test_where_neither_object_nor_parts_are_left_the_client_is_told_and_sends_again(
    gateway: Gateway, user: User
) -> None:
    content = Content(b"lost for good")
    upload = ready(user, content)
    gateway.storage.cut = "unmade"
    assert user.complete(upload).status_code == 202
    gateway.storage.cut = ""
    gateway.storage.uploads.clear()
    gateway.work("finalize")
    assert (state(user, upload)["state"], state(user, upload)["error"]) == ("failed", "UPLOAD_GONE")
    error(user.complete(upload), 410, "UPLOAD_GONE")
    again = ready(user, content)
    assert user.complete(again).json["state"] == "done"
    sweep_for_days(gateway)
    assert gateway.rows("SELECT 1 FROM doomed") == ()


def test_parts_that_are_missing_behind_a_doubtful_complete_are_sent_again(gateway: Gateway, user: User) -> None:
    content = Content.of_parts(2, "missing behind a doubt")
    upload = ready(user, content)
    gateway.storage.cut = "unmade"
    user.complete(upload)
    gateway.storage.cut = ""
    del gateway.storage.uploads[upload["id"]][2]
    gateway.work("finalize")
    found = state(user, upload)
    assert (found["state"], found["missing"]) == ("uploading", [[2, 2]])
    user.put(upload, content, [2])
    assert user.complete(upload).status_code == 202, "no client waits for long work"
    gateway.work("finalize")
    assert is_whole(gateway, upload, content)
    assert key_of(gateway, state(user, upload)["file"]) == row(gateway, upload)[1]


def test_a_merge_takes_the_copy(gateway: Gateway, user: User) -> None:
    content = Content(b"the same twice")
    first, other = user.upload(content), gateway.user()
    upload = ready(other, content)
    gateway.storage.cut = "open"
    other.complete(upload)
    gateway.storage.cut = ""
    gateway.work("finalize")
    assert is_whole(gateway, upload, content)
    assert key_of(gateway, state(other, upload)["file"]) == key_of(gateway, first)
    sweep_for_days(gateway)
    assert is_whole(gateway, upload, content)
    assert not {*row(gateway, upload)[:2]} & set(gateway.storage.objects)


class TestObjectsInDanger:
    """Objects of older versions, whose uploads were left open. They are never aborted."""

    @pytest.fixture
    def file(self, gateway: Gateway, user: User) -> dict[str, Any]:
        content = Content(b"in danger")
        upload = user.create(content)
        user.put(upload, content)
        parts = dict(gateway.storage.uploads[upload["id"]])
        file: dict[str, Any] = user.complete(upload).json["file"]
        gateway.storage.uploads[upload["id"]] = parts
        return file

    def test_an_open_upload_whose_object_is_a_replica_is_never_aborted(
        self, gateway: Gateway, file: dict[str, Any]
    ) -> None:
        key = key_of(gateway, file)
        for _ in range(12):  # the upload's row is deleted after a week
            found = gateway.services.sweep.by_hand(lambda kind, text: None, accept=True)
            assert found is not None
            gateway.clock.turn(DAY + 1)
        assert gateway.rows("SELECT 1 FROM upload WHERE object_key = %s", key) == ()
        assert stored_whole(gateway.storage, key, file["size"])

    def test_the_sweep_says_so(self, gateway: Gateway, file: dict[str, Any]) -> None:
        told: list[str] = []
        gateway.services.sweep.by_hand(lambda kind, text: told.append(f"{kind}: {text}"), dry=True)
        danger = [text for text in told if text.startswith("objects_in_danger")]
        assert len(danger) == 1
        assert key_of(gateway, file) in danger[0]

    def test_the_command_brings_them_under_new_keys_before_anything_is_aborted(
        self, gateway: Gateway, file: dict[str, Any]
    ) -> None:
        key, told = key_of(gateway, file), list[str]()

        def run(*, dry: bool = False) -> dict[str, int]:
            return dict(gateway.services.rescuer.run("local", lambda what, about: told.append(about), dry=dry))

        assert run(dry=True) == {"in danger": 1}
        assert key_of(gateway, file) == key
        assert run() == {"rescued": 1}
        assert all(key in about for about in told)
        new = key_of(gateway, file)
        assert new != key
        assert run() == {}
        assert gateway.storage.objects[key] == b"in danger", "an edge may be serving it"
        sweep_for_days(gateway)
        assert stored_whole(gateway.storage, new, file["size"])
        assert gateway.storage.objects.keys() & {key, new} == {new}
        assert key.rpartition("/")[2] not in gateway.storage.uploads

    def test_a_rescue_that_was_killed_continues(
        self, gateway: Gateway, file: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def die(*_: object) -> None:
            raise KeyboardInterrupt

        for place in ("copy", "stat"):
            with monkeypatch.context() as patch:
                patch.setattr(gateway.storage, place, die)
                with pytest.raises(KeyboardInterrupt):
                    gateway.services.rescuer.run("local", lambda what, about: None, dry=False)
        ((begun,),) = gateway.rows("SELECT object_key FROM healing")
        assert gateway.services.rescuer.run("local", lambda what, about: None, dry=False) == {"rescued": 1}
        assert key_of(gateway, file) == begun
        assert gateway.rows("SELECT 1 FROM healing") == ()

    def test_one_whose_bytes_are_gone_is_reported_as_lost(self, gateway: Gateway, file: dict[str, Any]) -> None:
        key = key_of(gateway, file)
        gateway.storage.lost.add(key)
        assert gateway.services.rescuer.run("local", lambda what, about: None, dry=False) == {"lost": 1}
        assert key_of(gateway, file) == key
        assert gateway.rows("SELECT 1 FROM healing") == ()
        assert gateway.rows("SELECT kind FROM job WHERE kind = 'mend'") == (("mend",),)
