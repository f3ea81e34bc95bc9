"""Around a resource: the request's id for the logs, its figures, and who is asking."""

from __future__ import annotations

import hmac
import os
import re
import time
from collections.abc import Callable
from typing import Final

import falcon

from api.core import budget, errors, metrics
from api.core.errors import Problem
from api.core.logs import request_id
from api.core.models import Identity
from api.http.adapter import Endpoint
from api.http.route import Access

_REQUEST_ID: Final = re.compile(r"[0-9a-zA-Z-]{1,64}")


class RequestId:
    """Takes the id that nginx gave, or makes one, and puts it into every log line and answer."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        given = req.get_header("X-Request-Id") or ""
        identity = given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
        request_id.set(identity)
        budget.begin()
        resp.set_header("X-Request-Id", identity)

    def process_response(self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool) -> None:
        budget.end()


class Metrics:
    """Counts calls and their time by the route's template: a path would be a series for each file."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        req.context.began = time.monotonic()

    def process_response(self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool) -> None:
        path = req.uri_template or "none"
        if path.startswith("/internal/metrics"):
            return
        method = req.method if resource is not None else "any"
        metrics.API_CALLS.labels(method, path, str(resp.status_code)).inc()
        metrics.API_SECONDS.labels(method, path).observe(time.monotonic() - req.context.began)


class Authentication:
    """Lets a request through as the table of routes says; see `api.http.route.Access`.

    Args:
        identify: says who a bearer token speaks for, or raises Problem; told that the edge cannot tell, it looks itself
            whether the token has ended.
    """

    def __init__(self, identify: Callable[[str, bool], Identity], edge_key: str) -> None:
        self._identify = identify
        self._edge_key = edge_key.encode()

    def process_resource(
        self, req: falcon.Request, resp: falcon.Response, resource: object, params: dict[str, object]
    ) -> None:
        if not isinstance(resource, Endpoint):
            return  # no route: falcon answers 404 by itself
        route = resource.routes.get(req.method)
        access = route.access if route else Access.BEARER
        if access is Access.EDGE and not self._is_edge(req):
            raise Problem(errors.NOT_FOUND)
        if access in (Access.BEARER, Access.ADMIN) and req.method != "OPTIONS":
            identity = self._bearer(req)
            if identity is None:
                raise Problem(errors.TOKEN_MISSING)
            if access is Access.ADMIN and identity.role != "admin":
                raise Problem(errors.ADMIN_REQUIRED)
            req.context.identity = identity

    def _is_edge(self, req: falcon.Request) -> bool:
        shown = (req.get_header("X-Sluice-Edge") or "").encode()
        return hmac.compare_digest(shown, self._edge_key)

    def _bearer(self, req: falcon.Request) -> Identity | None:
        """The identity of the bearer token; None if there is no token. Raises Problem if the token is bad."""
        scheme, _, token = (req.get_header("Authorization") or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        return self._identify(token.strip(), req.get_header("X-Sluice-Unsure") is not None)
