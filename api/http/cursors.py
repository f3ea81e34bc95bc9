"""Cursors: where the next page of a list begins, signed, so that none but ours is ever looked up."""

from __future__ import annotations

from collections.abc import Sequence

import falcon

from api.core import errors
from api.core.errors import Problem, TokenError
from api.core.models import Clock, Identity
from api.core.tokens import Tokens

_LIFE = 7 * 86_400


class Cursors:
    """See the module's docstring."""

    def __init__(self, tokens: Tokens, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock

    def make(self, who: Identity, kind: str, after: Sequence[str]) -> str:
        """A cursor behind the entry ``after`` of this user's list ``kind``."""
        now = self._clock().timestamp()
        claims = {"sub": who.user_id.hex(), "list": kind, "after": list(after), "exp": int(now) + _LIFE}
        return self._tokens.sign("cursor", claims, now=now)

    def read(self, req: falcon.Request, who: Identity, kind: str) -> list[str] | None:
        """What the parameter ``cursor`` stands for. Raises Problem CURSOR_INVALID."""
        text = req.get_param("cursor")
        if text is None:
            return None
        try:
            claims = self._tokens.verify("cursor", text, now=self._clock().timestamp())
        except TokenError as ex:
            raise Problem(errors.CURSOR_INVALID) from ex
        if (claims["sub"], claims["list"]) != (who.user_id.hex(), kind):
            raise Problem(errors.CURSOR_INVALID)
        after: list[str] = claims["after"]
        return after
