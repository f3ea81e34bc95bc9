"""Transfers between storages; for administrators alone."""

from __future__ import annotations

from typing import ClassVar

import falcon

from api.core import errors
from api.core.errors import Problem
from api.http import base
from api.http.base import Access, Resource, answer, identity, read, row_id
from api.http.cursors import Cursors
from api.transfers import schema
from api.transfers.service import Transfers

_KIND = "transfers"


class TransferList(Resource):
    """/transfers."""

    access: ClassVar = {"GET": Access.ADMIN, "POST": Access.ADMIN}

    def __init__(self, transfers: Transfers, cursors: Cursors) -> None:
        self._transfers = transfers
        self._cursors = cursors

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = read(req, schema.StartTransfer)
        if body.keep_for is not None and not body.delete_source:
            raise Problem(errors.BODY_INVALID, "keep_for says when the source is deleted: it needs delete_source.")
        keep_for = (body.keep_for or 0) if body.delete_source else None
        if body.dry_run:
            answer(resp, schema.dry_run(self._transfers.dry_run(body.source, body.destination, keep_for)))
            return
        view, new = self._transfers.start(body.source, body.destination, keep_for)
        answer(resp, schema.transfer(view), 201 if new else 200)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        who, limit = identity(req), base.limit(req)
        after = self._cursors.read(req, who, _KIND)
        found = self._transfers.page(bytes.fromhex(after[0]) if after else None, limit + 1)
        items, more = found[:limit], len(found) > limit
        cursor = self._cursors.make(who, _KIND, [items[-1].transfer.id.hex()]) if more else None
        answer(resp, {"items": [schema.transfer(view) for view in items], "next_cursor": cursor})


class TransferItem(Resource):
    """/transfers/{transfer_id}."""

    access: ClassVar = {"GET": Access.ADMIN, "PATCH": Access.ADMIN}

    def __init__(self, transfers: Transfers) -> None:
        self._transfers = transfers

    def on_get(self, req: falcon.Request, resp: falcon.Response, transfer_id: str) -> None:
        answer(resp, schema.transfer(self._transfers.get(row_id(transfer_id, errors.TRANSFER_NOT_FOUND))))

    def on_patch(self, req: falcon.Request, resp: falcon.Response, transfer_id: str) -> None:
        body, row = read(req, schema.ChangeTransfer), row_id(transfer_id, errors.TRANSFER_NOT_FOUND)
        answer(resp, schema.transfer(self._transfers.set_state(row, body.state)))


class TransferRetry(Resource):
    """/transfers/{transfer_id}/retry."""

    access: ClassVar = {"POST": Access.ADMIN}

    def __init__(self, transfers: Transfers) -> None:
        self._transfers = transfers

    def on_post(self, req: falcon.Request, resp: falcon.Response, transfer_id: str) -> None:
        answer(resp, schema.transfer(self._transfers.retry(row_id(transfer_id, errors.TRANSFER_NOT_FOUND))))
