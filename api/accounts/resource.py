"""Accounts and sessions."""

from __future__ import annotations

from typing import Final

from api.accounts import schema
from api.accounts.schema import MeAnswer, SessionAnswer, UserAnswer
from api.accounts.service import Accounts, SessionTokens
from api.accounts.usage import Usage
from api.core import errors
from api.core.errors import Problem
from api.http.call import Call
from api.http.route import Cookie, Reply

COOKIE: Final = "sluice_refresh"
COOKIE_PATH: Final = "/api/v1/sessions"


def sign_up(call: Call, body: schema.SignUp, accounts: Accounts) -> UserAnswer:
    """The new user; `code` is needed if sign-up is by invitation."""
    return schema.user(accounts.sign_up(body.username, body.password, body.code))


def me(call: Call, accounts: Accounts, usage: Usage) -> MeAnswer:
    """The user who asks, with the traffic of the day and the month in UTC."""
    user = accounts.me(call.identity)
    return schema.me(user, usage.of(call.identity, user.tier))


def change_me(call: Call, body: schema.ChangeMe, accounts: Accounts) -> UserAnswer:
    """The user, with a new password; every session ends, this one too."""
    return schema.user(accounts.change_password(call.identity, body.current_password, body.password))


def sign_in(call: Call, body: schema.SignIn, accounts: Accounts) -> Reply[SessionAnswer]:
    """The new session; with `cookie`, its refresh token comes as a cookie."""
    # a foreign page could sign its visitor in to another account
    if body.cookie and not call.is_from_our_page(unsaid=True):
        raise Problem(errors.ORIGIN_INVALID)
    return _session(accounts.sign_in(body.username, body.password, call.address), cookie=body.cookie)


def refresh(call: Call, body: schema.Refresh, accounts: Accounts) -> Reply[SessionAnswer]:
    """The session, with new tokens; the old refresh token ends the session if it is used again."""
    token, cookie = body.refresh_token, False
    if token is None:
        token, cookie = call.cookie(COOKIE), True
        # a cookie comes by itself: only our own pages may make use of that
        if token is not None and not call.is_from_our_page():
            raise Problem(errors.ORIGIN_INVALID)
    if token is None:
        raise Problem(errors.TOKEN_MISSING, "This call needs a refresh token.")
    return _session(accounts.refresh(token), cookie=cookie)


def sign_out(call: Call, accounts: Accounts) -> Reply[None]:
    """Ends the session."""
    accounts.sign_out(call.identity)
    return Reply(None, cookie=Cookie(COOKIE, COOKIE_PATH) if call.cookie(COOKIE) else None)


def _session(tokens: SessionTokens, *, cookie: bool) -> Reply[SessionAnswer]:
    set_cookie = Cookie(COOKIE, COOKIE_PATH, tokens.refresh_token, tokens.refresh_expires_in) if cookie else None
    return Reply(schema.session(tokens, with_refresh=not cookie), cookie=set_cookie)
