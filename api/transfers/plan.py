"""The job that plans a transfer: finds the blobs to copy, queues their items in batches, and detects the end.

At most `WINDOW` items of a transfer are jobs at the same time. All others are rows that wait. So a migration of a
million blobs does not delay other jobs, and a pause takes effect within seconds.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import timedelta
from typing import Final

from api.context import Context
from api.core.errors import SluiceError
from api.core.models import Transfer, new_id
from api.db.pool import Statements
from api.jobs import rows as jobs
from api.jobs.base import Lease, Outcome
from api.storage.keys import object_key
from api.transfers import item_rows as transfer_items
from api.transfers import rows as transfers
from api.transfers.item_rows import New
from api.transfers.job import TransferJob
from api.transfers.rows import Candidate, Change

BATCH: Final = 1000
WINDOW: Final = 500
"""Most items of a transfer that are jobs at the same time."""
ITEMS_PER_CLEANUP: Final = 200
"""Items of a cancelled transfer per transaction. With more, some servers would scan the whole table."""
PLANNING_SECONDS: Final = 5.0
BUSY_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0
COMMIT_DELAY: Final = timedelta(minutes=5)
"""Longest delay until a replica's row is visible after its creation time: a slow transaction, or a wrong clock.

A policy reads the replicas of this time span repeatedly and skips those that have an item.
"""

_log = logging.getLogger(__name__)


class _Moved(SluiceError):
    """Another process changed the transfer."""


class TransferPlanner:
    """See the module's docstring."""

    kind = "plan_transfer"

    def __init__(self, context: Context) -> None:
        self._db = context.db
        self._queue = context.queue
        self._policies = context.config.transfer_policies
        self._clock = context.clock
        self._prefix = context.prefix

    def ensure(self) -> int:
        """Inserts missing rows of policies and jobs of transfers. Every worker calls it on schedule."""
        now = self._clock()
        for policy in self._policies:
            transfers.ensure_policy(self._db, new_id(), policy, now)
        if ended := transfers.end_policies(self._db, [policy.name for policy in self._policies], now):
            _log.info("policies that are not set any more were ended", extra={"count": ended})
        for transfer_id in transfers.with_work(self._db):
            self.wake(self._db, transfer_id)
        return 0  # a rescue returns the jobs that were lost: none here

    def wake(self, db: Statements, transfer_id: bytes) -> None:
        """Inserts the transfer's planning job, due now."""
        jobs.insert(db, self.kind, transfer_id, self._clock())

    def run(self, subject: bytes, lease: Lease) -> Outcome:
        """See `api.jobs.base.Job`."""
        transfer = transfers.by_id(self._db, subject)
        if transfer is None or transfer.state not in ("running", "cancelled"):
            return Outcome.DONE
        self._bury(transfer)
        if transfer.state == "cancelled":
            return self._clear(transfer)
        try:
            transfer, more = self._plan(transfer, lease)
        except _Moved:
            return Outcome.MORE
        self._queue_due(transfer)
        return Outcome.MORE if more else self._rest(transfer)

    # -- planning

    def _plan(self, transfer: Transfer, lease: Lease) -> tuple[Transfer, bool]:
        """Inserts items for the source's replicas. Also returns whether there are more."""
        if transfer.planned:
            return transfer, False
        began, now = time.monotonic(), self._clock()
        once = transfer.policy is None
        until = transfer.created_at if once else now - timedelta(seconds=transfer.delay)
        settled = until if once else min(until, now - COMMIT_DELAY)
        ends, place = (transfer.source, transfer.destination), (transfer.planned_at, transfer.planned_blob)
        while True:
            found = transfers.candidates(self._db, ends, place, until, BATCH)
            if found:
                place = found[-1].created_at, found[-1].blob_id
            kept = [(c.created_at, c.blob_id) for c in found if c.created_at <= settled]
            transfer = self._plan_batch(transfer, found, kept[-1] if kept else None, last=len(found) < BATCH)
            if len(found) < BATCH:
                return transfer, False
            lease.keep()
            if lease.stopping or time.monotonic() - began > PLANNING_SECONDS:
                return transfer, True

    def _plan_batch(
        self, transfer: Transfer, found: list[Candidate], place: tuple[object, bytes] | None, *, last: bool
    ) -> Transfer:
        wanted = [c for c in found if c.usable and (not c.there or transfer.delete_source)]
        planned = last and transfer.policy is None

        def body(tx: Statements) -> Transfer:
            known = transfer_items.planned(tx, transfer.id, [c.blob_id for c in wanted]) if wanted else set()
            items = [self._item(c) for c in wanted if c.blob_id not in known]
            after = replace(
                transfer,
                planned=planned,
                **({"planned_at": place[0], "planned_blob": place[1]} if place else {}),  # type: ignore[arg-type]
            )
            made = len(items), sum(item.size for item in items)
            if not transfers.plan(tx, transfer, after, made, self._clock()):
                raise _Moved
            if items:
                now = self._clock()
                transfer_items.insert(tx, transfer.id, transfer.destination, items, now, now)
            return after

        return self._db.transaction(body)

    def _item(self, candidate: Candidate) -> New:
        item_id = new_id()
        return New(item_id, candidate.blob_id, candidate.size, object_key(self._prefix(), item_id), item_id)

    # -- driving

    def _bury(self, transfer: Transfer) -> None:
        """Sets items with dead jobs to failed, and items whose jobs were lost to waiting."""
        for item in transfer_items.queued(self._db, transfer.id):
            if item.job == "waiting":
                continue

            def body(tx: Statements, item: transfer_items.Queued = item) -> None:
                work = transfer_items.work(tx, item.id) if transfer_items.lock(tx, item.id) is not None else None
                if work is None or work.state != "queued":
                    return
                if item.job is None:
                    transfer_items.postpone(tx, item.id, work.due_at)
                elif transfer_items.fail(tx, item.id, item.reason, item.message):
                    change = Change(failed_items=1, failed_bytes=work.size, live_bytes=-work.copied)
                    transfers.count(tx, transfer.id, change, self._clock())

            self._db.transaction(body)

    def _queue_due(self, transfer: Transfer) -> None:
        room = WINDOW - len(transfer_items.queued(self._db, transfer.id))
        if room <= 0 or not (due := transfer_items.due(self._db, transfer.id, self._clock(), room)):
            return

        def body(tx: Statements) -> None:
            transfer_items.set_queued(tx, due)
            jobs.insert_many(tx, TransferJob.kind, due, self._clock())

        self._db.transaction(body)
        self._queue.enqueue(TransferJob.kind, due)

    def _rest(self, transfer: Transfer) -> Outcome:
        """When to plan again. A migration without remaining items is done, even if some have failed."""
        if transfer_items.any_queued(self._db, transfer.id):
            return Outcome.later(BUSY_PAUSE_SECONDS)
        due_at = transfer_items.next_due(self._db, transfer.id)
        if due_at is not None:
            left = (due_at - self._clock()).total_seconds()
            return Outcome.later(min(max(left, BUSY_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS))
        if transfer.policy is None and transfers.set_state(self._db, transfer.id, "done", ("running",), self._clock()):
            _log.info("a transfer is done", extra={"transfer": transfer.id.hex()})
        return Outcome.DONE

    def _clear(self, transfer: Transfer) -> Outcome:
        """Cleans up a cancelled transfer: deletes items without a copy; jobs clean up the others."""

        def forget(tx: Statements) -> int:
            ids = transfer_items.unbegun(tx, transfer.id, ITEMS_PER_CLEANUP)
            if ids:
                transfer_items.delete_many(tx, ids)
                jobs.delete_many(tx, ids)
            return len(ids)

        def tidy(tx: Statements) -> list[bytes]:
            ids = transfer_items.queue_left(tx, transfer.id, ITEMS_PER_CLEANUP)
            if ids:
                jobs.insert_many(tx, TransferJob.kind, ids, self._clock())
            return ids

        if self._db.transaction(forget) == ITEMS_PER_CLEANUP:
            return Outcome.MORE
        if not transfer_items.any_queued(self._db, transfer.id):
            ids = self._db.transaction(tidy)
            if not ids:
                transfers.end_cancelled(self._db, transfer.id, self._clock())
                return Outcome.DONE
            self._queue.enqueue(TransferJob.kind, ids)
        return Outcome.later(BUSY_PAUSE_SECONDS)
