"""The JSON of accounts and sessions."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from api.accounts.service import SessionTokens
from api.accounts.usage import View
from api.core.models import User
from api.http.schemas import Answer, Body, Id, Moment, Size, one_of, timestamp


class SignUp(Body):
    """A new account; with the code of the invitation, if sign-up is by invitation."""

    username: Annotated[str, Meta(extra_json_schema={"pattern": r"^[a-z0-9][a-z0-9._-]{2,63}$"})]
    password: Annotated[str, Meta(extra_json_schema={"minLength": 8, "maxLength": 1024})]
    code: str | None = None


class SignIn(Body):
    """A name and a password; with `cookie`, the refresh token comes as a cookie."""

    username: str
    password: str
    cookie: bool = False


class Refresh(Body):
    """A refresh token; without one, the cookie's."""

    refresh_token: str | None = None


class ChangeMe(Body):
    """A new password, and the one that it replaces."""

    password: str
    current_password: str


class UserAnswer(Answer):
    """An account."""

    id: Id
    username: str
    role: Annotated[str, one_of("user", "admin")]
    tier: str
    created_at: Moment


class Traffic(Answer):
    """Bytes of a day or a month, in UTC; the limit is of what is sent, and null if there is none."""

    sent: Size
    received: Size
    limit: Size | None


class UsageAnswer(Answer):
    """Bytes that went through the edges."""

    day: Traffic
    month: Traffic


class MeAnswer(UserAnswer):
    """The account that asks, and its traffic."""

    usage: UsageAnswer


class SessionAnswer(Answer):
    """A session's tokens; the refresh token is left out if a cookie carries it."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    refresh_token: str | UnsetType = UNSET


def user(record: User) -> UserAnswer:
    """An account."""
    return UserAnswer(record.id.hex(), record.username, record.role, record.tier, timestamp(record.created_at))


def me(record: User, view: View) -> MeAnswer:
    """An account with its traffic."""
    totals, tier = view.totals, view.tier
    usage = UsageAnswer(
        day=Traffic(totals.day_sent, totals.day_received, tier.daily or None),
        month=Traffic(totals.month_sent, totals.month_received, tier.monthly or None),
    )
    shown = user(record)
    return MeAnswer(shown.id, shown.username, shown.role, shown.tier, shown.created_at, usage)


def session(tokens: SessionTokens, *, with_refresh: bool) -> SessionAnswer:
    """A session's tokens."""
    refresh = tokens.refresh_token if with_refresh else UNSET
    return SessionAnswer(tokens.access_token, "Bearer", tokens.expires_in, refresh)
