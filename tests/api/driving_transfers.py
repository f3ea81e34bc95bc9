"""Runs every statement of transfers; see `tests.api.driving`."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

from api.app import compose
from api.blobs import rows as blobs
from api.core.policies import policies
from api.jobs import rows as jobs
from api.storage.memory import MemoryStorage
from api.transfers import item_rows as transfer_items
from api.transfers import rows
from tests.api.conftest import FAST_HASHER, Content, Gateway, User


def drive(gateway: Gateway, user: User) -> None:
    """A policy and migrations to a second storage: done, failed, paused, cancelled, with and without the source."""
    storages = {"local": gateway.storage, "main": MemoryStorage(compares=False)}
    config = replace(
        gateway.config,
        storages=dict.fromkeys(storages, "local"),
        transfer_policies=policies("replicate:local>main after 10d"),
    )
    services = compose(
        config, db=gateway.db, storage=storages, clock=gateway.clock, hasher=FAST_HASHER, queue=gateway.queue
    )
    planner, service = cast(Any, services.jobs["plan_transfer"]), services.transfers

    def turn() -> None:
        for kind in ("plan_transfer", "transfer"):
            for subject in jobs.due(gateway.db, kind, gateway.clock(), timedelta(seconds=-1), 3):
                services.runner.run(kind, subject)
        gateway.clock.turn(61)

    planner.ensure()
    for keep_for in (None, 0):
        transfer = service.start("local", "main", keep_for)[0].transfer.id
        service.start("local", "main", keep_for)
        turn()
        _one(gateway, user, services, transfer)
        service.set_state(transfer, "paused")
        turn()
        service.set_state(transfer, "running")
        turn()
        item = gateway.rows("SELECT id FROM transfer_item WHERE transfer_id = %s LIMIT 1", transfer)[0][0]
        gateway.statements.pop()
        transfer_items.fail(gateway.db, item, "WHY", "because")
        rows.count(gateway.db, transfer, rows.Change(failed_items=1), gateway.clock())
        service.get(transfer)
        service.retry(transfer)
        service.set_state(transfer, "cancelled")
        for _ in range(8):
            services.runner.run("plan_transfer", transfer)
            turn()
    service.dry_run("local", "main", None)
    service.page(None, 10)
    rows.by_policy(gateway.db, "replicate:local>main")
    transfer_items.postpone(gateway.db, bytes(16), gateway.clock())
    transfer_items.queue_left(gateway.db, hashlib.md5(b"1", usedforsecurity=False).digest(), 1)
    rows.state(gateway.db, bytes(16))
    rows.end_cancelled(gateway.db, bytes(16), gateway.clock())
    transfer_items.ours(gateway.db, "main", ["a/b/c"])
    transfer_items.our_uploads(gateway.db, [bytes(16)])


def _one(gateway: Gateway, user: User, services: Any, transfer: bytes) -> None:
    """One item, from its upload to its end, with a lost multipart upload and the deletion of the source."""
    db, clock = gateway.db, gateway.clock
    file = user.upload(Content(transfer), "drive transfer")
    ((blob,),) = db.all("SELECT blob_id FROM file WHERE id = UNHEX(%s)", (file["id"],))
    gateway.statements.pop()
    new = transfer_items.New(transfer, blob, 16, f"drive/{transfer.hex()}", transfer)
    transfer_items.insert(db, transfer, "main", [new], clock(), clock())
    transfer_items.set_queued(db, [new.id])
    jobs.insert(db, "transfer", new.id, clock())
    services.runner.run("transfer", new.id)
    db.execute("UPDATE job SET due_at = %s WHERE subject = %s", (clock().replace(tzinfo=None), new.id))
    gateway.statements.pop()
    item = transfer_items.work(db, new.id)
    if item is not None:  # the copy exists, and the source is to be deleted
        jobs.insert(db, "transfer", new.id, clock())
        services.runner.run("transfer", new.id)
    # statements of a restart and of a long copy
    transfer_items.insert(db, transfer, "main", [new], clock(), clock())
    item = transfer_items.work(db, new.id)
    assert item is not None
    transfer_items.restart(db, item, "drive/again", bytes(16))
    transfer_items.set_copied(db, new.id, 1)
    transfer_items.delete(db, new.id)
    blobs.add_replica(db, blob, "main", f"drive/{transfer.hex()}", clock())
