"""A password is changed while a check of the old one still runs."""

from __future__ import annotations

from collections.abc import Callable

import falcon.testing
import pytest
from argon2 import PasswordHasher

from api.accounts.passwords import Passwords
from tests.api.conftest import Gateway, User, error, together

NEW = {"password": "another password", "current_password": User.password}

During = Callable[[Callable[[], object]], None]


@pytest.fixture
def during_check(monkeypatch: pytest.MonkeyPatch) -> During:
    """Runs an action once, right after the next successful check of a password and before its effects."""
    waiting: list[Callable[[], object]] = []
    matches = Passwords.matches

    def match_then(passwords: Passwords, stored: str | None, password: str) -> bool:
        good = matches(passwords, stored, password)
        if waiting:
            together(waiting.pop())  # in another thread, like another request
        return good

    monkeypatch.setattr(Passwords, "matches", match_then)
    return waiting.append


def sign_in(gateway: Gateway, user: User, password: str = User.password) -> falcon.testing.Result:
    return gateway.http.simulate_post("/api/v1/sessions", json={"username": user.name, "password": password})


def live_sessions(gateway: Gateway, user: User) -> int:
    sql = "SELECT COUNT(*) FROM session WHERE user_id = UNHEX(%s) AND ended_at IS NULL"
    return int(gateway.rows(sql, user.id)[0][0])


def test_a_sign_in_with_the_old_password_does_not_outlive_its_change(
    gateway: Gateway, user: User, during_check: During
) -> None:
    during_check(lambda: user.call("PATCH", "/users/me", json=NEW))
    error(sign_in(gateway, user), 401, "CREDENTIALS_INVALID")
    assert live_sessions(gateway, user) == 0


def test_of_two_concurrent_changes_one_is_made(gateway: Gateway, user: User, during_check: During) -> None:
    during_check(lambda: user.call("PATCH", "/users/me", json=NEW))
    answer = user.call("PATCH", "/users/me", json=NEW | {"password": "a third password"})
    error(answer, 403, "PASSWORD_WRONG")
    assert sign_in(gateway, user, NEW["password"]).status_code == 201


def test_a_sign_in_whose_account_changed_otherwise_is_judged_again(
    gateway: Gateway, user: User, during_check: During
) -> None:
    # like a rehash by another sign-in
    fresh = PasswordHasher(time_cost=1, memory_cost=16, parallelism=1).hash(User.password)
    sql = "UPDATE user SET password_hash = %s WHERE id = UNHEX(%s)"
    during_check(lambda: gateway.db.execute(sql, (fresh, user.id)))
    assert sign_in(gateway, user).status_code == 201
