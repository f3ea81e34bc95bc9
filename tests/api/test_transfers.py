"""Transfers between storages in memory: what is copied, verified, kept, deleted, counted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from api.core import digests
from api.core.errors import Problem, StorageUnavailable
from api.storage.base import MultipartRef
from api.transfers import plan as transfer_plan
from tests.api.conftest import Content, User, fresh_database, settings
from tests.api.moving import Moving
from tests.conftest import Servers

MIB8 = digests.MIN_PART_SIZE


@pytest.fixture
def gateway(servers: Servers, tmp_path: Path) -> Iterator[Moving]:
    made = Moving.over(servers, tmp_path)
    yield made
    assert made.nothing_is_lost() == []
    made.db.close()


@pytest.mark.parametrize("destination", ["main", "archive"])
def test_everything_is_copied_and_stays(gateway: Moving, user: User, destination: str) -> None:
    files = gateway.upload_all(user, [1, 1000, MIB8, MIB8 + 1, 3 * MIB8 - 7], "copied")
    user.create(Content(b""))  # nothing to copy
    transfer = gateway.start("local", destination)
    gateway.turn_until_done()
    for file, content in files:
        replicas = gateway.replicas(file)
        assert replicas.keys() == {"local", destination}
        assert gateway.named(destination).objects[replicas[destination]] == content.data
    total = sum(content.size for _, content in files)
    figures = gateway.figures(transfer)
    assert figures == {
        "items": 5,
        "bytes": total,
        "done_items": 5,
        "done_bytes": total,
        "skipped_items": 0,
        "failed_items": 0,
        "failed_bytes": 0,
        "live_bytes": 0,
        "moved_bytes": total,
    }
    assert gateway.state(transfer) == "done"
    assert gateway.rows("SELECT 1 FROM transfer_item") == ()
    assert gateway.rows("SELECT 1 FROM job WHERE kind IN ('transfer', 'plan_transfer')") == ()
    assert gateway.rows("SELECT 1 FROM doomed") == ()


def test_a_source_is_deleted_when_its_time_has_come_and_the_object_later_still(gateway: Moving, user: User) -> None:
    ((file, content),) = gateway.upload_all(user, [MIB8 + 5], "moved")
    source = gateway.replicas(file)["local"]
    transfer = gateway.start("local", "main", 3600)
    gateway.turn_until_done()
    assert gateway.replicas(file).keys() == {"local", "main"}
    assert gateway.state(transfer) == "running"
    gateway.clock.turn(3600)
    gateway.turn_until_done()
    assert gateway.replicas(file).keys() == {"main"}
    assert gateway.state(transfer) == "done"
    assert gateway.figures(transfer)["live_bytes"] == 0
    # edges may use the source for a while, and their downloads come to an end
    gateway.services.sweep.run()
    assert source in gateway.storage.objects
    gateway.clock.turn(60 + 30 + 600 - 60)
    gateway.services.sweep.run()
    assert source in gateway.storage.objects
    gateway.clock.turn(60)
    gateway.services.sweep.run()
    assert source not in gateway.storage.objects
    assert gateway.main.objects[gateway.replicas(file)["main"]] == content.data


def test_a_hash_that_comes_for_free_is_kept(gateway: Moving, user: User) -> None:
    (one, content), (two, _) = gateway.upload_all(user, [100, MIB8 + 1], "free")
    gateway.db.execute("UPDATE `blob` SET sha256 = NULL")
    gateway.start("local", "main")
    gateway.turn_until_done()
    assert user.get(f"/files/{one['id']}").json["sha256"] == hashlib.sha256(content.data).hexdigest()
    assert user.get(f"/files/{two['id']}").json["sha256"] is None


class TestStates:
    def test_pause_stops_and_resume_continues(self, gateway: Moving, user: User) -> None:
        files = gateway.upload_all(user, [500] * 4, "paused")
        transfer, service = gateway.start("local", "main"), gateway.services.transfers
        gateway.take("plan_transfer", transfer)
        first, *_ = gateway.due_now("transfer")
        gateway.take("transfer", first)
        assert service.set_state(transfer, "paused").transfer.state == "paused"
        gateway.turn_until_done()
        assert len(gateway.main.objects) == 1
        assert gateway.rows("SELECT 1 FROM job WHERE kind = 'transfer'") == ()
        service.set_state(transfer, "running")
        gateway.turn_until_done()
        assert all("main" in gateway.replicas(file) for file, _ in files)
        assert gateway.state(transfer) == "done"

    def test_cancel_leaves_whole_copies_and_nothing_else(self, gateway: Moving, user: User) -> None:
        gateway.upload_all(user, [MIB8 + 1, MIB8 + 2, MIB8 + 3, MIB8 + 4], "cancelled")
        transfer = gateway.start("local", "main", 3600)
        gateway.take("plan_transfer", transfer)
        one, two, *_ = gateway.due_now("transfer")
        gateway.take("transfer", one)
        real = gateway.main.write_part

        def half(ref: MultipartRef, number: int, body: Iterable[bytes], sha256: str) -> None:
            if number == 2:
                raise StorageUnavailable("in the middle")
            real(ref, number, body, sha256)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gateway.main, "write_part", half)
            gateway.take("transfer", two)
        assert len(gateway.main.uploads) == 1
        gateway.services.transfers.set_state(transfer, "cancelled")
        gateway.turn_until_done()
        assert (len(gateway.main.objects), gateway.main.uploads) == (1, {})
        assert gateway.rows("SELECT 1 FROM transfer_item") == ()
        assert gateway.rows("SELECT 1 FROM job WHERE kind LIKE '%%transfer'") == ()
        assert gateway.rows("SELECT COUNT(*) FROM replica WHERE storage = 'local'") == ((4,),)

    def test_the_same_start_is_the_same_transfer_and_a_later_one_takes_the_rest(
        self, gateway: Moving, user: User
    ) -> None:
        gateway.upload_all(user, [10, 20], "same")
        first = gateway.start("local", "main")
        assert gateway.start("local", "main") == first
        assert gateway.start("local", "main", 0) != first
        gateway.turn_until_done()
        ((file, _),) = gateway.upload_all(user, [30], "later")
        second = gateway.start("local", "main")
        assert second != first
        gateway.turn_until_done()
        assert gateway.figures(second)["items"] == 1
        assert "main" in gateway.replicas(file)

    def test_a_dry_run_counts_and_makes_nothing(self, gateway: Moving, user: User) -> None:
        gateway.upload_all(user, [10, 20, 30], "dry")
        gateway.start("local", "main")
        gateway.turn_until_done()
        gateway.upload_all(user, [40], "dry too")
        rows = gateway.rows("SELECT COUNT(*) FROM transfer")
        service = gateway.services.transfers
        dry = service.dry_run("local", "main", None)
        assert (dry.items, dry.bytes, dry.there) == (1, 40, 0)
        dry = service.dry_run("local", "main", 0)
        assert (dry.items, dry.bytes, dry.there) == (4, 40, 3)
        assert gateway.rows("SELECT COUNT(*) FROM transfer") == rows

    def test_a_million_rows_do_not_become_a_million_jobs(
        self, gateway: Moving, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(transfer_plan, "WINDOW", 3)
        monkeypatch.setattr(transfer_plan, "BATCH", 2)
        files = gateway.upload_all(user, [n + 1 for n in range(9)], "window")
        transfer = gateway.start("local", "main")
        gateway.take("plan_transfer", transfer)
        assert gateway.figures(transfer)["items"] == 9
        assert len(gateway.due_now("transfer")) == 3
        gateway.turn_until_done()
        assert all("main" in gateway.replicas(file) for file, _ in files)


class TestPolicies:
    @pytest.fixture
    def build(self, servers: Servers, tmp_path: Path) -> Iterator[Callable[[str], Moving]]:
        url = fresh_database(servers)
        made: list[Moving] = []

        def with_policies(text: str) -> Moving:
            """The gateway after a restart with these policies; the storages keep their content."""
            kept = {name: made[0].named(name) for name in ("local", "main", "archive")} if made else {}
            environ = settings(url, servers, tmp_path) | {"SLUICE_TRANSFER_POLICIES": text}
            made.append(Moving(environ, **kept))
            if len(made) > 1:
                made[-1].clock.now = made[-2].clock.now
            return made[-1]

        yield with_policies
        for gateway in made:
            assert gateway.nothing_is_lost() == []
            gateway.db.close()

    def test_what_is_uploaded_is_replicated_and_moved_by_itself(self, build: Callable[[str], Moving]) -> None:
        gateway = build("move:local>main after 1h; replicate:main>archive")
        user = gateway.user()
        ((file, _),) = gateway.upload_all(user, [MIB8 + 1], "policy")
        gateway.turn_until_done()
        assert gateway.replicas(file).keys() == {"local"}
        gateway.clock.turn(3600)
        gateway.turn_until_done()
        gateway.turn_until_done()
        assert gateway.replicas(file).keys() == {"main", "archive"}
        ((late, _),) = gateway.upload_all(user, [7], "policy too")
        gateway.clock.turn(3700)
        gateway.turn_until_done()
        gateway.turn_until_done()
        assert gateway.replicas(late).keys() == {"main", "archive"}

    def test_what_is_committed_late_is_not_passed_over(self, build: Callable[[str], Moving]) -> None:
        gateway = build("replicate:local>main")
        user = gateway.user()
        (one, two) = (file for file, _ in gateway.upload_all(user, [5, 6], "late"))
        key = gateway.replicas(two)["local"]
        hidden = gateway.rows("SELECT blob_id, created_at FROM replica WHERE object_key = %s", key)[0]
        gateway.db.execute("DELETE FROM replica WHERE object_key = %s", (key,))
        gateway.upload_all(user, [7], "later")
        gateway.turn_until_done()
        assert "main" in gateway.replicas(one)
        # a transaction that began earlier ends now
        gateway.db.execute(
            "INSERT INTO replica (blob_id, storage, object_key, created_at) VALUES (%s, 'local', %s, %s)",
            (hidden[0], key, hidden[1]),
        )
        gateway.clock.turn(60)
        gateway.turn_until_done()
        assert "main" in gateway.replicas(two)

    def test_nothing_is_looked_at_for_ever(self, build: Callable[[str], Moving]) -> None:
        gateway = build("replicate:local>main")
        gateway.upload_all(gateway.user(), [5, 6], "once")
        gateway.turn_until_done()
        for _ in range(2):
            gateway.clock.turn(400)
            gateway.turn_until_done()
        gateway.statements.clear()
        gateway.turn_until_done()
        looked = [args for sql, args in gateway.statements if "FORCE INDEX (replica_newest)" in sql]
        assert looked
        found = [
            gateway.rows("SELECT COUNT(*) FROM replica WHERE storage = 'local' AND created_at > %s", a[2])
            for a in looked
        ]
        assert found == [((0,),)] * len(looked)

    def test_a_policy_that_is_taken_out_ends_and_one_that_comes_back_looks_at_all(
        self, build: Callable[[str], Moving]
    ) -> None:
        gateway = build("replicate:local>main")
        ((one, _),) = gateway.upload_all(gateway.user(), [5], "before")
        gateway.turn_until_done()
        gateway = build("")
        ((two, _),) = gateway.upload_all(gateway.user(), [6], "between")
        gateway.turn_until_done()
        assert gateway.rows("SELECT state, ended_at IS NULL FROM transfer") == (("cancelled", 0),)
        gateway.clock.turn(4000)
        gateway = build("replicate:local>main after 10s")
        gateway.turn_until_done()
        assert gateway.rows("SELECT state, delay FROM transfer") == (("running", 10),)
        assert "main" in gateway.replicas(one)
        assert "main" in gateway.replicas(two)
        figures = gateway.figures(gateway.rows("SELECT id FROM transfer")[0][0])
        assert (figures["items"], figures["done_items"], figures["live_bytes"]) == (2, 2, 0)

    def test_a_paused_policy_stays_paused(self, build: Callable[[str], Moving]) -> None:
        gateway = build("replicate:local>main")
        gateway.turn_until_done()
        ((transfer,),) = gateway.rows("SELECT id FROM transfer")
        gateway.services.transfers.set_state(transfer, "paused")
        ((file, _),) = gateway.upload_all(gateway.user(), [5], "paused policy")
        gateway.turn_until_done()
        assert gateway.replicas(file).keys() == {"local"}
        gateway.services.transfers.set_state(transfer, "running")
        gateway.turn_until_done()
        assert gateway.replicas(file).keys() == {"local", "main"}
        with pytest.raises(Problem, match="TRANSFER_NOT_OPEN"):
            gateway.services.transfers.set_state(transfer, "cancelled")

    def test_what_is_not_verified_yet_is_copied_once_it_is(self, build: Callable[[str], Moving]) -> None:
        gateway = build("replicate:local>main")
        gateway.storage._compares = False
        ((file, _),) = gateway.upload_all(gateway.user(), [50], "unverified")
        assert file["state"] == "verifying"
        gateway.turn_until_done()
        assert gateway.replicas(file).keys() == {"local"}
        gateway.work("verify")
        gateway.clock.turn(61)
        gateway.turn_until_done()
        assert gateway.replicas(file).keys() == {"local", "main"}
