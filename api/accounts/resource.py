"""Accounts and sessions."""

from __future__ import annotations

from typing import ClassVar, Final
from urllib.parse import urlsplit

import falcon

from api.accounts import schema
from api.accounts.service import Accounts, SessionTokens
from api.accounts.usage import Usage
from api.core import errors
from api.core.errors import Problem
from api.http.base import Access, Resource, answer, identity, read

COOKIE: Final = "sluice_refresh"
COOKIE_PATH: Final = "/api/v1/sessions"


class Users(Resource):
    """/users."""

    access: ClassVar = {"POST": Access.PUBLIC}

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = read(req, schema.SignUp)
        answer(resp, schema.user(self._accounts.sign_up(body.username, body.password, body.code)), 201)


class Me(Resource):
    """/users/me."""

    def __init__(self, accounts: Accounts, usage: Usage) -> None:
        self._accounts = accounts
        self._usage = usage

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        user = self._accounts.me(identity(req))
        answer(resp, schema.user(user) | {"usage": schema.usage(self._usage.of(identity(req), user.tier))})

    def on_patch(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = read(req, schema.ChangeMe)
        user = self._accounts.change_password(identity(req), body.current_password, body.password)
        answer(resp, schema.user(user))


class _Sessions(Resource):
    """What the session resources share: the refresh token's cookie."""

    access: ClassVar = {"POST": Access.PUBLIC}

    def __init__(self, accounts: Accounts, public_url: str) -> None:
        self._accounts = accounts
        parts = urlsplit(public_url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._secure = parts.scheme == "https"

    def _answer(self, resp: falcon.Response, tokens: SessionTokens, *, cookie: bool, status: int) -> None:
        if cookie:
            self._set_cookie(resp, tokens.refresh_token, tokens.refresh_expires_in)
        answer(resp, schema.session(tokens, with_refresh=not cookie), status)

    def _set_cookie(self, resp: falcon.Response, value: str, max_age: int) -> None:
        resp.set_cookie(
            COOKIE,
            value,
            max_age=max_age,
            path=COOKIE_PATH,
            secure=self._secure,
            http_only=True,
            same_site="Strict",
        )


class Sessions(_Sessions):
    """/sessions."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = read(req, schema.SignIn)
        address = req.get_header("X-Real-IP") or req.remote_addr or ""
        tokens = self._accounts.sign_in(body.username, body.password, address)
        self._answer(resp, tokens, cookie=body.cookie, status=201)


class RefreshSession(_Sessions):
    """/sessions/refresh."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        token, cookie = read(req, schema.Refresh).refresh_token, False
        if token is None:
            token, cookie = next(iter(req.get_cookie_values(COOKIE) or ()), None), True
            # a cookie comes by itself: only our own pages may make use of that
            if token is not None and req.get_header("Origin") != self._origin:
                raise Problem(errors.ORIGIN_INVALID)
        if token is None:
            raise Problem(errors.TOKEN_MISSING, "This call needs a refresh token.")
        self._answer(resp, self._accounts.refresh(token), cookie=cookie, status=200)


class CurrentSession(_Sessions):
    """/sessions/current."""

    access: ClassVar = {}

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._accounts.sign_out(identity(req))
        if req.get_cookie_values(COOKIE):
            resp.unset_cookie(COOKIE, same_site="Strict", path=COOKIE_PATH)
        resp.status = 204
