"""Uploads: create, prove, sign parts, complete, look at, abort."""

from __future__ import annotations

from api.core import errors
from api.core.errors import Problem
from api.core.logs import request_id
from api.http import schemas
from api.http.adapter import row_id
from api.http.call import Call
from api.http.route import Reply
from api.uploads import schema
from api.uploads.create import NewUpload
from api.uploads.proof import pack
from api.uploads.schema import BatchAnswer, BatchItem, PartsAnswer, UploadAnswer, UploadPage
from api.uploads.service import Uploads
from api.uploads.status import UploadView


def create(call: Call, body: schema.CreateUpload, uploads: Uploads) -> Reply[UploadAnswer]:
    """The new upload, or the same unfinished one (200).

    With `digest`, content that the caller has already is `done` immediately, and other content of more than one part
    may begin as `proving` and carry a challenge. `parts` saves the call that signs them.
    """
    view = _only(uploads.create(call.identity, [_new_upload(body)]))
    return Reply(schema.upload(view), _status_of_new(view))


def page(call: Call, query: schema.UploadQuery, uploads: Uploads) -> UploadPage:
    """Uploads, newest first; what was received is as last asked."""
    kind = f"uploads:{query.state}"
    after = call.after(kind, query.cursor)
    views = uploads.page(
        call.identity,
        bytes.fromhex(after[0]) if after else None,
        None if query.state == "all" else query.state,
        query.limit + 1,
    )
    items = views[: query.limit]
    cursor = call.cursor(kind, [items[-1].upload.id.hex()] if len(views) > query.limit else None)
    return UploadPage([schema.upload(view) for view in items], cursor)


def create_many(call: Call, body: schema.CreateUploads, uploads: Uploads) -> BatchAnswer:
    """Up to 50 uploads, each answered as by itself.

    One item's error is none of the others', and the whole may be repeated.
    """
    news: list[NewUpload | Problem] = []
    for each in body.uploads:
        try:
            news.append(_new_upload(each))
        except Problem as ex:
            news.append(ex)
    return BatchAnswer([_item(found, of_new=True) for found in uploads.create(call.identity, news)])


def complete_many(call: Call, body: schema.CompleteUploads, uploads: Uploads) -> BatchAnswer:
    """Up to 50 uploads, each completed as by itself."""
    ids = [row_id(text, errors.UPLOAD_NOT_FOUND) for text in body.ids]
    return BatchAnswer([_item(found, of_new=False) for found in uploads.complete(call.identity, ids)])


def get(call: Call, uploads: Uploads) -> UploadAnswer:
    """The upload."""
    return schema.upload(uploads.get(call.identity, call.id))


def resize(call: Call, body: schema.ResizeUpload, uploads: Uploads) -> UploadAnswer:
    """The upload, with another size: see "Upload"."""
    return schema.upload(uploads.resize(call.identity, call.id, body.size))


def abort(call: Call, uploads: Uploads) -> UploadAnswer:
    """The upload, aborted."""
    return schema.upload(uploads.abort(call.identity, call.id))


def prove(call: Call, body: schema.Proof, uploads: Uploads) -> UploadAnswer:
    """The upload: `done`, or `uploading` if the proof is wrong."""
    view = uploads.prove(call.identity, call.id, bytes.fromhex(body.proof), pack(body.parts))
    return schema.upload(view)


def sign(call: Call, body: schema.SignParts, uploads: Uploads) -> PartsAnswer:
    """URLs of up to 1,000 parts, by the parts' hashes.

    A part's hash is written once. A part that the storage has may be left out.
    """
    return PartsAnswer(schema.parts(uploads.sign(call.identity, call.id, schemas.by_number(body.parts))))


def complete(call: Call, body: schema.CompleteUpload, uploads: Uploads) -> Reply[UploadAnswer]:
    """The upload: `done`, or `finalizing` (202): ask the upload until it is `done`."""
    view = _only(uploads.complete(call.identity, [call.id], schemas.by_number(body.etags or {})))
    return Reply(schema.upload(view), _status_of_end(view))


def _new_upload(body: schema.CreateUpload) -> NewUpload:
    """The upload that a body asks for. Raises Problem FOLDER_NOT_FOUND, DIGEST_INVALID, PART_NUMBER_INVALID."""
    if body.folder_id is not None:
        raise Problem(errors.FOLDER_NOT_FOUND)
    return NewUpload(
        name=body.name,
        size=body.size,
        digest=schemas.digest(body.digest),
        resume_key=body.resume_key,
        content_type=body.content_type,
        parts=schemas.by_number(body.parts) if body.parts else None,
    )


def _only(answers: list[UploadView | Problem]) -> UploadView:
    """The answer of a call about one upload."""
    (answer,) = answers
    if isinstance(answer, Problem):
        raise answer
    return answer


def _status_of_new(view: UploadView) -> int:
    return 201 if view.created else 200


def _status_of_end(view: UploadView) -> int:
    return 202 if view.upload.state == "finalizing" else 200


def _item(found: UploadView | Problem, *, of_new: bool) -> BatchItem:
    if isinstance(found, Problem):
        return BatchItem(found.kind.status, error=schemas.error(found, request_id.get()))
    return BatchItem(_status_of_new(found) if of_new else _status_of_end(found), upload=schema.upload(found))
