"""Transfers when storages fail or lie, or the worker dies: never a wrong copy, never an object without a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.core import digests
from api.core.errors import StorageError, StorageUnavailable
from api.storage.base import Completed, MultipartRef, Reader
from api.storage.memory import MemoryStorage
from tests.api.conftest import User, fresh_database, settings
from tests.api.moving import Moving
from tests.conftest import Servers

MIB8 = digests.MIN_PART_SIZE


class Killed(BaseException):
    """The worker dies between two statements."""


class Flaky(MemoryStorage):
    """Calls the test before and after each of its calls, and can return wrong bytes.

    Attributes:
        before, after: called with the call's name.
        lies: by object key, the number of following reads that return a wrong byte.
        calls: the calls so far.
    """

    def __init__(self, *, enforces_sha256: bool = False, compares: bool = True) -> None:
        super().__init__(enforces_sha256=enforces_sha256, compares=compares)
        self.before: Callable[[str], None] = lambda call: None
        self.after: Callable[[str], None] = lambda call: None
        self.lies: dict[str, int] = {}
        self.calls: list[str] = []
        self.away = False

    def _do(self, call: str, act: Callable[[], Any]) -> Any:
        self.calls.append(call)
        if self.away:
            raise StorageUnavailable("away")
        self.before(call)
        found = act()
        self.after(call)
        return found

    def check(self) -> None:
        self._do("check", super().check)

    def create(self, ref: MultipartRef) -> str:
        return str(self._do("create", lambda: MemoryStorage.create(self, ref)))

    def write_part(self, ref: MultipartRef, number: int, body: Iterable[bytes], sha256: str) -> None:
        self._do("write_part", lambda: MemoryStorage.write_part(self, ref, number, body, sha256))

    def complete(self, ref: MultipartRef, hashes: bytes, keep_alive: Callable[[], None]) -> Completed:
        found: Completed = self._do("complete", lambda: MemoryStorage.complete(self, ref, hashes, keep_alive))
        return found

    def open(self, object_key: str, offset: int = 0, length: int | None = None) -> Reader:
        if self.lies.get(object_key):
            self.lies[object_key] -= 1
            data = bytearray(MemoryStorage.open(self, object_key, offset, length).read())
            data[len(data) // 2] ^= 1
            storage = MemoryStorage()
            storage.objects["x"] = bytes(data)
            return storage.open("x")
        found: Reader = self._do("open", lambda: MemoryStorage.open(self, object_key, offset, length))
        return found


@pytest.fixture
def gateway(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Moving]:
    monkeypatch.setattr("api.blobs.copying.FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("api.storage.stores.HEALTH_CACHE_SECONDS", 0.0)
    made = Moving(
        settings(fresh_database(servers), servers, tmp_path) | {"SLUICE_TEST_JOB_TRIES": "4"},
        local=Flaky(),
        main=Flaky(enforces_sha256=True, compares=False),
        archive=Flaky(compares=False),
    )
    yield made
    assert made.nothing_is_lost() == []
    made.db.close()


@pytest.fixture
def user(gateway: Moving) -> User:
    return gateway.user()


def flaky(gateway: Moving, name: str) -> Flaky:
    found = gateway.storages[name]
    assert isinstance(found, Flaky)
    return found


def once(call: str, error: BaseException, number: int = 1) -> Callable[[str], None]:
    """Raises at the n-th of these calls."""
    seen: list[str] = []

    def act(name: str) -> None:
        seen.append(name)
        if name == call and seen.count(call) == number:
            raise error

    return act


def reason(gateway: Moving, transfer: bytes) -> list[str]:
    return [failure.reason for failure in gateway.services.transfers.get(transfer).failures]


@pytest.mark.parametrize("destination", ["main", "archive"])
class TestDestinations:
    @pytest.mark.parametrize("call", ["create", "write_part", "complete"])
    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_a_call_that_fails_is_tried_again(
        self, gateway: Moving, user: User, destination: str, call: str, moment: str
    ) -> None:
        ((file, content),) = gateway.upload_all(user, [2 * MIB8 + 1], "fails")
        setattr(flaky(gateway, destination), moment, once(call, StorageUnavailable("503")))
        gateway.start("local", destination)
        gateway.turn_until_done()
        assert gateway.named(destination).objects[gateway.replicas(file)[destination]] == content.data
        calls = flaky(gateway, destination).calls
        # a part whose response was lost is there, and is not sent again
        assert calls.count("write_part") == (4 if (call, moment) == ("write_part", "before") else 3)

    def test_a_storage_that_is_away_fails_nothing(self, gateway: Moving, user: User, destination: str) -> None:
        ((file, _),) = gateway.upload_all(user, [100], "away")
        storage = flaky(gateway, destination)
        storage.away = True
        transfer = gateway.start("local", destination)
        gateway.turn_until_done(rounds=40)
        assert gateway.rows("SELECT tries, state FROM job WHERE kind = 'transfer'") == ((0, "waiting"),)
        storage.away = False
        gateway.turn_until_done()
        assert destination in gateway.replicas(file)
        assert gateway.state(transfer) == "done"

    def test_an_upload_that_was_lost_begins_anew_under_another_key(
        self, gateway: Moving, user: User, destination: str
    ) -> None:
        ((file, content),) = gateway.upload_all(user, [2 * MIB8], "lost")
        storage = flaky(gateway, destination)

        def lose(call: str) -> None:
            if call == "complete":
                storage.before = lambda call: None
                storage.uploads.clear()

        storage.before = lose
        gateway.start("local", destination)
        gateway.take("plan_transfer", gateway.due_now("plan_transfer")[0])
        ((first,),) = gateway.rows("SELECT object_key FROM transfer_item")
        gateway.turn_until_done()
        key = gateway.replicas(file)[destination]
        assert key != first
        assert storage.objects == {key: content.data}
        gateway.clock.turn(86_401)  # until then a complete may still be in progress
        gateway.services.sweep.run()
        assert gateway.rows("SELECT 1 FROM doomed") == ()

    def test_what_fails_for_ever_is_a_failure_with_its_reason_and_can_be_retried(
        self, gateway: Moving, user: User, destination: str
    ) -> None:
        files = gateway.upload_all(user, [100, 200], "for ever")
        storage = flaky(gateway, destination)

        def refuse(call: str) -> None:
            if call == "write_part":
                raise StorageError("no, never")

        storage.before = refuse
        transfer = gateway.start("local", destination)
        gateway.turn_until_done(rounds=60, seconds=600)
        assert reason(gateway, transfer) == ["STORAGE_ERROR"] * 2
        assert gateway.state(transfer) == "done"
        figures = gateway.figures(transfer)
        assert (figures["failed_items"], figures["failed_bytes"], figures["live_bytes"]) == (2, 300, 0)
        storage.before = lambda call: None
        assert gateway.services.transfers.retry(transfer).transfer.state == "running"
        gateway.turn_until_done()
        assert all(destination in gateway.replicas(file) for file, _ in files)
        figures = gateway.figures(transfer)
        assert (figures["failed_items"], figures["done_items"], figures["live_bytes"]) == (0, 2, 0)


class TestSources:
    def test_one_wrong_read_is_read_again_and_never_accepted(self, gateway: Moving, user: User) -> None:
        for destination in ("main", "archive"):
            ((file, content),) = gateway.upload_all(user, [MIB8 + 99], f"wrong once {destination}")
            flaky(gateway, "local").lies[gateway.replicas(file)["local"]] = 1
            gateway.start("local", destination)
            gateway.turn_until_done()
            assert gateway.named(destination).objects[gateway.replicas(file)[destination]] == content.data

    def test_a_corrupt_source_fails_immediately_with_that_reason(self, gateway: Moving, user: User) -> None:
        (bad, _), (good, _) = gateway.upload_all(user, [100, 2 * MIB8], "corrupt")
        flaky(gateway, "local").lies[gateway.replicas(bad)["local"]] = 2
        transfer = gateway.start("local", "archive")
        gateway.turn_until_done()
        assert reason(gateway, transfer) == ["SOURCE_CORRUPT"]
        assert gateway.replicas(bad).keys() == {"local"}
        assert gateway.replicas(good).keys() == {"local", "archive"}
        assert gateway.archive.uploads == {}
        gateway.services.transfers.retry(transfer)
        gateway.turn_until_done()
        assert gateway.replicas(bad).keys() == {"local", "archive"}

    def test_another_replica_stands_in_for_a_corrupt_lost_or_dead_one(self, gateway: Moving, user: User) -> None:
        files = gateway.upload_all(user, [MIB8 + n for n in range(3)], "stand in")
        gateway.start("local", "main")
        gateway.turn_until_done()
        keys = [gateway.replicas(file)["local"] for file, _ in files]
        flaky(gateway, "local").lies[keys[0]] = 100
        kept = gateway.storage.objects.pop(keys[1])
        gateway.start("local", "archive")
        gateway.turn_until_done()
        assert all("archive" in gateway.replicas(file) for file, _ in files)
        gateway.storage.objects[keys[1]] = kept

    def test_a_dead_source_with_another_replica_stops_nothing(self, gateway: Moving, user: User) -> None:
        ((file, _),) = gateway.upload_all(user, [MIB8 + 1], "dead source")
        gateway.start("local", "main")
        gateway.turn_until_done()
        flaky(gateway, "local").away = True
        gateway.start("local", "archive")
        gateway.turn_until_done()
        assert "archive" in gateway.replicas(file)
        flaky(gateway, "local").away = False


class TestCopies:
    def test_a_copy_that_is_read_back_wrong_is_made_anew(self, gateway: Moving, user: User) -> None:
        ((file, content),) = gateway.upload_all(user, [2 * MIB8 + 5], "rotten")
        archive = flaky(gateway, "archive")

        def rot(call: str) -> None:
            if call == "complete":
                archive.after = lambda call: None
                (key,) = archive.objects
                archive.objects[key] = b"x" + archive.objects[key][1:]

        archive.after = rot
        gateway.start("local", "archive")
        gateway.turn_until_done()
        assert archive.objects[gateway.replicas(file)["archive"]] == content.data
        gateway.services.sweep.run()
        assert list(archive.objects.values()) == [content.data]

    def test_a_blob_deleted_meanwhile_leaves_nothing(self, gateway: Moving, user: User) -> None:
        ((file, _),) = gateway.upload_all(user, [MIB8 + 5], "deleted")
        archive = flaky(gateway, "archive")
        ((blob,),) = gateway.rows("SELECT blob_id FROM file WHERE id = UNHEX(%s)", file["id"])

        def delete(call: str) -> None:
            if call == "complete":
                gateway.db.execute("UPDATE `blob` SET state = 'deleting' WHERE id = %s", (blob,))

        archive.after = delete
        transfer = gateway.start("local", "archive")
        gateway.turn_until_done()
        assert gateway.replicas(file).keys() == {"local"}
        assert gateway.figures(transfer)["skipped_items"] == 1
        assert gateway.state(transfer) == "done"
        gateway.services.sweep.run()
        assert archive.objects == {}

    def test_two_transfers_of_one_blob_end_with_one_replica(self, gateway: Moving, user: User) -> None:
        ((file, content),) = gateway.upload_all(user, [100], "twice")
        gateway.start("local", "archive")
        gateway.start("local", "archive", 0)
        for subject in gateway.due_now("plan_transfer"):
            gateway.take("plan_transfer", subject)
        one, two = gateway.due_now("transfer")
        archive = flaky(gateway, "archive")

        def take_the_other(_: str) -> None:
            archive.before = lambda call: None
            gateway.take("transfer", two)

        archive.before = take_the_other
        gateway.take("transfer", one)
        gateway.turn_until_done()
        gateway.clock.turn(3600)
        gateway.services.sweep.run()
        assert gateway.replicas(file).keys() == {"archive"}
        assert list(gateway.archive.objects.values()) == [content.data]

    def test_opposite_moves_never_delete_both(self, gateway: Moving, user: User) -> None:
        ((file, _),) = gateway.upload_all(user, [100], "opposite")
        gateway.start("local", "main")
        gateway.turn_until_done()
        gateway.start("local", "main", 0)
        gateway.start("main", "local", 0)
        gateway.turn_until_done()
        assert len(gateway.replicas(file)) == 1

    def test_a_source_stays_while_the_copy_is_not_whole(self, gateway: Moving, user: User) -> None:
        ((file, _),) = gateway.upload_all(user, [100], "half")
        transfer = gateway.start("local", "main", 100)
        gateway.turn_until_done()
        key = gateway.replicas(file)["main"]
        kept = gateway.main.objects.pop(key)
        gateway.clock.turn(200)
        gateway.turn_until_done()
        assert gateway.replicas(file).keys() == {"local", "main"}
        assert reason(gateway, transfer) == ["COPY_MISSING"]
        gateway.main.objects[key] = kept
        gateway.services.transfers.retry(transfer)
        gateway.turn_until_done()
        assert gateway.replicas(file).keys() == {"main"}


class TestKills:
    """The worker dies at every single step, one after the other. The next worker finds the results so far."""

    @pytest.mark.parametrize("destination", ["main", "archive"])
    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_at_every_call_of_a_storage(self, gateway: Moving, user: User, destination: str, moment: str) -> None:
        storage = flaky(gateway, destination)
        for step, call in enumerate(("create", "write_part", "write_part", "complete", "open")):
            if (call, destination) == ("open", "main"):
                continue
            ((file, content),) = gateway.upload_all(user, [2 * MIB8 + step], f"killed {step}")
            setattr(storage, moment, once(call, Killed(), 1 + (step == 2)))
            gateway.start("local", destination)
            gateway.take("plan_transfer", gateway.due_now("plan_transfer")[0])
            (subject,) = gateway.due_now("transfer")
            with pytest.raises(Killed):
                gateway.take("transfer", subject)
            setattr(storage, moment, lambda call: None)
            gateway.clock.turn(60)  # the lease expires
            gateway.turn_until_done()
            assert storage.objects[gateway.replicas(file)[destination]] == content.data
            assert storage.uploads == {}
        assert len(storage.objects) == len(gateway.rows("SELECT 1 FROM replica WHERE storage = %s", destination))

    @pytest.mark.parametrize("destination", ["main", "archive"])
    @pytest.mark.parametrize("after", [False, True])
    def test_at_every_statement(
        self, gateway: Moving, user: User, destination: str, after: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """``after``: the statement, perhaps a COMMIT, has taken effect, and its result is lost."""
        number, died = 0, True
        while died:
            number += 1
            ((file, content),) = gateway.upload_all(user, [MIB8 + number], f"statement {number}")
            transfer = gateway.start("local", destination, 0)
            gateway.take("plan_transfer", transfer)
            (subject,) = gateway.due_now("transfer")
            died = self._die(gateway, subject, number, after, monkeypatch)
            gateway.clock.turn(60)
            gateway.turn_until_done()
            gateway.clock.turn(10)
            gateway.turn_until_done()
            assert gateway.replicas(file).keys() == {destination}, number
            assert gateway.named(destination).objects[gateway.replicas(file)[destination]] == content.data
            figures = gateway.figures(transfer)
            assert (figures["done_items"], figures["live_bytes"], figures["failed_items"]) == (1, 0, 0), number
            assert gateway.state(transfer) == "done"
            assert gateway.nothing_is_lost() == []
        assert number > 12

    @staticmethod
    def _die(gateway: Moving, subject: bytes, number: int, after: bool, monkeypatch: pytest.MonkeyPatch) -> bool:
        """Runs the job, and kills it at its n-th statement. Returns False if it has fewer."""
        gateway.statements.clear()
        kept, real = gateway.statements, gateway.db._observe

        def observe(sql: str, args: Any) -> None:
            if len(kept) - 1 >= number + after - 1:
                raise Killed
            real(sql, args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gateway.db, "_observe", observe)
            try:
                gateway.take("transfer", subject)
            except Killed:
                return True
        return False

    def test_parts_that_are_there_are_not_sent_again(self, gateway: Moving, user: User) -> None:
        ((file, _),) = gateway.upload_all(user, [6 * MIB8], "resumed")
        storage = flaky(gateway, "main")
        storage.after = once("write_part", Killed(), 4)
        gateway.start("local", "main")
        gateway.take("plan_transfer", gateway.due_now("plan_transfer")[0])
        with pytest.raises(Killed):
            gateway.take("transfer", gateway.due_now("transfer")[0])
        (there,) = storage.uploads.values()
        assert len(there) >= 4
        missing = 6 - len(there)
        storage.after = lambda call: None
        storage.calls.clear()
        gateway.clock.turn(60)
        gateway.turn_until_done()
        assert "main" in gateway.replicas(file)
        assert storage.calls.count("write_part") == missing

    def test_a_lost_lease_writes_nothing_more(self, gateway: Moving, user: User) -> None:
        ((file, _),) = gateway.upload_all(user, [3 * MIB8], "lost lease")
        storage = flaky(gateway, "main")

        def lose(call: str) -> None:
            if call == "complete":
                gateway.db.execute("UPDATE job SET lease_owner = %s WHERE kind = 'transfer'", (b"o" * 16,))

        storage.after = lose
        gateway.start("local", "main")
        gateway.take("plan_transfer", gateway.due_now("plan_transfer")[0])
        gateway.take("transfer", gateway.due_now("transfer")[0])
        assert gateway.replicas(file).keys() == {"local"}
        storage.after = lambda call: None
        gateway.clock.turn(60)
        gateway.turn_until_done()
        assert gateway.replicas(file).keys() == {"local", "main"}


@pytest.mark.parametrize(("destination", "runs"), [("main", 3), ("archive", 5)])
def test_a_segment_ends_at_its_limit_of_bytes_and_the_next_continues(
    gateway: Moving, user: User, monkeypatch: pytest.MonkeyPatch, destination: str, runs: int
) -> None:
    monkeypatch.setattr("api.blobs.copying.SEGMENT_BYTES", 2 * MIB8)
    ((file, content),) = gateway.upload_all(user, [5 * MIB8], "segments")
    storage = flaky(gateway, destination)
    gateway.start("local", destination)
    gateway.take("plan_transfer", gateway.due_now("plan_transfer")[0])
    (subject,) = gateway.due_now("transfer")
    count = before = 0
    while destination not in gateway.replicas(file):
        gateway.take("transfer", subject)
        moved = storage.calls.count("write_part") + storage.calls.count("open")
        assert moved - before <= 2
        count, before = count + 1, moved
        assert count <= runs + 1
    assert count >= runs
    assert storage.objects[gateway.replicas(file)[destination]] == content.data
    assert (storage.calls.count("write_part"), storage.calls.count("open")) == (5, 5 * (destination == "archive"))


def test_a_place_of_another_object_skips_no_reading_back(gateway: Moving, user: User) -> None:
    ((file, _),) = gateway.upload_all(user, [3 * MIB8], "place")
    transfer = gateway.start("local", "archive")
    gateway.take("plan_transfer", transfer)
    gateway.db.execute("UPDATE job SET place = 3, memo = %s WHERE kind = 'transfer'", (bytes(16),))
    gateway.turn_until_done()
    assert "archive" in gateway.replicas(file)
    assert flaky(gateway, "archive").calls.count("open") == 3
