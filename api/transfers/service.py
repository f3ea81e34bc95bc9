"""Transfers for operators: start, list, pause, resume, cancel, retry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from api.context import Context
from api.core import errors
from api.core.errors import Problem
from api.core.models import Transfer, new_id
from api.core.policies import LONGEST
from api.db.pool import Statements
from api.transfers import item_rows as transfer_items
from api.transfers import rows as transfers
from api.transfers.item_rows import Failure
from api.transfers.plan import TransferPlanner
from api.transfers.rows import LONG_AGO, Change

FAILURES_SHOWN: Final = 20
CANDIDATES_PER_QUERY: Final = 5000
ITEMS_PER_RETRY: Final = 1000
RATE_MAX_AGE_SECONDS: Final = 120.0
"""A rate that was measured longer ago than this is not shown."""

ALLOWED_FROM: Final[Mapping[str, tuple[str, ...]]] = {
    "running": ("paused", "running"),
    "paused": ("running", "paused"),
    "cancelled": ("running", "paused", "done", "cancelled"),
}
"""For each state, the states from which it can be requested."""


@dataclass(frozen=True, slots=True)
class TransferView:
    """A transfer as shown to an operator.

    Attributes:
        rate: recent bytes per second.
        seconds_left: estimated from the rate; None if unknown.
        reasons: number of failed items by reason.
        failures: the first failures.
    """

    transfer: Transfer
    rate: int
    seconds_left: int | None
    reasons: Mapping[str, int]
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class DryRun:
    """The size of a planned transfer. The destination has ``there`` items: only their source would be deleted."""

    items: int
    bytes: int
    there: int


class Transfers:
    """See the module's docstring."""

    def __init__(self, context: Context, planner: TransferPlanner) -> None:
        self._db = context.db
        self._stores = context.stores
        self._planner = planner
        self._queue = context.queue
        self._clock = context.clock

    def check(self, source: str, destination: str, keep_for: int | None) -> None:
        """Raises Problem TRANSFER_INVALID."""
        names = {name for name, _ in self._stores}
        for name in (source, destination):
            if name not in names:
                raise Problem(errors.TRANSFER_INVALID, f"There is no storage {name!r}; there are {', '.join(names)}.")
        if source == destination:
            raise Problem(errors.TRANSFER_INVALID, "A storage is not copied to itself.")
        if keep_for is not None and not 0 <= keep_for <= LONGEST:
            raise Problem(errors.TRANSFER_INVALID, f"keep_for is from 0 to {LONGEST} seconds.")

    def start(self, source: str, destination: str, keep_for: int | None) -> tuple[TransferView, bool]:
        """Starts to copy everything that a storage holds now.

        Args:
            keep_for: seconds after which the source's replica of a copied blob is deleted; None keeps it.

        Returns:
            The transfer, and whether it is new. An unfinished one with the same parameters is returned instead.

        Raises:
            Problem: TRANSFER_INVALID.
        """
        self.check(source, destination, keep_for)
        ends = source, destination
        found = transfers.same(self._db, ends, keep_for)
        if found is None:
            transfer_id = new_id()

            def body(tx: Statements) -> None:
                transfers.insert(tx, transfer_id, ends, keep_for, self._clock())
                self._planner.wake(tx, transfer_id)

            self._db.transaction(body)
            self._queue.enqueue(self._planner.kind, [transfer_id])
            return self.get(transfer_id), True
        return self._view(found), False

    def dry_run(self, source: str, destination: str, keep_for: int | None) -> DryRun:
        """Counts what `start` would copy, without copying. Raises Problem TRANSFER_INVALID."""
        self.check(source, destination, keep_for)
        now, place = self._clock(), (LONG_AGO, bytes(16))
        items = size = there = 0
        while found := transfers.candidates(self._db, (source, destination), place, now, CANDIDATES_PER_QUERY):
            place = found[-1].created_at, found[-1].blob_id
            wanted = [c for c in found if c.usable and (not c.there or keep_for is not None)]
            items += len(wanted)
            size += sum(c.size for c in wanted if not c.there)
            there += sum(c.there for c in wanted)
        return DryRun(items, size, there)

    def page(self, after: bytes | None, limit: int) -> list[TransferView]:
        """Transfers and policies, newest first, without their failures."""
        return [self._view(found) for found in transfers.page(self._db, after, limit)]

    def get(self, transfer_id: bytes) -> TransferView:
        """A transfer with its first failures. Raises Problem TRANSFER_NOT_FOUND."""
        return self._view(self._found(transfer_id), with_failures=True)

    def _found(self, transfer_id: bytes) -> Transfer:
        found = transfers.by_id(self._db, transfer_id)
        if found is None:
            raise Problem(errors.TRANSFER_NOT_FOUND)
        return found

    def set_state(self, transfer_id: bytes, state: str) -> TransferView:
        """Sets the state to running, paused or cancelled. Copies in progress stop within seconds.

        Raises:
            Problem: TRANSFER_NOT_FOUND, TRANSFER_NOT_OPEN.
        """
        found = self._found(transfer_id)
        if state == "cancelled" and found.policy is not None:
            raise Problem(
                errors.TRANSFER_NOT_OPEN, "A policy is paused, or ended by taking it out of SLUICE_TRANSFER_POLICIES."
            )
        if found.state != state and not transfers.set_state(
            self._db, transfer_id, state, ALLOWED_FROM[state], self._clock()
        ):
            raise Problem(errors.TRANSFER_NOT_OPEN, f"The transfer is {found.state}.")
        if state != "paused":
            self._wake(transfer_id)
        return self.get(transfer_id)

    def retry(self, transfer_id: bytes) -> TransferView:
        """Retries the failed items. Raises Problem TRANSFER_NOT_FOUND, TRANSFER_NOT_OPEN."""
        found = self._found(transfer_id)
        if found.state == "cancelled":
            raise Problem(errors.TRANSFER_NOT_OPEN, "The transfer is cancelled.")

        def body(tx: Statements) -> int:
            items, size = transfer_items.revive(tx, transfer_id, self._clock(), ITEMS_PER_RETRY)
            if items:
                change = Change(failed_items=-items, failed_bytes=-size)
                transfers.count(tx, transfer_id, change, self._clock())
                transfers.set_state(tx, transfer_id, "running", ("done",), self._clock())
            return items

        while self._db.transaction(body) == ITEMS_PER_RETRY:
            pass
        self._wake(transfer_id)
        return self.get(transfer_id)

    def _wake(self, transfer_id: bytes) -> None:
        self._planner.wake(self._db, transfer_id)
        self._queue.enqueue(self._planner.kind, [transfer_id])

    def _view(self, found: Transfer, *, with_failures: bool = False) -> TransferView:
        failed = with_failures and found.failed_items > 0
        rate = _rate(found, self._clock())
        left = found.bytes - found.done_bytes - found.skipped_bytes - found.failed_bytes - found.live_bytes
        sure = found.planned and found.state == "running" and rate > 0
        return TransferView(
            transfer=found,
            rate=rate,
            seconds_left=max(left, 0) // rate if sure else None,
            reasons=transfer_items.reasons(self._db, found.id) if failed else {},
            failures=tuple(transfer_items.failures(self._db, found.id, FAILURES_SHOWN)) if failed else (),
        )


def _rate(found: Transfer, now: datetime) -> int:
    """Bytes per second in the current window, or in the previous one if the current one is younger than 5 s."""
    seconds = (now - found.window_at).total_seconds()
    if found.state != "running" or seconds > RATE_MAX_AGE_SECONDS:
        return 0
    if seconds < 5 and found.rate:
        return found.rate
    return int((found.moved_bytes - found.window_bytes) / max(seconds, 1))
