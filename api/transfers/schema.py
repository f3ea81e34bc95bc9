"""The JSON of transfers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from api.http.schemas import Body, timestamp
from api.transfers.service import DryRun, TransferView


class StartTransfer(Body):
    """POST /transfers."""

    source: Annotated[str, Meta(max_length=32)] = msgspec.field(name="from")
    destination: Annotated[str, Meta(max_length=32)] = msgspec.field(name="to")
    delete_source: bool = False
    keep_for: Annotated[int, Meta(ge=0)] | None = None
    dry_run: bool = False


class ChangeTransfer(Body):
    """PATCH /transfers/{id}."""

    state: Literal["running", "paused", "cancelled"]


def transfer(view: TransferView) -> dict[str, Any]:
    """A transfer."""
    row = view.transfer
    return {
        "id": row.id.hex(),
        "state": row.state,
        "from": row.source,
        "to": row.destination,
        "policy": row.policy,
        "delete_source": row.delete_source,
        "keep_for": row.keep_for if row.delete_source else None,
        "after": row.delay,
        "planned": row.planned,
        "items": row.items,
        "bytes": row.bytes,
        "done_items": row.done_items,
        "done_bytes": row.done_bytes,
        "skipped_items": row.skipped_items,
        "skipped_bytes": row.skipped_bytes,
        "failed_items": row.failed_items,
        "failed_bytes": row.failed_bytes,
        "unfinished_bytes": row.live_bytes,
        "rate": view.rate,
        "seconds_left": view.seconds_left,
        "reasons": dict(view.reasons),
        "failures": [
            {"blob": f.blob_id.hex(), "size": f.size, "phase": f.phase, "reason": f.reason, "message": f.message}
            for f in view.failures
        ],
        "created_at": timestamp(row.created_at),
        "ended_at": None if row.ended_at is None else timestamp(row.ended_at),
    }


def dry_run(found: DryRun) -> dict[str, Any]:
    """What a transfer would copy."""
    return {"dry_run": True, "items": found.items, "bytes": found.bytes, "there_items": found.there}
