"""Transfers between storages; for administrators only."""

from __future__ import annotations

from api.core import errors
from api.core.errors import Problem
from api.http.call import Call
from api.http.route import Reply
from api.transfers import schema
from api.transfers.schema import DryRunAnswer, TransferAnswer, TransferPage
from api.transfers.service import Transfers

_KIND = "transfers"


def start(call: Call, body: schema.StartTransfer, transfers: Transfers) -> Reply[TransferAnswer | DryRunAnswer]:
    """The new transfer, the same unfinished one (200), or what a dry run counts (200)."""
    if body.keep_for is not None and not body.delete_source:
        raise Problem(errors.BODY_INVALID, "keep_for sets when the source is deleted: it needs delete_source.")
    keep_for = (body.keep_for or 0) if body.delete_source else None
    if body.dry_run:
        return Reply(schema.dry_run(transfers.dry_run(body.source, body.destination, keep_for)), 200)
    view, new = transfers.start(body.source, body.destination, keep_for)
    return Reply(schema.transfer(view), 201 if new else 200)


def page(call: Call, query: schema.TransferQuery, transfers: Transfers) -> TransferPage:
    """Transfers and policies, newest first."""
    after = call.after(_KIND, query.cursor)
    found = transfers.page(bytes.fromhex(after[0]) if after else None, query.limit + 1)
    items = found[: query.limit]
    cursor = call.cursor(_KIND, [items[-1].transfer.id.hex()] if len(found) > query.limit else None)
    return TransferPage([schema.transfer(view) for view in items], cursor)


def get(call: Call, transfers: Transfers) -> TransferAnswer:
    """The transfer, with its first failures."""
    return schema.transfer(transfers.get(call.id))


def change(call: Call, body: schema.ChangeTransfer, transfers: Transfers) -> TransferAnswer:
    """The transfer, resumed, paused or cancelled."""
    return schema.transfer(transfers.set_state(call.id, body.state))


def retry(call: Call, transfers: Transfers) -> TransferAnswer:
    """The transfer; what failed is tried again."""
    return schema.transfer(transfers.retry(call.id))
