"""Every call of the API, on one screen; the handler's annotations and docstring hold the rest.

From this table come falcon's routes, who may make a call, the tables in docs/api.md, the OpenAPI document and the
loops of the tests. `Route.kinds` adds the errors that follow from a row's access, body, query and id.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from api.accounts import resource as accounts
from api.core import errors as e
from api.core.metrics import CONTENT_TYPE
from api.edge import system, traffic
from api.files import resource as files
from api.http import openapi
from api.http.route import Access, Route
from api.transfers import resource as transfers
from api.uploads import resource as uploads

_PUBLIC, _ADMIN, _EDGE = Access.PUBLIC, Access.ADMIN, Access.EDGE

_OF_NEW = (
    e.NAME_INVALID,
    e.SIZE_INVALID,
    e.DIGEST_INVALID,
    e.DIGEST_MISMATCH,
    e.PART_NUMBER_INVALID,
    e.FOLDER_NOT_FOUND,
    e.UPLOADS_LIMITED,
    e.PARTS_LIMITED,
    e.PART_HASH_CONFLICT,
    e.PART_TRIES_EXHAUSTED,
)
_OF_STORAGE = (e.STORAGE_FULL, e.STORAGE_UNAVAILABLE)
_OF_PARTS = (e.PART_NUMBER_INVALID, e.UPLOAD_NOT_OPEN, e.UPLOAD_GONE)


def _then(parameter: str, found: str, *handlers: Any) -> dict[str, Any]:
    """Calls that take what this one's answer says at ``found`` (a JSON pointer), as Link Objects."""
    names = [f"{handler.__module__.split('.')[1]}_{handler.__name__}" for handler in handlers]
    return {name: {"operationId": name, "parameters": {parameter: f"$response.body#{found}"}} for name in names}


_OF_UPLOAD = _then(
    "upload_id", "/id", uploads.get, uploads.prove, uploads.sign, uploads.complete, uploads.resize, uploads.abort
)
_OF_FILE = _then(
    "file_id", "/items/0/id", files.get, files.rename, files.trash, files.restore, files.link, files.content
)
_OF_TRANSFER = _then("transfer_id", "/id", transfers.get, transfers.change, transfers.retry)

# fmt: off
_CALLS: Final = (
    Route("GET", "/openapi.json", openapi.openapi, _PUBLIC, (200, 304)),
    # -- accounts
    Route("POST", "/users", accounts.sign_up, _PUBLIC, (201,),
          (e.USERNAME_INVALID, e.PASSWORD_INVALID, e.SIGNUP_CLOSED, e.USERNAME_TAKEN, e.SIGNIN_BUSY)),
    Route("GET", "/users/me", accounts.me),
    Route("PATCH", "/users/me", accounts.change_me,
          errors=(e.PASSWORD_INVALID, e.PASSWORD_WRONG, e.SIGNIN_LIMITED, e.SIGNIN_BUSY)),
    Route("POST", "/sessions", accounts.sign_in, _PUBLIC, (201,),
          (e.CREDENTIALS_INVALID, e.ORIGIN_INVALID, e.SIGNIN_LIMITED, e.SIGNIN_BUSY)),
    Route("POST", "/sessions/refresh", accounts.refresh, _PUBLIC,
          errors=(e.TOKEN_MISSING, e.TOKEN_INVALID, e.TOKEN_EXPIRED, e.TOKEN_REVOKED, e.ORIGIN_INVALID)),
    Route("DELETE", "/sessions/current", accounts.sign_out, status=(204,)),
    # -- uploads
    Route("POST", "/uploads", uploads.create, status=(201, 200), errors=(*_OF_NEW, e.UPLOAD_GONE, *_OF_STORAGE),
          links=_OF_UPLOAD),
    Route("GET", "/uploads", uploads.page),
    Route("POST", "/uploads/batch", uploads.create_many, errors=_OF_STORAGE),
    Route("POST", "/uploads/batch/complete", uploads.complete_many, errors=(e.UPLOAD_NOT_FOUND, *_OF_STORAGE)),
    Route("GET", "/uploads/{upload_id}", uploads.get),
    Route("PATCH", "/uploads/{upload_id}", uploads.resize,
          errors=(e.SIZE_INVALID, e.UPLOAD_NOT_OPEN, e.PARTS_LIMITED, *_OF_STORAGE)),
    Route("DELETE", "/uploads/{upload_id}", uploads.abort, errors=(e.UPLOAD_NOT_OPEN,)),
    Route("POST", "/uploads/{upload_id}/proof", uploads.prove, errors=(e.UPLOAD_NOT_OPEN, *_OF_STORAGE)),
    Route("POST", "/uploads/{upload_id}/parts", uploads.sign,
          errors=(*_OF_PARTS, e.PART_HASH_CONFLICT, e.PART_TRIES_EXHAUSTED, e.PARTS_LIMITED, *_OF_STORAGE)),
    Route("POST", "/uploads/{upload_id}/complete", uploads.complete, status=(200, 202),
          errors=(*_OF_PARTS, e.PARTS_MISSING, e.PART_MISMATCH, e.DIGEST_MISMATCH, *_OF_STORAGE)),
    # -- files
    Route("GET", "/files", files.page, errors=(e.DIGEST_INVALID, e.FOLDER_NOT_FOUND), links=_OF_FILE),
    Route("GET", "/files/{file_id}", files.get),
    Route("PATCH", "/files/{file_id}", files.rename, errors=(e.NAME_INVALID,)),
    Route("DELETE", "/files/{file_id}", files.trash, status=(204,)),
    Route("POST", "/files/{file_id}/restore", files.restore),
    Route("DELETE", "/files/{file_id}/links", files.end_links, status=(204,)),
    Route("POST", "/files/{file_id}/links", files.link, status=(201,), errors=(e.FILE_CORRUPT,)),
    Route("GET", "/files/{file_id}/content", files.content, errors=(e.FILE_CORRUPT,), media="*/*", head=True),
    # -- transfers
    Route("POST", "/transfers", transfers.start, _ADMIN, (201, 200), (e.TRANSFER_INVALID,), links=_OF_TRANSFER),
    Route("GET", "/transfers", transfers.page, _ADMIN),
    Route("GET", "/transfers/{transfer_id}", transfers.get, _ADMIN),
    Route("PATCH", "/transfers/{transfer_id}", transfers.change, _ADMIN, errors=(e.TRANSFER_NOT_OPEN,)),
    Route("POST", "/transfers/{transfer_id}/retry", transfers.retry, _ADMIN, errors=(e.TRANSFER_NOT_OPEN,)),
)
_SYSTEM: Final = (
    Route("GET", "/healthz", system.healthz, _PUBLIC, (200, 503), head=True),
    Route("GET", "/readyz", system.readyz, _PUBLIC, (200, 503), head=True),
    Route("GET", "/internal/revocations", system.revoked, _EDGE),
    Route("GET", "/internal/metrics", system.metrics, _EDGE, media=CONTENT_TYPE),
    Route("GET", "/internal/tiers", traffic.tiers, _EDGE),
    Route("POST", "/internal/usage", traffic.report, _EDGE),
    Route("GET", "/internal/usage/{kind}/{subject}", traffic.totals, _EDGE),
    Route("GET", "/internal/sessions/{session_id}", system.session, _EDGE),
    Route("GET", "/internal/targets/{file_id}", system.target, _EDGE,
          errors=(e.LINK_REVOKED, e.FILE_CORRUPT, e.CONTENT_LOST, e.STORAGE_UNAVAILABLE)),
)
# fmt: on
ROUTES: Final = (*(replace(route, path=f"/api/v1{route.path}") for route in _CALLS), *_SYSTEM)
