"""The JSON of transfers."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from api.http.schemas import Answer, Body, Cursor, Id, Limit, Moment, Query, Size, one_of, timestamp
from api.transfers.service import DryRun, TransferView


class StartTransfer(Body):
    """Source and destination storage; `keep_for` is how long the source is kept beside its copy, in seconds."""

    source: Annotated[str, Meta(max_length=32)] = msgspec.field(name="from")
    destination: Annotated[str, Meta(max_length=32)] = msgspec.field(name="to")
    delete_source: bool = False
    keep_for: Annotated[int, Meta(ge=0)] | None = None
    dry_run: bool = False


class ChangeTransfer(Body):
    """The wanted state of a transfer."""

    state: Literal["running", "paused", "cancelled"]


class TransferQuery(Query):
    """Which page of the list."""

    limit: Limit = 50
    cursor: Cursor | None = None


class FailureAnswer(Answer):
    """A blob that was not copied, or whose source was not deleted."""

    blob: Id
    size: Size
    phase: Annotated[str, one_of("copy", "delete")]
    reason: str
    message: str


class TransferAnswer(Answer, kw_only=True):
    """A transfer, or a policy.

    Attributes:
        policy: the policy's name; null for a migration that was started by an operator.
        items: grows until the transfer is planned.
        rate: recent bytes per second.
        seconds_left: estimated from the rate; null if unknown.
        reasons: number of failed items by reason.
        failures: the first failures.
    """

    id: Id
    state: Annotated[str, one_of("running", "paused", "done", "cancelled")]
    source: str = msgspec.field(name="from")
    destination: str = msgspec.field(name="to")
    policy: str | None
    delete_source: bool
    keep_for: int | None
    after: int
    planned: bool
    items: Size
    bytes: Size
    done_items: Size
    done_bytes: Size
    skipped_items: Size
    skipped_bytes: Size
    failed_items: Size
    failed_bytes: Size
    unfinished_bytes: Size
    rate: Size
    seconds_left: int | None
    reasons: dict[str, int]
    failures: list[FailureAnswer]
    created_at: Moment
    ended_at: Moment | None


class TransferPage(Answer):
    """Part of a list of transfers."""

    items: list[TransferAnswer]
    next_cursor: str | None


class DryRunAnswer(Answer):
    """The items and bytes that a transfer would copy; the destination already has `there_items`."""

    dry_run: Literal[True]
    items: Size
    bytes: Size
    there_items: Size


def transfer(view: TransferView) -> TransferAnswer:
    """A transfer."""
    row = view.transfer
    return TransferAnswer(
        id=row.id.hex(),
        state=row.state,
        source=row.source,
        destination=row.destination,
        policy=row.policy,
        delete_source=row.delete_source,
        keep_for=row.keep_for if row.delete_source else None,
        after=row.delay,
        planned=row.planned,
        items=row.items,
        bytes=row.bytes,
        done_items=row.done_items,
        done_bytes=row.done_bytes,
        skipped_items=row.skipped_items,
        skipped_bytes=row.skipped_bytes,
        failed_items=row.failed_items,
        failed_bytes=row.failed_bytes,
        unfinished_bytes=row.live_bytes,
        rate=view.rate,
        seconds_left=view.seconds_left,
        reasons=dict(view.reasons),
        failures=[FailureAnswer(f.blob_id.hex(), f.size, f.phase, f.reason, f.message) for f in view.failures],
        created_at=timestamp(row.created_at),
        ended_at=None if row.ended_at is None else timestamp(row.ended_at),
    )


def dry_run(found: DryRun) -> DryRunAnswer:
    """The answer to a dry run."""
    return DryRunAnswer(True, found.items, found.bytes, found.there)
