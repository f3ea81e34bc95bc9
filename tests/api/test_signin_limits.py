"""Guessing passwords: counted before it is judged, per account and per address, with and without Redis."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import falcon.testing
import pytest
from argon2 import PasswordHasher

from tests.api.conftest import Gateway, User, error, together

_addresses = itertools.count(1)


@pytest.fixture
def address() -> str:
    """One that nobody failed from."""
    number = next(_addresses)
    return f"10.9.{number // 256}.{number % 256}"


@pytest.fixture(params=["with Redis", "without Redis"])
def gateway(request: pytest.FixtureRequest, build: Callable[..., Gateway], tmp_path: Path) -> Gateway:
    """The API; once its Redis is not there."""
    return build() if request.param == "with Redis" else build(redis_url=f"unix://{tmp_path}/none.sock")


def sign_in(gateway: Gateway, username: str, password: str, address: str) -> falcon.testing.Result:
    body = {"username": username, "password": password}
    return gateway.http.simulate_post("/api/v1/sessions", json=body, headers={"X-Real-IP": address})


def limited(answer: falcon.testing.Result) -> None:
    error(answer, 429, "SIGNIN_LIMITED")
    assert 1 <= int(answer.headers["retry-after"]) <= 300


class TestAccount:
    def test_ten_failures_and_no_more(self, gateway: Gateway, user: User, address: str) -> None:
        for _ in range(10):
            error(sign_in(gateway, user.name, "wrong", address), 401, "CREDENTIALS_INVALID")
        limited(sign_in(gateway, user.name, "wrong", address))
        limited(sign_in(gateway, user.name, user.password, address))
        limited(sign_in(gateway, user.name, user.password, "10.200.0.1"))  # from wherever

    def test_a_success_clears_the_count(self, gateway: Gateway, user: User, address: str) -> None:
        for _ in range(3):
            for _ in range(9):
                sign_in(gateway, user.name, "wrong", address)
            assert sign_in(gateway, user.name, user.password, address).status_code == 201

    @pytest.mark.parametrize("spell", [str.upper, str.title, lambda n: n + " ", lambda n: " " + n, lambda n: n + "\0"])
    def test_another_spelling_gives_no_more_tries(
        self, gateway: Gateway, user: User, address: str, spell: Callable[[str], str]
    ) -> None:
        for _ in range(10):
            sign_in(gateway, user.name, "wrong", address)
        assert sign_in(gateway, spell(user.name), user.password, address).status_code in (401, 429)

    def test_guesses_at_once_get_no_more_tries(self, gateway: Gateway, user: User, address: str) -> None:
        answers = together(*[lambda: sign_in(gateway, user.name, "wrong", address)] * 20)
        assert sorted(answer.status_code for answer in answers) == [401] * 10 + [429] * 10

    def test_one_accounts_failures_are_not_anothers(self, gateway: Gateway, user: User, address: str) -> None:
        for _ in range(11):
            sign_in(gateway, user.name, "wrong", address)
        other = gateway.user()
        assert sign_in(gateway, other.name, other.password, address).status_code == 201


class TestAddress:
    def test_a_hundred_failures_from_one_address_and_no_more(self, gateway: Gateway, user: User, address: str) -> None:
        for n in range(100):
            error(sign_in(gateway, f"nobody-{n}", "wrong", address), 401, "CREDENTIALS_INVALID")
        limited(sign_in(gateway, user.name, user.password, address))
        assert sign_in(gateway, user.name, user.password, "10.200.0.2").status_code == 201

    def test_a_success_does_not_count_and_clears_nothing(self, build: Callable[..., Gateway], address: str) -> None:
        gateway = build(signin_address_limit=3)
        user = gateway.user()
        for n in range(2):
            sign_in(gateway, f"nobody-{n}", "wrong", address)
        for _ in range(5):
            assert sign_in(gateway, user.name, user.password, address).status_code == 201
        sign_in(gateway, "nobody-3", "wrong", address)
        limited(sign_in(gateway, user.name, user.password, address))


def test_unknown_and_known_users_get_the_same_answer_after_the_same_work(
    build: Callable[..., Gateway], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    gateway = build()
    user, real, verified = gateway.user(), PasswordHasher.verify, []

    def verify(self: PasswordHasher, stored: str, password: str) -> Any:
        verified.append(stored.rpartition("$")[0].rpartition("$")[0])  # the parameters, without salt and hash
        return real(self, stored, password)

    monkeypatch.setattr(PasswordHasher, "verify", verify)
    answers = [sign_in(gateway, name, "wrong", address) for name in (user.name, "nobody-at-all", "no name/at all")]
    bodies = [answer.json["error"] | {"request_id": ""} for answer in answers]
    assert bodies[0] == bodies[1] == bodies[2]
    assert len(verified) == 3
    assert len({*verified}) == 1


def test_counts_end_with_their_window_and_hold_no_names(build: Callable[..., Gateway], address: str) -> None:
    import redis

    gateway = build()
    sign_in(gateway, "somebody-known", "wrong", address)
    with redis.Redis.from_url(gateway.config.redis_url) as client:
        keys = [key.decode() for key in client.scan_iter("sluice:signin-*")]
        assert keys
        assert not [key for key in keys if "somebody" in key or address in key]
        assert all(0 < client.ttl(key) <= 300 for key in keys)


def test_a_count_that_lost_its_expiry_gets_one(build: Callable[..., Gateway], address: str) -> None:
    import redis

    gateway = build()
    cache = gateway.services.accounts._cache
    with redis.Redis.from_url(gateway.config.redis_url) as client:
        cache.count("test", address, 60)
        (key,) = client.scan_iter("sluice:test:*")
        client.persist(key)
        assert cache.count("test", address, 60) == (2, 60)
        assert client.ttl(key) == 60
        client.delete(key)
