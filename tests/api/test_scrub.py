"""Stored bytes are read again: healed from another replica, reported if there is none, never judged without a read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.conftest import Content, User, error, fresh_database
from tests.api.two import DAY, Two
from tests.conftest import Servers


@pytest.fixture
def gateway(environ: dict[str, str], servers: Servers) -> Iterator[Two]:
    made = Two(environ | {"SLUICE_DATABASE_URL": fresh_database(servers), "SLUICE_SCRUB_RATE": str(10**12)})
    yield made
    made.db.close()


@pytest.fixture
def file(user: User) -> dict[str, Any]:
    return user.upload(Content(b"scrubbed"))


def test_what_is_right_is_noted_and_its_whole_hash_filled_in(gateway: Two, user: User) -> None:
    content = Content.of_parts(2, "scrubbed whole")
    made = user.upload(content)
    gateway.db.execute("UPDATE `blob` SET sha256 = NULL")
    gateway.scrub()
    ((checked, sha256),) = gateway.rows(
        "SELECT r.checked_at, b.sha256 FROM replica r JOIN `blob` b ON b.id = r.blob_id"
    )
    assert checked == gateway.clock().replace(tzinfo=None)
    assert sha256 == hashlib.sha256(content.data).digest()
    assert gateway.rows("SELECT 1 FROM job") == ()
    assert gateway.states() == ["verified"]
    assert made["state"] == "ready"


def test_nothing_is_read_before_its_time(gateway: Two, file: dict[str, Any]) -> None:
    gateway.storage.reads = 0
    gateway.services.jobs["scrub"].plan()  # type: ignore[attr-defined]
    assert gateway.rows("SELECT 1 FROM job") == ()
    gateway.clock.turn(29 * DAY)
    gateway.services.jobs["scrub"].plan()  # type: ignore[attr-defined]
    assert gateway.rows("SELECT 1 FROM job") == ()
    assert gateway.storage.reads == 0


def test_at_most_two_wait_and_all_get_their_turn(gateway: Two, user: User) -> None:
    for n in range(7):
        user.upload(Content(f"one of seven {n}".encode()))
    gateway.clock.turn(31 * DAY)
    gateway.services.jobs["scrub"].plan()  # type: ignore[attr-defined]
    gateway.services.jobs["scrub"].plan()  # type: ignore[attr-defined]
    assert len(gateway.rows("SELECT 1 FROM job")) == 2
    gateway.clock.turn(-31 * DAY)
    gateway.scrub()
    assert gateway.rows("SELECT 1 FROM replica WHERE checked_at < %s", gateway.clock().replace(tzinfo=None)) == ()


@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
@pytest.mark.parametrize("compares", [True, False])
def test_a_damaged_replica_is_written_anew_from_another(
    gateway: Two, file: dict[str, Any], user: User, how: str, compares: bool
) -> None:
    data, key = b"scrubbed", gateway.key()
    gateway.copy(data)
    gateway.storage._compares = compares
    if how == "gone":
        del gateway.storage.objects[key]
    else:
        gateway.storage.objects[key] = b"scrabbed" if how == "flipped" else data[:-1]
    gateway.scrub()
    assert gateway.key() != key
    assert gateway.storage.objects[gateway.key()] == data
    assert gateway.states() == ["verified"]
    assert gateway.rows("SELECT object_key FROM doomed") == ((key,),)
    assert gateway.rows("SELECT 1 FROM healing") == ()
    assert gateway.services.sweep.run()["objects_deleted"] == 1
    assert list(gateway.storage.objects.values()) == [data]
    assert gateway.services.sweep.by_hand(lambda *_: None) is not None
    assert gateway.services.sweep.doubts() == []


def test_one_wrong_reading_declares_nothing(gateway: Two, file: dict[str, Any]) -> None:
    key = gateway.key()
    gateway.storage.lies = 1
    gateway.scrub()
    assert (gateway.key(), gateway.states()) == (key, ["verified"])


def test_without_another_replica_the_blob_is_corrupt_and_can_be_uploaded_again(
    gateway: Two, file: dict[str, Any], user: User
) -> None:
    gateway.storage.objects[gateway.key()] = b"scrabbed"
    gateway.scrub()
    assert gateway.states() == ["corrupt"]
    body = {"username": user.name, "password": user.password}
    user.session = gateway.http.simulate_post("/api/v1/sessions", json=body).json
    assert user.get(f"/files/{file['id']}").json["state"] == "corrupt"
    error(user.post(f"/files/{file['id']}/links"), 410, "FILE_CORRUPT")
    again = user.upload(Content(b"scrubbed"), digest=Content(b"scrubbed").digest)
    assert again["state"] == "ready"
    gateway.scrub()  # a corrupt blob is not read again
    assert sorted(gateway.states()) == ["corrupt", "verified"]


def test_two_damaged_replicas_are_no_help_to_each_other(gateway: Two, file: dict[str, Any]) -> None:
    second = gateway.copy(b"scrubbed")
    gateway.storage.objects[gateway.key()] = b"scrabbed"
    gateway.second.objects[second] = b"scribbed"
    gateway.scrub()
    assert gateway.states() == ["corrupt"]
    assert gateway.rows("SELECT 1 FROM healing") == ()
    assert gateway.storage.uploads == {}


def test_a_gone_object_is_reported_not_declared_corrupt_and_its_owner_heals_it(
    gateway: Two, file: dict[str, Any], user: User
) -> None:
    key = gateway.key()
    del gateway.storage.objects[key]
    gateway.scrub()
    assert gateway.states() == ["verified"]
    assert [row[1] for row in gateway.services.sweep.missing()] == [key]
    body = {"username": user.name, "password": user.password}
    user.session = gateway.http.simulate_post("/api/v1/sessions", json=body).json
    user.upload(Content(b"scrubbed"), "again", digest=Content(b"scrubbed").digest)
    assert gateway.services.sweep.missing() == []
    assert gateway.storage.objects[gateway.key()] == b"scrubbed"
    assert len(gateway.states()) == 1


def test_a_storage_that_is_away_is_not_judged_and_blocks_no_other(gateway: Two, file: dict[str, Any]) -> None:
    gateway.copy(b"scrubbed")
    gateway.storage.objects[gateway.key()] = b"scrabbed"
    gateway.second.away = True
    gateway.scrub()
    assert gateway.states() == ["verified"]
    gateway.second.away = False
    gateway.clock.turn(600)
    gateway.services.jobs["scrub"]._stores._asked.clear()  # type: ignore[attr-defined]
    gateway.scrub()
    assert gateway.storage.objects[gateway.key()] == b"scrubbed"


def test_a_long_one_continues_where_it_stopped(gateway: Two, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    content = Content.of_parts(4, "scrubbed in segments")
    user.upload(content)
    gateway.db.execute("UPDATE `blob` SET sha256 = NULL")
    monkeypatch.setattr("api.blobs.scrub.SEGMENT_BYTES", 1)
    gateway.storage.reads = 0
    gateway.scrub()
    assert gateway.storage.reads == 4
    ((sha256,),) = gateway.rows("SELECT sha256 FROM `blob`")
    assert sha256 == hashlib.sha256(content.data).digest()


def test_a_rate_of_nothing_reads_nothing(environ: dict[str, str], servers: Servers) -> None:
    made = Two(environ | {"SLUICE_DATABASE_URL": fresh_database(servers), "SLUICE_SCRUB_RATE": "0"})
    try:
        made.user().upload(Content(b"never read"))
        made.scrub()
        assert made.rows("SELECT 1 FROM job") == ()
    finally:
        made.db.close()
