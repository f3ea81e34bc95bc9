"""Uploads; see docs/design.md's table of calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import falcon

from api.core import errors
from api.core.errors import Problem
from api.core.logs import request_id
from api.core.models import OPEN_STATES
from api.http import base, schemas
from api.http.base import Resource, answer, by_number, identity, read, row_id
from api.http.cursors import Cursors
from api.uploads import schema
from api.uploads.create import NewUpload
from api.uploads.proof import pack
from api.uploads.service import Uploads
from api.uploads.status import UploadView

_STATES = (*OPEN_STATES, "done", "failed", "aborted", "expired")


class UploadList(Resource):
    """/uploads."""

    def __init__(self, uploads: Uploads, cursors: Cursors) -> None:
        self._uploads = uploads
        self._cursors = cursors

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        view = self._uploads.create(identity(req), _new_upload(read(req, schema.CreateUpload)))
        answer(resp, schema.upload(view), _status_of_new(view))

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        state = base.choice(req, "state", ("all", *_STATES), "all")
        who, limit, kind = identity(req), base.limit(req), f"uploads:{state}"
        after = self._cursors.read(req, who, kind)
        views = self._uploads.page(
            who, bytes.fromhex(after[0]) if after else None, None if state == "all" else state, limit + 1
        )
        items, more = views[:limit], len(views) > limit
        cursor = self._cursors.make(who, kind, [items[-1].upload.id.hex()]) if more else None
        answer(resp, {"items": [schema.upload(view) for view in items], "next_cursor": cursor})


class UploadBatch(Resource):
    """/uploads/batch."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        news: list[NewUpload | Problem] = []
        for body in read(req, schema.CreateUploads).uploads:
            try:
                news.append(_new_upload(body))
            except Problem as ex:
                news.append(ex)
        views = self._uploads.create_many(identity(req), news)
        answer(resp, {"items": [_item(view, _status_of_new) for view in views]})


class UploadBatchComplete(Resource):
    """/uploads/batch/complete."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        ids = [row_id(text, errors.UPLOAD_NOT_FOUND) for text in read(req, schema.CompleteUploads).ids]
        views = self._uploads.complete_many(identity(req), ids)
        answer(resp, {"items": [_item(view, _status_of_end) for view in views]})


class UploadItem(Resource):
    """/uploads/{upload_id}."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    def on_get(self, req: falcon.Request, resp: falcon.Response, upload_id: str) -> None:
        view = self._uploads.get(identity(req), row_id(upload_id, errors.UPLOAD_NOT_FOUND))
        answer(resp, schema.upload(view))

    def on_patch(self, req: falcon.Request, resp: falcon.Response, upload_id: str) -> None:
        size, row = read(req, schema.ResizeUpload).size, row_id(upload_id, errors.UPLOAD_NOT_FOUND)
        answer(resp, schema.upload(self._uploads.resize(identity(req), row, size)))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, upload_id: str) -> None:
        view = self._uploads.abort(identity(req), row_id(upload_id, errors.UPLOAD_NOT_FOUND))
        answer(resp, schema.upload(view))


class UploadProof(Resource):
    """/uploads/{upload_id}/proof."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    def on_post(self, req: falcon.Request, resp: falcon.Response, upload_id: str) -> None:
        body, row = read(req, schema.Proof), row_id(upload_id, errors.UPLOAD_NOT_FOUND)
        view = self._uploads.prove(identity(req), row, bytes.fromhex(body.proof), pack(body.parts))
        answer(resp, schema.upload(view))


class UploadParts(Resource):
    """/uploads/{upload_id}/parts."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    def on_post(self, req: falcon.Request, resp: falcon.Response, upload_id: str) -> None:
        body, row = read(req, schema.SignPartsBody), row_id(upload_id, errors.UPLOAD_NOT_FOUND)
        signed = self._uploads.sign(identity(req), row, by_number(body.parts))
        answer(resp, {"parts": schema.parts(signed)})


class UploadComplete(Resource):
    """/uploads/{upload_id}/complete."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    def on_post(self, req: falcon.Request, resp: falcon.Response, upload_id: str) -> None:
        etags, row = read(req, schema.CompleteUpload).etags, row_id(upload_id, errors.UPLOAD_NOT_FOUND)
        view = self._uploads.complete(identity(req), row, by_number(etags or {}))
        answer(resp, schema.upload(view), _status_of_end(view))


def _new_upload(body: schema.CreateUpload) -> NewUpload:
    """What a body asks for. Raises Problem FOLDER_NOT_FOUND, DIGEST_INVALID, PART_NUMBER_INVALID."""
    if body.folder_id is not None:
        raise Problem(errors.FOLDER_NOT_FOUND)
    return NewUpload(
        name=body.name,
        size=body.size,
        digest=base.digest(body.digest),
        resume_key=body.resume_key,
        content_type=body.content_type,
        parts=by_number(body.parts) if body.parts else None,
    )


def _status_of_new(view: UploadView) -> int:
    return 201 if view.created else 200


def _status_of_end(view: UploadView) -> int:
    return 202 if view.upload.state == "finalizing" else 200


def _item(found: UploadView | Problem, status: Callable[[UploadView], int]) -> dict[str, Any]:
    """One answer of several: what the call by itself would have been answered with."""
    if isinstance(found, Problem):
        return {"status": found.kind.status, "error": schemas.error(found, request_id.get())}
    return {"status": status(found), "upload": schema.upload(found)}
