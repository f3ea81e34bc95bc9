"""Guessing passwords: counted before the check, per account and network, with and without Redis."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import falcon.testing
import pytest
from argon2 import PasswordHasher

from api.accounts import network_rows
from api.accounts.guesses import STRANGERS_AN_HOUR, TRIES_A_DAY, network
from api.core.cache import Cache
from tests.api.conftest import Gateway, User, error, together
from tests.waiting import await_true

_addresses = itertools.count(1)


@pytest.fixture
def address() -> str:
    """An address without failures."""
    number = next(_addresses)
    return f"10.9.{number // 256}.{number % 256}"


@pytest.fixture(params=["with Redis", "without Redis"])
def gateway(request: pytest.FixtureRequest, build: Callable[..., Gateway], tmp_path: Path) -> Gateway:
    """The API, with its Redis and without."""
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

    def test_concurrent_guesses_get_no_more_tries(self, gateway: Gateway, user: User, address: str) -> None:
        judged, refused = 0, 0
        while not refused:
            answers = together(*[lambda: sign_in(gateway, user.name, "wrong", address)] * 20)
            statuses = [answer.status_code for answer in answers]
            # a guess that finds no free slot (503) is neither checked nor counted
            judged, refused = judged + statuses.count(401), statuses.count(429)
            assert {*statuses} <= {401, 429, 503}
        assert judged <= 10

    def test_one_accounts_failures_are_not_anothers(self, gateway: Gateway, user: User, address: str) -> None:
        for _ in range(11):
            sign_in(gateway, user.name, "wrong", address)
        other = gateway.user()
        assert sign_in(gateway, other.name, other.password, address).status_code == 201


class TestStrangers:
    """Effects of guesses at an account on its owner, who is elsewhere."""

    def test_ten_failures_from_one_address_shut_no_other_address_out(
        self, gateway: Gateway, user: User, address: str
    ) -> None:
        for _ in range(20):
            sign_in(gateway, user.name, "wrong", address)
        assert sign_in(gateway, user.name, user.password, "10.200.1.1").status_code == 201

    def test_nor_do_thousands_at_an_address_that_the_account_knows(self, gateway: Gateway, user: User) -> None:
        assert sign_in(gateway, user.name, user.password, "10.200.1.2").status_code == 201
        exhaust(gateway, user)
        for _ in range(9):
            error(sign_in(gateway, user.name, "wrong", "10.200.1.2"), 401, "CREDENTIALS_INVALID")
        assert sign_in(gateway, user.name, user.password, "10.200.1.2").status_code == 201

    def test_a_network_that_is_not_known_has_three_tries_then(self, gateway: Gateway, user: User) -> None:
        exhaust(gateway, user)
        for last in (1, 2, 3):
            error(sign_in(gateway, user.name, "wrong", f"10.201.7.{last}"), 401, "CREDENTIALS_INVALID")
        refused = sign_in(gateway, user.name, user.password, "10.201.7.9")
        error(refused, 429, "SIGNIN_LIMITED")
        assert 80_000 < int(refused.headers["retry-after"]) <= 86_400
        assert sign_in(gateway, user.name, user.password, "10.201.8.1").status_code == 201
        assert sign_in(gateway, user.name, user.password, "10.201.8.1").status_code == 201

    def test_of_ipv6_a_48_is_one_network_then(self, gateway: Gateway, user: User) -> None:
        exhaust(gateway, user)
        guesses = [sign_in(gateway, user.name, "wrong", f"2001:db8:5:{n:x}::1").status_code for n in range(5)]
        assert guesses == [401] * 3 + [429] * 2

    def test_guesses_a_day_are_few_from_however_many_addresses(self, gateway: Gateway, user: User) -> None:
        # the guesses of an hour, from 200 networks with one address each, ten times
        answers = [
            sign_in(gateway, user.name, "wrong", f"10.{202 + n // 100}.{n % 100}.1").status_code
            for n in range(200)
            for _ in range(4)
        ]
        assert answers.count(401) <= STRANGERS_AN_HOUR + TRIES_A_DAY * 200
        again = [sign_in(gateway, user.name, "wrong", f"10.202.{n}.1").status_code for n in range(20, 100)]
        assert again == [429] * 80, "nothing is left for a day"


def exhaust(gateway: Gateway, user: User) -> None:
    """Uses up the guesses that strangers have per hour."""
    for n in range(STRANGERS_AN_HOUR):
        sign_in(gateway, user.name, "wrong", f"10.210.{n}.1")


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


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("10.0.0.1", "10.0.0.2", False),
        ("", "unix:", False),
    ],
)
def test_of_an_ipv6_address_the_64_counts(one: str, other: str, same: bool) -> None:
    assert (network(one) == network(other)) == same


class TestHashing:
    """One hash at a time, and two calls that wait."""

    def test_more_are_refused_immediately(self, gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
        entered, go_on, real = threading.Semaphore(0), threading.Event(), PasswordHasher.verify
        running, most = [0], [0]

        def verify(hasher: PasswordHasher, stored: str, password: str) -> Any:
            running[0] += 1
            most[0] = max(most[0], running[0])
            entered.release()
            assert go_on.wait(10)
            running[0] -= 1
            return real(hasher, stored, password)

        monkeypatch.setattr(PasswordHasher, "verify", verify)
        answers: list[int] = []
        calls = [
            threading.Thread(
                target=lambda n=n: answers.append(
                    sign_in(gateway, user.name, user.password, f"10.220.{n}.1").status_code
                )
            )
            for n in range(6)
        ]
        for call in calls:
            call.start()
        assert entered.acquire(timeout=10)
        await_true(lambda: answers.count(503) == 3, 10)
        error(sign_in(gateway, user.name, user.password, "10.221.1.1"), 503, "SIGNIN_BUSY")
        go_on.set()
        for call in calls:
            call.join()
        assert sorted(answers) == [201] * 3 + [503] * 3
        assert most == [1]

    def test_the_turn_comes_back_after_a_failure(self, gateway: Gateway, user: User, address: str) -> None:
        for _ in range(5):
            error(sign_in(gateway, user.name, "wrong", address), 401, "CREDENTIALS_INVALID")
            body = {"username": "somebody-new", "password": "short"}
            error(gateway.http.simulate_post("/api/v1/users", json=body), 400, "PASSWORD_INVALID")


class TestKnownNetworks:
    def test_are_a_few_and_the_oldest_go(self, gateway: Gateway, user: User) -> None:
        for n in range(network_rows.MOST + 3):
            gateway.clock.turn(1)
            assert sign_in(gateway, user.name, user.password, f"10.230.{n}.1").status_code == 201
        sql = "SELECT COUNT(*) FROM known_network WHERE user_id = UNHEX(%s)"
        assert gateway.rows(sql, user.id)[0][0] == network_rows.MOST

    def test_are_forgotten_after_90_days(self, gateway: Gateway, user: User, address: str) -> None:
        sign_in(gateway, user.name, user.password, address)
        gateway.clock.turn(91 * 86_400)
        gateway.services.sweep.run()
        assert not gateway.rows("SELECT 1 FROM known_network WHERE user_id = UNHEX(%s)", user.id)

    def test_hold_no_address(self, gateway: Gateway, user: User, address: str) -> None:
        sign_in(gateway, user.name, user.password, address)
        sql = "SELECT network FROM known_network WHERE user_id = UNHEX(%s)"
        assert all(len(row[0]) == 16 and address.encode() not in row[0] for row in gateway.rows(sql, user.id))


def test_a_stolen_session_that_guesses_shuts_no_other_one_out(gateway: Gateway, user: User, address: str) -> None:
    other = sign_in(gateway, user.name, user.password, address).json["access_token"]
    body = {"current_password": "a guess", "password": "another password"}
    for _ in range(11):
        answer = user.call("PATCH", "/users/me", json=body)
    limited(answer)
    right = {"current_password": user.password, "password": "another password"}
    headers = {"Authorization": f"Bearer {other}"}
    assert gateway.http.simulate_patch("/api/v1/users/me", json=right, headers=headers).status_code == 200


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
        assert all(0 < client.ttl(key) <= 86_400 for key in keys)


def test_a_count_that_lost_its_expiry_gets_one(build: Callable[..., Gateway], address: str) -> None:
    import redis

    gateway = build()
    cache = Cache(gateway.config.redis_url)
    with redis.Redis.from_url(gateway.config.redis_url) as client:
        cache.count("test", address, 60)
        (key,) = client.scan_iter("sluice:test:*")
        client.persist(key)
        assert cache.count("test", address, 60) == (2, 60)
        assert client.ttl(key) == 60
        client.delete(key)
