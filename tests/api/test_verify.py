"""Content that its storage did not compare: only its uploader can use it until it was read back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, cast

import pytest

from api.core import digests
from api.core.config import load
from api.core.errors import StorageUnavailable
from api.jobs import rows as jobs
from api.storage.base import Reader
from api.storage.memory import MemoryStorage
from tests.api.conftest import Content, Gateway, User, error


class Trusting(MemoryStorage):
    """Accepts any bytes, and can be made to fail or return wrong bytes."""

    def __init__(self) -> None:
        super().__init__(compares=False)
        self.away = False
        self.reads = 0
        self.lies = 0

    def open(self, object_key: str, offset: int = 0, length: int | None = None) -> Reader:
        self.reads += 1
        if self.away:
            raise StorageUnavailable("away")
        if self.lies:
            self.lies -= 1
            return super().open(object_key, offset + 1, length)
        return super().open(object_key, offset, length)


@pytest.fixture
def gateway(environ: dict[str, str]) -> Iterator[Gateway]:
    made = Gateway(load(environ), Trusting())
    made.db.execute("DELETE FROM job")
    yield made
    made.db.close()


def verify(gateway: Gateway) -> list[bool]:
    """Runs the worker's job once for each blob that is due."""
    return gateway.work("verify")


def state(user: User, file: dict[str, Any]) -> str:
    return str(user.get(f"/files/{file['id']}").json["state"])


def send(user: User, content: Content, bytes_sent: Content | None = None, name: str = "a") -> dict[str, Any]:
    """Uploads, with other bytes than declared if asked to."""
    upload = user.create(content, name, digest=content.digest)
    assert user.post(f"/uploads/{upload['id']}/parts", {"parts": content.hashes()}).status_code == 200
    stored = user.gateway.storage.uploads[upload["id"]]
    for number in range(1, upload["part_count"] + 1):
        stored[number] = (bytes_sent or content).part(number)
    done = user.complete(upload)
    assert done.status_code == 200, done.text
    file: dict[str, Any] = done.json["file"]
    return file


def test_a_file_is_verifying_until_it_was_read_back(gateway: Gateway, user: User) -> None:
    content = Content.of_parts(2, "read back")
    file = send(user, content)
    assert (file["state"], file["sha256"]) == ("verifying", None)
    assert verify(gateway) == [True]
    file = user.get(f"/files/{file['id']}").json
    assert (file["state"], file["sha256"]) == ("ready", hashlib.sha256(content.data).hexdigest())
    assert verify(gateway) == []


def test_its_uploader_may_download_it_meanwhile(user: User) -> None:
    file = send(user, Content(b"mine"))
    assert user.post(f"/files/{file['id']}/links").status_code == 201


def test_no_file_is_linked_to_it_before(gateway: Gateway, user: User) -> None:
    content = Content.of_parts(2, "not before")
    send(user, content)
    other = gateway.user()
    upload = other.create(content, digest=content.digest)
    assert upload["state"] == "proving"
    proof = content.prove(upload["challenge"])
    assert other.post(f"/uploads/{upload['id']}/proof", proof).json["state"] == "uploading"
    assert user.create(content, "again", digest=content.digest)["state"] == "proving"
    verify(gateway)
    third = gateway.user()
    upload = third.create(content, digest=content.digest)
    proof = content.prove(upload["challenge"])
    assert third.post(f"/uploads/{upload['id']}/proof", proof).json["state"] == "done"


def test_other_bytes_than_declared_are_found_corrupt_and_match_nobody(gateway: Gateway, user: User) -> None:
    content, junk = Content.of_parts(2, "victim's"), Content.of_parts(2, "junk")
    file = send(user, content, junk)
    assert verify(gateway) == [True]
    assert state(user, file) == "corrupt"
    error(user.post(f"/files/{file['id']}/links"), 410, "FILE_CORRUPT")
    assert gateway.rows("SELECT 1 FROM blob_digest WHERE digest = UNHEX(%s)", content.digest) == ()
    again = send(user, content, name="again")  # the owner can upload it again
    verify(gateway)
    assert state(user, again) == "ready"


def test_junk_under_a_good_digest_is_not_merged_with_the_good(gateway: Gateway, user: User) -> None:
    content = Content.of_parts(2, "good")
    good = send(user, content)
    verify(gateway)
    thief = gateway.user()
    bad = send(thief, content, Content.of_parts(2, "bad"))
    verify(gateway)
    assert (state(user, good), state(thief, bad)) == ("ready", "corrupt")


def test_the_same_content_twice_ends_as_one_blob(gateway: Gateway, user: User) -> None:
    content = Content(b"twice read back")
    other = gateway.user()
    one, two = send(user, content), send(other, content)
    assert verify(gateway) == [True, True]
    assert (state(user, one), state(other, two)) == ("ready", "ready")
    assert len(gateway.rows("SELECT 1 FROM `blob` WHERE digest = UNHEX(%s)", content.digest)) == 1
    gateway.services.sweep.run()
    assert list(gateway.storage.objects.values()).count(content.data) == 1


def test_a_lost_first_copy_is_healed_by_the_second(gateway: Gateway, user: User) -> None:
    content = Content(b"healed by the second")
    one = send(user, content)
    verify(gateway)
    gateway.storage.objects.clear()
    two = send(gateway.user(), content)
    assert two["state"] == "verifying"
    verify(gateway)
    assert len(gateway.rows("SELECT 1 FROM `blob` WHERE digest = UNHEX(%s)", content.digest)) == 1
    gateway.services.sweep.run()
    assert list(gateway.storage.objects.values()) == [content.data]
    assert state(user, one) == "ready"


@pytest.mark.parametrize("later", ["read back", "compared at once"])
def test_a_first_copy_that_was_found_corrupt_is_healed_by_the_second(
    gateway: Gateway, user: User, later: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Content.of_parts(2, f"found corrupt, {later}")
    one = send(user, content)
    verify(gateway)
    (key,) = gateway.storage.objects
    gateway.storage.objects[key] = b"x" * content.size
    gateway.db.execute("UPDATE `blob` SET state = 'corrupt' WHERE digest = UNHEX(%s)", (content.digest,))
    error(user.post(f"/files/{one['id']}/links"), 410, "FILE_CORRUPT")
    send(gateway.user(), content, Content.of_parts(2, "junk for the corrupt"))
    verify(gateway)
    assert state(user, one) == "corrupt"  # never by bytes that are wrong themselves
    monkeypatch.setattr(gateway.storage, "_compares", later != "read back")
    other = gateway.user()
    two = send(other, content)
    verify(gateway)
    assert (state(user, one), state(other, two)) == ("ready", "ready")
    sql = "SELECT COUNT(*) FROM `blob` WHERE digest = UNHEX(%s) AND state = 'verified'"
    assert gateway.rows(sql, content.digest) == ((1,),)
    gateway.services.sweep.run()
    assert [data for data in gateway.storage.objects.values() if data == content.data] == [content.data]
    assert key not in gateway.storage.objects


def test_a_storage_that_is_away_declares_nothing(gateway: Gateway, user: User) -> None:
    file = send(user, Content(b"away for a while"))
    storage = gateway.storage
    assert isinstance(storage, Trusting)
    storage.away = True
    assert verify(gateway) == [True]
    assert state(user, file) == "verifying"
    assert verify(gateway) == []  # not again immediately
    storage.away = False
    gateway.clock.turn(60)
    assert verify(gateway) == [True]
    assert state(user, file) == "ready"


def test_one_wrong_reading_declares_nothing(gateway: Gateway, user: User) -> None:
    file = send(user, Content(b"read wrong once"))
    assert isinstance(gateway.storage, Trusting)
    gateway.storage.lies = 1
    verify(gateway)
    assert state(user, file) == "ready"


def test_a_killed_reader_is_followed_by_another_at_the_last_right_part(gateway: Gateway, user: User) -> None:
    content = Content.of_parts(3, "killed reader")
    file = send(user, content)
    ((blob,),) = gateway.rows("SELECT subject FROM job")
    now = gateway.clock.now.replace(tzinfo=None)
    gateway.db.execute(
        "UPDATE job SET place = 2, lease_owner = %s, lease_until = %s WHERE subject = %s", (b"k" * 16, now, blob)
    )
    assert isinstance(gateway.storage, Trusting)
    assert verify(gateway) == []  # its lease is valid
    gateway.clock.turn(1)
    assert verify(gateway) == [True]
    assert gateway.storage.reads == 1
    assert state(user, file) == "ready"


def test_a_large_one_is_read_in_segments_and_its_whole_hash_goes_through_all_of_them(
    gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.blobs.verify.SEGMENT_BYTES", 2 * digests.MIN_PART_SIZE)
    content = Content.of_parts(5, "in segments")
    file = send(user, content)
    places = []
    while verify(gateway):
        places += [place for (place,) in gateway.rows("SELECT place FROM job")]
    assert places == [2, 4]
    assert isinstance(gateway.storage, Trusting)
    assert gateway.storage.reads == 5
    assert user.get(f"/files/{file['id']}").json["sha256"] == hashlib.sha256(content.data).hexdigest()


def test_a_whole_hash_that_is_computed_later_continues_where_it_was(
    gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Content.of_parts(5, "whole in segments")
    file = send(user, content)
    verify(gateway)
    gateway.rows("UPDATE `blob` SET sha256 = NULL WHERE digest = UNHEX(%s)", content.digest)
    ((blob,),) = gateway.rows("SELECT blob_id FROM file WHERE id = UNHEX(%s)", file["id"])
    jobs.insert(gateway.db, "verify", blob, gateway.clock())
    monkeypatch.setattr("api.blobs.verify.SEGMENT_BYTES", 2 * digests.MIN_PART_SIZE)
    assert isinstance(gateway.storage, Trusting)
    gateway.storage.reads = 0
    assert [verify(gateway) for _ in range(4)] == [[True], [True], [True], []]
    assert gateway.storage.reads == 5
    assert user.get(f"/files/{file['id']}").json["sha256"] == hashlib.sha256(content.data).hexdigest()


def test_an_unverified_blob_without_a_job_gets_one(gateway: Gateway, user: User) -> None:
    file = send(user, Content(b"without a job"))
    gateway.db.execute("DELETE FROM job")
    assert cast(Any, gateway.services.jobs["verify"]).rescue() == 1
    assert cast(Any, gateway.services.jobs["verify"]).rescue() == 0
    verify(gateway)
    assert state(user, file) == "ready"


def test_what_was_uploaded_is_enqueued_when_its_row_is_there(gateway: Gateway, user: User) -> None:
    gateway.queue.kept.clear()
    send(user, Content(b"enqueued"))
    ((blob,),) = gateway.rows("SELECT subject FROM job")
    assert gateway.queue.kept == [("verify", blob)]
    assert gateway.take(*gateway.queue.kept[0])


def test_a_small_one_costs_eight_statements(gateway: Gateway, user: User) -> None:
    send(user, Content(b"statements of a job"))
    (blob,) = gateway.due("verify")
    gateway.statements.clear()
    assert gateway.take("verify", blob)
    assert len(gateway.statements) == 8, "\n".join(sql for sql, _ in gateway.statements)


def test_two_concurrent_readers_share_nothing(gateway: Gateway, user: User) -> None:
    send(user, Content(b"two readers"))
    (blob,) = gateway.due("verify")
    assert [gateway.take("verify", blob), gateway.take("verify", blob)] == [True, False]


def test_the_whole_hash_of_verified_content_is_computed_later(gateway: Gateway, user: User) -> None:
    content = Content.of_parts(3, "hash later")
    file = send(user, content)
    verify(gateway)
    ((blob,),) = gateway.rows("SELECT blob_id FROM file WHERE id = UNHEX(%s)", file["id"])
    gateway.db.execute("UPDATE `blob` SET sha256 = NULL WHERE id = %s", (blob,))
    jobs.insert(gateway.db, "verify", blob, gateway.clock())
    assert verify(gateway) == [True]
    assert user.get(f"/files/{file['id']}").json["sha256"] == hashlib.sha256(content.data).hexdigest()
    assert verify(gateway) == []
