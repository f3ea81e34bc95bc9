"""Files, their links and their content."""

from __future__ import annotations

import json

import falcon

from api.core import errors
from api.core.errors import Problem
from api.files import schema
from api.files.service import Files
from api.http import base
from api.http.base import Resource, answer, identity, read, row_id
from api.http.cursors import Cursors

_DISPOSITIONS = ("attachment", "inline")


class FileList(Resource):
    """/files."""

    def __init__(self, files: Files, cursors: Cursors) -> None:
        self._files = files
        self._cursors = cursors

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        order = base.choice(req, "order", ("newest", "name"), "newest")
        trashed = base.choice(req, "trashed", ("true", "false"), "false")
        if req.get_param("folder_id") is not None:
            raise Problem(errors.FOLDER_NOT_FOUND)
        digest = base.digest(req.get_param("digest"))
        who, kind = identity(req), f"files:{order}:{trashed}:{digest is not None}"
        after = self._cursors.read(req, who, kind)
        found = self._files.page(
            who,
            order=order,
            limit=base.limit(req),
            trashed=trashed == "true",
            after=_after(after) if after else (),
            text=req.get_param("q") or None,
            digest=digest,
        )
        cursor = self._cursors.make(who, kind, _cursor(found.after)) if found.after else None
        answer(resp, {"items": [schema.file(file) for file in found.files], "next_cursor": cursor})


def _cursor(after: tuple[str | bytes, ...]) -> list[str]:
    return [value.hex() if isinstance(value, bytes) else value for value in after]


def _after(key: list[str]) -> tuple[str | bytes, ...]:
    """The id stands last, in hexadecimal."""
    return (*key[:-1], bytes.fromhex(key[-1]))


class FileItem(Resource):
    """/files/{file_id}."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def on_get(self, req: falcon.Request, resp: falcon.Response, file_id: str) -> None:
        answer(resp, schema.file(self._files.get(identity(req), row_id(file_id, errors.FILE_NOT_FOUND))))

    def on_patch(self, req: falcon.Request, resp: falcon.Response, file_id: str) -> None:
        body, row = read(req, schema.ChangeFile), row_id(file_id, errors.FILE_NOT_FOUND)
        answer(resp, schema.file(self._files.rename(identity(req), row, body.name)))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, file_id: str) -> None:
        self._files.trash(identity(req), row_id(file_id, errors.FILE_NOT_FOUND))
        resp.status = 204


class FileRestore(Resource):
    """/files/{file_id}/restore."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def on_post(self, req: falcon.Request, resp: falcon.Response, file_id: str) -> None:
        answer(resp, schema.file(self._files.restore(identity(req), row_id(file_id, errors.FILE_NOT_FOUND))))


class FileLinks(Resource):
    """/files/{file_id}/links."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def on_post(self, req: falcon.Request, resp: falcon.Response, file_id: str) -> None:
        body, row = read(req, schema.CreateLink), row_id(file_id, errors.FILE_NOT_FOUND)
        if body.disposition not in _DISPOSITIONS:
            raise Problem(errors.BODY_INVALID, "disposition is attachment or inline.")
        link = self._files.link(identity(req), row, body.expires_in, body.disposition)
        answer(resp, schema.link(link), 201)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, file_id: str) -> None:
        self._files.end_links(identity(req), row_id(file_id, errors.FILE_NOT_FOUND))
        resp.status = 204


class FileContent(Resource):
    """/files/{file_id}/content: nginx sends the bytes, by an internal redirect."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def on_get(self, req: falcon.Request, resp: falcon.Response, file_id: str) -> None:
        disposition = base.choice(req, "disposition", _DISPOSITIONS, "attachment")
        row = row_id(file_id, errors.FILE_NOT_FOUND)
        redirect = self._files.redirect(identity(req), row, disposition)
        resp.set_header("X-Accel-Redirect", redirect.uri)
        if redirect.target is not None:
            resp.set_header("X-Sluice-Target", json.dumps(schema.target(redirect.target)))

    on_head = on_get
