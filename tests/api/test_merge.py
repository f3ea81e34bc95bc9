"""Equal content uploaded twice: one blob, two files, and no user depends on another."""

from __future__ import annotations

from typing import Any

import pytest

from api.core.errors import StorageUnavailable
from tests.api.conftest import Content, Gateway, User, error, together


def blob_of(gateway: Gateway, file: dict[str, Any]) -> tuple[str, str]:
    """(blob's id, its object key) of a file."""
    sql = (
        "SELECT LOWER(HEX(f.blob_id)), r.object_key FROM file f JOIN replica r ON r.blob_id = f.blob_id "
        "WHERE f.id = UNHEX(%s)"
    )
    ((blob, key),) = gateway.rows(sql, file["id"])
    return blob, key


def doomed(gateway: Gateway) -> set[str]:
    return {key for (key,) in gateway.rows("SELECT object_key FROM doomed")}


@pytest.fixture
def gateway(gateway: Gateway) -> Gateway:
    """Without doomed objects of other tests."""
    gateway.db.execute("DELETE FROM doomed")
    return gateway


def test_content_that_comes_twice_is_stored_once(gateway: Gateway, user: User) -> None:
    content = Content(b"merged twice")
    first, second = user.upload(content, "one"), gateway.user().upload(content, "two")
    assert first["id"] != second["id"]
    assert blob_of(gateway, first) == blob_of(gateway, second)
    (loser,) = doomed(gateway)
    assert set(gateway.storage.objects) == {blob_of(gateway, first)[1], loser}
    gateway.services.sweep.run()
    assert set(gateway.storage.objects) == {blob_of(gateway, first)[1]}
    assert doomed(gateway) == set()


def test_users_who_upload_the_same_content_at_the_same_moment_both_succeed(gateway: Gateway) -> None:
    for n in range(4):
        content = Content(f"same moment {n}".encode())
        users = [gateway.user() for _ in range(4)]
        uploads = [user.create(content, digest=content.digest) for user in users]
        for user, upload in zip(users, uploads, strict=True):
            user.put(upload, content)
        answers = together(
            *[lambda u=user, up=upload: u.complete(up) for user, upload in zip(users, uploads, strict=True)]
        )
        assert [answer.json.get("state") for answer in answers] == ["done"] * 4, [answer.text for answer in answers]
        blobs = {blob_of(gateway, answer.json["file"]) for answer in answers}
        assert len(blobs) == 1
        ((_, kept),) = blobs
        assert len(gateway.rows("SELECT 1 FROM `blob` WHERE digest = UNHEX(%s)", content.digest)) == 1
        assert gateway.storage.objects[kept] == content.data
        assert kept not in doomed(gateway)
        assert len(doomed(gateway)) == 3 * (n + 1)
    gateway.services.sweep.run()
    assert len(gateway.storage.objects) == 4


def test_one_user_uploads_content_under_two_names_concurrently(gateway: Gateway, user: User) -> None:
    content = Content(b"merged names")
    uploads = [user.create(content, name) for name in ("a", "b")]
    for upload in uploads:
        user.put(upload, content)
    answers = together(*[lambda u=upload: user.complete(u) for upload in uploads])
    assert sorted(answer.json["file"]["name"] for answer in answers) == ["a", "b"]
    assert len({blob_of(gateway, answer.json["file"]) for answer in answers}) == 1


def test_deleting_one_leaves_the_other(gateway: Gateway, user: User) -> None:
    content, other = Content(b"merged and deleted"), gateway.user()
    mine, theirs = user.upload(content), other.upload(content)
    user.call("DELETE", f"/files/{mine['id']}")
    gateway.services.sweep.run()
    assert other.get(f"/files/{theirs['id']}").json["state"] == "ready"
    _, key = blob_of(gateway, theirs)
    assert gateway.storage.objects[key] == content.data
    target = gateway.http.simulate_get(f"/internal/targets/{theirs['id']}", headers={"X-Sluice-Edge": "e" * 64})
    assert target.json["uri"] == f"/{key}"
    error(user.post(f"/files/{mine['id']}/links"), 404, "FILE_NOT_FOUND")


@pytest.mark.parametrize("broken", ["lost", "cut"])
def test_a_first_object_that_is_not_whole_is_replaced_by_the_second(gateway: Gateway, user: User, broken: str) -> None:
    content = Content(f"heal {broken}".encode())
    first = user.upload(content, "one")
    blob, lost = blob_of(gateway, first)
    if broken == "lost":
        del gateway.storage.objects[lost]
    else:
        gateway.storage.objects[lost] = content.data[:-1]
    second = gateway.user().upload(content, "two")
    assert blob_of(gateway, second) == blob_of(gateway, first)
    healed_blob, key = blob_of(gateway, first)
    assert healed_blob == blob
    assert key != lost
    assert gateway.storage.objects[key] == content.data
    assert doomed(gateway) == {lost}


def test_two_concurrent_heals_leave_one_replica_and_doom_the_rest(gateway: Gateway, user: User) -> None:
    content = Content(b"heal twice")
    first = user.upload(content)
    _, lost = blob_of(gateway, first)
    del gateway.storage.objects[lost]
    users = [gateway.user() for _ in range(3)]
    uploads = [healer.create(content) for healer in users]
    for healer, upload in zip(users, uploads, strict=True):
        healer.put(upload, content)
    together(*[lambda h=healer, u=upload: h.complete(u) for healer, upload in zip(users, uploads, strict=True)])
    _, key = blob_of(gateway, first)
    assert gateway.storage.objects[key] == content.data
    assert doomed(gateway) == {lost, *gateway.storage.objects} - {key}


def test_a_storage_that_does_not_say_decides_nothing(
    gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Content(b"undecided")
    first, other = user.upload(content), gateway.user()
    upload = other.create(content)
    other.put(upload, content)

    def away(*_: object) -> int:
        raise StorageUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(gateway.storage, "open", away)
        error(other.complete(upload), 503, "STORAGE_UNAVAILABLE")
    assert doomed(gateway) == set()
    gateway.clock.turn(16)
    assert bytes.fromhex(upload["id"]) in gateway.due("finalize")
    gateway.take("finalize", bytes.fromhex(upload["id"]))
    done = other.get(f"/uploads/{upload['id']}").json
    assert blob_of(gateway, done["file"]) == blob_of(gateway, first)
    assert len(doomed(gateway)) == 1


def test_a_blob_that_is_being_deleted_is_not_merged_with(gateway: Gateway, user: User) -> None:
    content = Content(b"deleting")
    first, other = user.upload(content), gateway.user()
    blob, _ = blob_of(gateway, first)
    upload = other.create(content)
    other.put(upload, content)
    gateway.db.execute("UPDATE `blob` SET state = 'deleting' WHERE id = UNHEX(%s)", (blob,))
    error(other.complete(upload), 503, "STORAGE_UNAVAILABLE")
    gateway.db.execute("DELETE FROM blob_digest WHERE blob_id = UNHEX(%s)", (blob,))  # the deletion continues
    gateway.clock.turn(16)
    assert bytes.fromhex(upload["id"]) in gateway.due("finalize")
    gateway.take("finalize", bytes.fromhex(upload["id"]))
    done = other.get(f"/uploads/{upload['id']}").json
    assert done["state"] == "done"
    assert blob_of(gateway, done["file"])[0] != blob
