"""Turns every exception into a response of the one error shape. Internal details go to the log only."""

from __future__ import annotations

import logging
from typing import Any

import falcon

from api.core import errors
from api.core.errors import DatabaseTooSlow, DatabaseUnavailable, Kind, Problem, StorageError
from api.core.logs import request_id
from api.http import schemas

_log = logging.getLogger(__name__)

# Falcon's own refusals, by status; anything else of it keeps its status and says BODY_INVALID or INTERNAL_ERROR.
_BY_STATUS = {
    404: errors.NOT_FOUND,
    405: errors.METHOD_NOT_ALLOWED,
    413: errors.BODY_TOO_LARGE,
}


def _answer(resp: falcon.Response, problem: Problem) -> None:
    kind = problem.kind
    resp.status = kind.status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = schemas.encode(schemas.ErrorAnswer(schemas.error(problem, request_id.get())))
    resp.set_header("Cache-Control", "no-store")
    if problem.retry_after is not None:
        resp.set_header("Retry-After", str(problem.retry_after))
    if kind.status == 401:
        resp.set_header("WWW-Authenticate", "Bearer")


def _problem(req: falcon.Request, resp: falcon.Response, ex: Problem, params: dict[str, Any]) -> None:
    _answer(resp, ex)


def _falcon(req: falcon.Request, resp: falcon.Response, ex: falcon.HTTPError, params: dict[str, Any]) -> None:
    status = ex.status_code
    fallback = errors.BODY_INVALID if status < 500 else errors.INTERNAL_ERROR
    known: Kind | None = _BY_STATUS.get(status)
    _answer(resp, Problem(known) if known else Problem(fallback, ex.title))
    resp.set_headers(ex.headers or {})


def _database(req: falcon.Request, resp: falcon.Response, ex: DatabaseUnavailable, params: dict[str, Any]) -> None:
    if isinstance(ex, DatabaseTooSlow):
        _log.error("a call took too long", extra={"error": str(ex), "method": req.method, "route": req.uri_template})
        _answer(resp, Problem(errors.DATABASE_TOO_SLOW))
        return
    _log.error("the database is away", extra={"error": str(ex)})
    _answer(resp, Problem(errors.DATABASE_UNAVAILABLE))


def _storage(req: falcon.Request, resp: falcon.Response, ex: StorageError, params: dict[str, Any]) -> None:
    _log.error("a storage failed", extra={"error": str(ex), "kind": type(ex).__name__})
    _answer(resp, errors.problem_of(ex))


def _anything(req: falcon.Request, resp: falcon.Response, ex: Exception, params: dict[str, Any]) -> None:
    _log.error("unhandled", exc_info=ex, extra={"method": req.method, "route": req.uri_template})
    _answer(resp, Problem(errors.INTERNAL_ERROR))


def install(app: falcon.App[Any, Any]) -> None:
    """Registers the handlers; falcon takes the most specific one."""
    app.add_error_handler(Exception, _anything)
    app.add_error_handler(falcon.HTTPError, _falcon)
    app.add_error_handler(StorageError, _storage)
    app.add_error_handler(DatabaseUnavailable, _database)
    app.add_error_handler(Problem, _problem)
