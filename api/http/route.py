"""A call of the API as data, and what its handler is given and gives back.

A handler is a function: what the caller sent comes first, then the services that it asks. Its annotations are the
contract from which the adapter, the documents and the tests read the shapes of body, query and answer::

    def create(call: Call, body: CreateUpload, uploads: Uploads) -> Reply[UploadAnswer]: ...

The first paragraph of its docstring is the call's summary in the documents, the rest its description.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import UnionType
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from api.core import errors
from api.core.errors import Kind
from api.http.call import Call
from api.http.schemas import Answer, Body, Query

A = TypeVar("A", covariant=True)

JSON: Final = "application/json"


class Access(Enum):
    """The callers that a route allows."""

    PUBLIC = "everybody"
    BEARER = "the holder of an access token"
    ADMIN = "administrators"
    EDGE = "the edge"


# The errors of every call by its kind of access, of every call with a body, and of every call with a query.
_BY_ACCESS: Final[Mapping[Access, tuple[Kind, ...]]] = {
    Access.PUBLIC: (),
    Access.BEARER: (errors.TOKEN_MISSING, errors.TOKEN_INVALID, errors.TOKEN_EXPIRED, errors.TOKEN_REVOKED),
    Access.ADMIN: (
        errors.TOKEN_MISSING,
        errors.TOKEN_INVALID,
        errors.TOKEN_EXPIRED,
        errors.TOKEN_REVOKED,
        errors.ADMIN_REQUIRED,
    ),
    Access.EDGE: (errors.NOT_FOUND,),
}
_OF_EVERY_CALL: Final = (
    errors.PARAMETER_INVALID,
    errors.DATABASE_UNAVAILABLE,
    errors.DATABASE_TOO_SLOW,
    errors.INTERNAL_ERROR,
)
_OF_A_BODY: Final = (errors.BODY_INVALID, errors.BODY_TOO_LARGE, errors.MEDIA_TYPE_UNSUPPORTED)

# The error of each id in a path, if no such entry exists.
PATH_IDS: Final[Mapping[str, Kind]] = {
    "upload_id": errors.UPLOAD_NOT_FOUND,
    "file_id": errors.FILE_NOT_FOUND,
    "session_id": errors.NOT_FOUND,
    "transfer_id": errors.TRANSFER_NOT_FOUND,
    "subject": errors.NOT_FOUND,
}


class Cookie(Struct, frozen=True):
    """A cookie that an answer sets; without a value, it is taken away."""

    name: str
    path: str
    value: str = ""
    max_age: int = 0


class Reply(Struct, Generic[A], frozen=True):
    """An answer with another status than the row's first one, with headers, or with a cookie."""

    answer: A
    status: int = 0
    headers: Mapping[str, str] = {}
    cookie: Cookie | None = None


@dataclass(frozen=True)
class Route:
    """One row of the table in `api.routes`.

    Attributes:
        path: below the deployment's root; names in braces are ids.
        status: of answers that are no errors; the first is meant if a handler does not say.
        errors: the errors that are specific to this call; see `kinds`.
        media: the answer's media type; any other than JSON is given as bytes.
        head: HEAD is taken as well.
        links: what can be called next with what the answer says, as OpenAPI's Link Objects.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    access: Access = Access.BEARER
    status: tuple[int, ...] = (200,)
    errors: tuple[Kind, ...] = ()
    media: str = JSON
    head: bool = False
    links: Mapping[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def hints(self) -> dict[str, Any]:
        """The handler's parameters and their types, and ``return``."""
        hints = typing.get_type_hints(self.handler)
        return {name: hints[name] for name in [*inspect.signature(self.handler).parameters, "return"]}

    def _given(self, kind: type) -> Any:
        found = [hint for hint in self.hints.values() if isinstance(hint, type) and issubclass(hint, kind)]
        return found[0] if found else None

    @functools.cached_property
    def body(self) -> type[Body] | None:
        """The shape of the request's body; None if the call takes none."""
        found: type[Body] | None = self._given(Body)
        return found

    @functools.cached_property
    def query(self) -> type[Query] | None:
        """The shape of the query's parameters; None if the call takes none."""
        found: type[Query] | None = self._given(Query)
        return found

    @functools.cached_property
    def answers(self) -> tuple[type[Answer], ...]:
        """The shapes of the answer: none for an empty one and for bytes, several for a call that has several."""
        hint = self.hints["return"]
        if typing.get_origin(hint) is Reply:
            (hint,) = typing.get_args(hint)
        options = typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)
        return tuple(option for option in options if isinstance(option, type) and issubclass(option, Answer))

    @functools.cached_property
    def wants(self) -> dict[str, type]:
        """The services that the handler asks, by the name of its parameter."""
        sent = (Call, Body, Query)
        return {name: hint for name, hint in self.hints.items() if name != "return" and not issubclass(hint, sent)}

    @functools.cached_property
    def path_ids(self) -> tuple[str, ...]:
        """The names of the ids in the path."""
        return tuple(name for name in PATH_IDS if f"{{{name}}}" in self.path)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Every error that the call may be answered with, by status and code."""
        found = {*_OF_EVERY_CALL, *_BY_ACCESS[self.access], *self.errors}
        found |= {PATH_IDS[name] for name in self.path_ids} | set(_OF_A_BODY if self.body else ())
        if self.query and "cursor" in self.query.__struct_fields__:
            found.add(errors.CURSOR_INVALID)
        return tuple(sorted(found, key=lambda kind: (kind.status, kind.code)))

    @property
    def summary(self) -> str:
        """The first paragraph of the handler's docstring, on one line."""
        return " ".join((inspect.getdoc(self.handler) or "").split("\n\n")[0].split())

    @property
    def description(self) -> str:
        """The docstring after its first paragraph."""
        return "\n\n".join((inspect.getdoc(self.handler) or "").split("\n\n")[1:])

    @property
    def name(self) -> str:
        """The operation's name for programs, such as ``uploads_create``."""
        return f"{self.handler.__module__.split('.')[1]}_{self.handler.__name__.strip('_')}"
