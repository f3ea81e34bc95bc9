"""From the table of routes to falcon's responders: reads what the call takes, and writes its answer."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import falcon
import msgspec

from api.core import errors
from api.core.errors import Problem
from api.http import schemas
from api.http.call import Call, Desk
from api.http.route import JSON, PATH_IDS, Reply, Route

MAX_BODY: Final = 2 * 1024**2
_ID: Final = re.compile(r"[0-9a-f]{32}")
_NUMBER: Final = re.compile(r"[0-9]{1,19}")
_NO_STORE: Final = "private, no-store"
"""Answers hold tokens and signed URLs, which no cache may keep."""

Responder = Callable[..., None]


class Endpoint:
    """A resource, in falcon's sense: all routes of one path.

    Attributes:
        routes: the rows of the table by method.
    """

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self.routes = routes


def endpoints(table: Iterable[Route], services: Iterable[object], desk: Desk) -> dict[str, Endpoint]:
    """The endpoint of every path, with a responder for each of its methods.

    Args:
        services: what handlers ask, found by type.
    """
    by_path: dict[str, dict[str, Route]] = {}
    for route in table:
        for method in (route.method, "HEAD") if route.head else (route.method,):
            by_path.setdefault(route.path, {})[method] = route
    offered = {type(service): service for service in services}
    found = {}
    for path, routes in by_path.items():
        found[path] = endpoint = Endpoint(routes)
        for method, route in routes.items():
            setattr(endpoint, f"on_{method.lower()}", _responder(route, offered, desk))
    return found


def _responder(route: Route, offered: Mapping[type, object], desk: Desk) -> Responder:
    services = {name: offered[kind] for name, kind in route.wants.items()}
    handle = functools.partial(route.handler, **services)
    read = _reader(route)
    status = route.status[0]
    id_name = route.path_ids[0] if route.path_ids else ""
    otherwise = PATH_IDS.get(id_name, errors.NOT_FOUND)
    write = _json_writer if route.media == JSON else functools.partial(_bytes_writer, route.media)

    def respond(req: falcon.Request, resp: falcon.Response, **params: str) -> None:
        call = Call(req, desk)
        given = read(req)
        if id_name:
            call.id = row_id(params[id_name], otherwise)
            call.kind = params.get("kind", "")
        answer = handle(call, *given)
        resp.status = status
        if type(answer) is not Reply:
            if answer is not None:
                write(resp, answer)
            return
        if answer.status:
            resp.status = answer.status
        if answer.answer is not None:
            write(resp, answer.answer)
        if answer.headers or answer.cookie:
            _extras(resp, answer, desk)

    return respond


def _reader(route: Route) -> Callable[[falcon.Request], tuple[Any, ...]]:
    """Reads the handler's arguments that follow the call: the body, then the query."""
    read_body = _body_reader(route.body) if route.body else None
    read_query = query_reader(route.query) if route.query else None

    def read(req: falcon.Request) -> tuple[Any, ...]:
        if read_query is not None:
            query = read_query(req)
            return (query,) if read_body is None else (read_body(req), query)
        if req.query_string and req.params:
            raise Problem(errors.PARAMETER_INVALID, f"This call takes no parameter {next(iter(req.params))!r}.")
        return () if read_body is None else (read_body(req),)

    return read


def _extras(resp: falcon.Response, reply: Reply[Any], desk: Desk) -> None:
    for name, value in reply.headers.items():
        resp.set_header(name, value)
    cookie = reply.cookie
    if cookie and cookie.value:
        resp.set_cookie(
            cookie.name,
            cookie.value,
            max_age=cookie.max_age,
            path=cookie.path,
            secure=desk.origin.startswith("https:"),
            http_only=True,
            same_site="Strict",
        )
    elif cookie:
        resp.unset_cookie(cookie.name, same_site="Strict", path=cookie.path)


def _json_writer(resp: falcon.Response, answer: schemas.Answer) -> None:
    resp.content_type = falcon.MEDIA_JSON
    resp.data = schemas.encode(answer)
    resp.set_header("Cache-Control", _NO_STORE)


def _bytes_writer(media: str, resp: falcon.Response, answer: bytes) -> None:
    resp.content_type = media
    resp.data = answer


def row_id(text: str, otherwise: errors.Kind) -> bytes:
    """An id from a path. If the text cannot be an id, the entry does not exist."""
    if not _ID.fullmatch(text):
        raise Problem(otherwise)
    return bytes.fromhex(text)


# -- bodies


def _body_reader(shape: type[schemas.Body]) -> Callable[[falcon.Request], schemas.Body]:
    decode = msgspec.json.Decoder(shape).decode

    def read(req: falcon.Request) -> schemas.Body:
        """Raises Problem BODY_INVALID, BODY_TOO_LARGE, MEDIA_TYPE_UNSUPPORTED."""
        length = req.content_length or 0
        if length > MAX_BODY:
            raise Problem(errors.BODY_TOO_LARGE)
        # a page of a foreign origin can send every other type without asking first (CORS' simple requests)
        if length and not _is_json(req.content_type):
            raise Problem(errors.MEDIA_TYPE_UNSUPPORTED)
        data = req.bounded_stream.read(MAX_BODY + 1) if length else b""
        try:
            return decode(data or b"{}")
        except UnicodeDecodeError as ex:
            raise Problem(errors.BODY_INVALID, "The body is not UTF-8.") from ex
        except msgspec.DecodeError as ex:
            raise Problem(errors.BODY_INVALID, f"The body is not what this call takes: {ex}") from ex
        except RecursionError:
            raise Problem(errors.BODY_INVALID, "The body is nested too deeply.") from None

    return read


def _is_json(media_type: str | None) -> bool:
    return media_type == JSON or (media_type or "").partition(";")[0].strip().lower() == JSON


# -- queries


def query_reader(shape: type[schemas.Query]) -> Callable[[falcon.Request], schemas.Query]:
    """A reader of a query into ``shape``. If a parameter is wrong, the error describes what that parameter allows."""
    (_,), components = msgspec.json.schema_components([shape], ref_template="{name}")
    properties = components[shape.__name__]["properties"]
    said = {name: _said(name, schema) for name, schema in properties.items()}
    numbers = {name for name, schema in properties.items() if schema.get("type") == "integer"}

    def read(req: falcon.Request) -> schemas.Query:
        """Raises Problem PARAMETER_INVALID."""
        params: dict[str, Any] = {}
        for name, value in req.params.items() if req.query_string else ():
            if name not in said:
                raise Problem(errors.PARAMETER_INVALID, f"This call takes no parameter {name!r}.")
            if not isinstance(value, str):
                raise Problem(errors.PARAMETER_INVALID, f"{name} is given more than once.")
            if name in numbers and not _NUMBER.fullmatch(value):  # msgspec would also take 1e2
                raise Problem(errors.PARAMETER_INVALID, said[name])
            params[name] = int(value) if name in numbers else value
        try:
            return msgspec.convert(params, shape)
        except msgspec.ValidationError as ex:
            at = str(ex).rpartition("`$.")[2].rstrip("`")
            raise Problem(errors.PARAMETER_INVALID, said.get(at)) from ex

    return read


def _said(name: str, schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return f"{name} is one of {', '.join(schema['enum'])}."
    if "maximum" in schema:
        return f"{name} is from {schema['minimum']} to {schema['maximum']}."
    return f"{name} is not valid."
