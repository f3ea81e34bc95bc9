"""One call, as its handler sees it, and the cursors of lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import falcon

from api.core import errors, lifetimes
from api.core.claims import CursorClaims
from api.core.errors import Problem, TokenError
from api.core.models import Clock, Identity
from api.core.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Desk:
    """The values that every call needs.

    Attributes:
        origin: of the gateway's own pages, such as ``https://files.example``.
    """

    tokens: Tokens
    clock: Clock
    origin: str


class Call:
    """The caller's identity, its address, and the entry that the call is about.

    Attributes:
        id: the id in the path: 16 bytes; empty if the path has none.
        kind: another name in the path.
    """

    __slots__ = ("_desk", "_req", "id", "kind")

    def __init__(self, req: falcon.Request, desk: Desk) -> None:
        self._req = req
        self._desk = desk
        self.id = b""
        self.kind = ""

    @property
    def identity(self) -> Identity:
        """The caller, whose token the middleware has verified."""
        found = self._req.context.identity
        assert isinstance(found, Identity)
        return found

    @property
    def address(self) -> str:
        """The caller's address, as nginx knows it."""
        return self._req.get_header("X-Real-IP") or self._req.remote_addr or ""

    def cookie(self, name: str) -> str | None:
        """The first cookie of that name."""
        return next(iter(self._req.get_cookie_values(name) or ()), None)

    def has_tag(self, etag: str) -> bool:
        """Whether the caller has the answer with this ETag already (RFC 9110 section 13.1.2)."""
        return etag in (self._req.get_header("If-None-Match") or "")

    def is_from_our_page(self, *, unsaid: bool = False) -> bool:
        """Whether the request's Origin is the gateway's own.

        Args:
            unsaid: the result if there is no Origin: every browser sends it with a POST.
        """
        origin = self._req.get_header("Origin")
        return unsaid if origin is None else origin == self._desk.origin

    def after(self, kind: str, cursor: str | None) -> list[str] | None:
        """The entry after which the page of this user's list ``kind`` begins.

        Raises:
            Problem: CURSOR_INVALID.
        """
        if cursor is None:
            return None
        try:
            claims = self._desk.tokens.verify(CursorClaims, cursor, now=self._desk.clock().timestamp())
        except TokenError as ex:
            raise Problem(errors.CURSOR_INVALID) from ex
        if (claims.user_id, claims.list_name) != (self.identity.user_id.hex(), kind):
            raise Problem(errors.CURSOR_INVALID)
        return claims.after

    def cursor(self, kind: str, after: Sequence[str] | None) -> str | None:
        """A cursor to the position after the entry ``after`` of this user's list ``kind``; None without an entry."""
        if after is None:
            return None
        now = self._desk.clock().timestamp()
        claims = CursorClaims(int(now) + lifetimes.CURSOR, self.identity.user_id.hex(), kind, list(after))
        return self._desk.tokens.sign(claims, now=now)
