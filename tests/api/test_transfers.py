"""Transfers between storages in memory: what is copied, verified, kept, deleted, counted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from api import digests
from tests.api.conftest import Content, User
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
    # edges may know the source for a while, and what they have begun comes to its end
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
