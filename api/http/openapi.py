"""The table of routes as an OpenAPI 3.1 document: https://spec.openapis.org/oas/v3.1.0."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from api.core import errors
from api.core.errors import Kind
from api.http.call import Call
from api.http.route import JSON, Access, Reply, Route
from api.http.schemas import HEX_32, ErrorAnswer

_REF: Final = "#/components/schemas/{name}"
_ABOUT: Final = """\
Uploads and downloads of large files. Ids are opaque strings, `*_at` is RFC 3339 in UTC, sizes are bytes.
A body's unknown member and an unknown query parameter are errors. Every answer carries `X-Request-Id`.

A refusal is `{"error": {"code", "message", "request_id"}}`: 4xx is final, 409 wants another call first,
429 and 503 carry `Retry-After` and may be repeated as they are."""
_BEARER: Final[list[dict[str, list[str]]]] = [{"bearer": []}]

# Errors that any call may get before it reaches the API: from nginx, and from the limits of addresses and accounts.
BEFORE: Final[Mapping[int, str]] = {
    400: "BAD_REQUEST",
    403: "FORBIDDEN",
    408: "REQUEST_TIMEOUT",
    413: "BODY_TOO_LARGE",
    414: "URI_TOO_LONG",
    429: "REQUESTS_LIMITED",
    431: "HEADERS_TOO_LARGE",
    503: "API_UNAVAILABLE",
    504: "API_TIMEOUT",
}


class Document:
    """The document as bytes, made once.

    Args:
        table: the rows; those for the edge alone are left out.
    """

    def __init__(self, table: Iterable[Route]) -> None:
        self.body = msgspec.json.encode(describe(table))
        self.etag = f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'


def openapi(call: Call, document: Document) -> Reply[msgspec.Raw | None]:
    """This document, as OpenAPI 3.1."""
    headers = {"ETag": document.etag, "Cache-Control": "public, no-cache"}
    if call.has_tag(document.etag):
        return Reply(None, 304, headers)
    return Reply(msgspec.Raw(document.body), headers=headers)


def describe(table: Iterable[Route]) -> dict[str, Any]:
    """The document of all calls that clients may make."""
    routes = [route for route in table if route.access is not Access.EDGE]
    shapes = {shape for route in routes for shape in (route.body, *route.answers) if shape is not None} | {ErrorAnswer}
    ordered = sorted(shapes, key=lambda shape: shape.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    for schema in components.values():
        if "description" in schema:
            _describe_members(schema)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
        if route.head:
            paths[route.path]["head"] = _operation(route, head=True)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sluice",
            "version": "1",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(_tag(route) for route in routes)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "The access token of a session."}
            },
        },
    }


def _tag(route: Route) -> str:
    return route.name.partition("_")[0]


def _operation(route: Route, *, head: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": f"{route.name}_head" if head else route.name,
        "tags": [_tag(route)],
        "summary": route.summary,
        "parameters": [*_in_path(route), *_in_query(route)],
        "responses": {**_successes(route, head=head), **_refusals(route, head=head)},
    }
    if route.description:
        found["description"] = route.description
    if route.access in (Access.BEARER, Access.ADMIN):
        found["security"] = _BEARER
    if route.access is Access.ADMIN:
        found["description"] = "\n\n".join(filter(None, ("For administrators.", route.description)))
    if route.body:
        schema = {"$ref": _REF.format(name=route.body.__name__)}
        required = any(field.required for field in msgspec.structs.fields(route.body))
        found["requestBody"] = {"required": required, "content": {JSON: {"schema": schema}}}
    return found


def _in_path(route: Route) -> list[dict[str, Any]]:
    schema = {"type": "string", "pattern": HEX_32}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in route.path_ids]


def _in_query(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    _, components = msgspec.json.schema_components([route.query], ref_template=_REF)
    found = []
    for name, schema in components[route.query.__name__]["properties"].items():
        shown = dict(schema)
        if "anyOf" in shown:  # null is how a parameter is left out
            (shown,) = (each for each in shown["anyOf"] if each != {"type": "null"})
        if schema.get("default") is not None:
            shown["default"] = schema["default"]
        found.append({"name": name, "in": "query", "required": False, "schema": shown})
    return found


def _successes(route: Route, *, head: bool) -> dict[str, Any]:
    if route.media != JSON:
        content: dict[str, Any] = {route.media: {"schema": {}}}
    else:
        refs = [{"$ref": _REF.format(name=shape.__name__)} for shape in route.answers]
        content = {JSON: {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}} if refs else {}
        if not refs and 204 not in route.status:
            content = {JSON: {"schema": {"type": "object"}}}
    found: dict[str, dict[str, Any]] = {}
    for status in route.status:
        found[str(status)] = {"description": route.summary}
        if content and status not in (204, 304) and not head:
            found[str(status)]["content"] = content
    if route.links:
        found[str(route.status[0])]["links"] = route.links
    return found


def _refusals(route: Route, *, head: bool) -> dict[str, Any]:
    """By status, with the codes that it may carry."""
    said = [(kind.status, kind.code) for kind in route.kinds] + list(BEFORE.items())
    found = {}
    for status, same in itertools.groupby(sorted(set(said)), key=lambda pair: pair[0]):
        if status in route.status:
            continue  # health sends such a status with its normal body, not with an error
        codes = [code for _, code in same]
        found[str(status)] = refusal = {"description": " ".join(_said(code) for code in codes)}
        if not head:
            refusal["content"] = {JSON: {"schema": {"$ref": _REF.format(name="ErrorAnswer")}}}  # type: ignore[assignment]
    return found


def _said(code: str) -> str:
    kind: Kind | None = getattr(errors, code, None)
    return f"`{code}`: {kind.message}" if kind else f"`{code}`."


def _describe_members(schema: dict[str, Any]) -> None:
    """Moves the texts of a docstring's Attributes to the members."""
    text, found, attributes = inspect.cleandoc(schema["description"]).partition("\n\nAttributes:\n")
    schema["description"] = text.strip()
    if found:
        for name, said in re.findall(r"^ +(\w+): (.*(?:\n {8,}.*)*)", attributes, re.M):
            schema["properties"][name] = {**schema["properties"][name], "description": " ".join(said.split())}
