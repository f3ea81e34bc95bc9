"""The JSON of accounts and sessions."""

from __future__ import annotations

from typing import Any

from api.accounts.service import SessionTokens
from api.accounts.usage import View as UsageView
from api.core.models import User
from api.http.schemas import Body, timestamp


class SignUp(Body):
    """POST /users."""

    username: str
    password: str
    code: str | None = None


class SignIn(Body):
    """POST /sessions."""

    username: str
    password: str
    cookie: bool = False


class Refresh(Body):
    """POST /sessions/refresh; without a token, the cookie's."""

    refresh_token: str | None = None


class ChangeMe(Body):
    """PATCH /users/me."""

    password: str
    current_password: str


def user(record: User) -> dict[str, Any]:
    """An account."""
    return {
        "id": record.id.hex(),
        "username": record.username,
        "role": record.role,
        "tier": record.tier,
        "created_at": timestamp(record.created_at),
    }


def usage(view: UsageView) -> dict[str, Any]:
    """Traffic of the day and the month, in UTC; a limit is of what is sent, and null where there is none."""
    totals, tier = view.totals, view.tier
    return {
        "day": {"sent": totals.day_sent, "received": totals.day_received, "limit": tier.daily or None},
        "month": {"sent": totals.month_sent, "received": totals.month_received, "limit": tier.monthly or None},
    }


def session(tokens: SessionTokens, *, with_refresh: bool) -> dict[str, Any]:
    """A session's tokens; the refresh token is left out where a cookie carries it."""
    answer: dict[str, Any] = {
        "access_token": tokens.access_token,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in,
    }
    if with_refresh:
        answer["refresh_token"] = tokens.refresh_token
    return answer
