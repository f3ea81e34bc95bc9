"""Access: tokens that are missing, wrong, expired, revoked or of a retired key; all refused at the edge."""

import secrets
import time
from collections.abc import Callable
from functools import partial

import httpx
import pytest

from tests.e2e.client import Client, code, token_of
from tests.e2e.forge import bytes_of, claims_of, flipped, sign
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART, Sources
from tests.waiting import await_true

LAG = 2.0
TOLERANCE = 1.5
"""Seconds: SLUICE_REVOCATION_LAG, plus a margin for a busy machine."""


def takes_effect(call: Callable[[], httpx.Response], refusal: tuple[int, str]) -> float:
    """Repeats until the expected refusal. Returns the seconds that took. Before it, only successes are allowed."""
    begun = time.monotonic()
    while (answer := code(call())) != refusal:
        assert answer[0] in (200, 201, 204, 206), answer
        assert time.monotonic() < begun + LAG + TOLERANCE, f"still {answer}"
        time.sleep(0.05)  # a poll: the edge sends no event
    return time.monotonic() - begun


def key_of(gateway: Gateway) -> str:
    return (gateway.data / "secrets" / "token_keys").read_text().split()[-1]


CALLS = [
    ("GET", "/users/me"),
    ("GET", "/files"),
    ("POST", "/uploads"),
    ("DELETE", "/sessions/current"),
    ("GET", f"/files/{'0' * 32}/content"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize("header", [None, "", "Basic YTpi", "Bearer", "Bearer x y", "Bearer x", "Bearer a.b.c", "x"])
def test_a_call_without_a_good_token_stops_at_the_edge(
    gateway: Gateway, method: str, path: str, header: str | None
) -> None:
    client = gateway.client()
    response = client.call(method, path, headers={} if header is None else {"Authorization": header})
    status, error = code(response)
    assert status == 401
    assert error in (["TOKEN_MISSING"] if header is None else ["TOKEN_MISSING", "TOKEN_INVALID"])


def test_a_token_that_is_almost_right_is_refused(gateway: Gateway, user: Client) -> None:
    key, claims, good = key_of(gateway), claims_of(user.token), user.token
    ours = gateway.client()
    ours.token = sign(key, "access", claims)
    assert ours.want(200, "GET", "/users/me")["username"] == user.username, "the forger can forge"
    value, moment, signature = good.split(".")
    tokens = {
        "another key": sign("0" * 64, "access", claims),
        "a link's": sign(key, "link", claims),
        "a part's": sign(key, "part", claims),
        "a refresh token": user.refresh_token,
        "flipped in the claims": flipped(good, 3),
        "flipped in the time": flipped(good, len(value) + 3),
        "flipped in the signature": flipped(good, len(good) - 10),
        # the last character's two lowest bits are not part of the 32 bytes: another spelling of the same signature
        "spelled otherwise": flipped(good, len(good) - 1),
        "padded": good + "=",
        "cut": good[:-1],
        "without time": f"{value}.{signature}",
        "with more": f"{good}.{moment}",
        "with claims missing": sign(key, "access", {"exp": claims["exp"]}),
        "with a text for a time": sign(key, "access", {**claims, "exp": "never"}),
    }
    for why, token in tokens.items():
        response = ours.call("GET", "/users/me", headers={"Authorization": f"Bearer {token}"})
        assert code(response) == (401, "TOKEN_INVALID"), why
    expired = sign(key, "access", {**claims, "exp": int(time.time()) - 1})
    response = ours.call("GET", "/users/me", headers={"Authorization": f"Bearer {expired}"})
    assert code(response) == (401, "TOKEN_EXPIRED")


def test_a_token_ends_at_its_second(gateway: Gateway, user: Client) -> None:
    client = gateway.client()
    ends = int(time.time()) + 2
    client.token = sign(key_of(gateway), "access", {**claims_of(user.token), "exp": ends})
    assert client.call("GET", "/users/me").status_code == 200
    await_true(lambda: client.call("GET", "/users/me").status_code == 401, 4)
    assert 0 <= time.time() - ends < 0.5
    assert code(client.call("GET", "/users/me")) == (401, "TOKEN_EXPIRED")


def test_public_calls_ignore_a_bad_token(gateway: Gateway) -> None:
    client = gateway.user()
    headers = {"Authorization": "Bearer nonsense"}
    for path, body in (
        ("/sessions", {"username": client.username, "password": client.password}),
        ("/sessions/refresh", {"refresh_token": client.refresh_token}),
    ):
        assert client.call("POST", path, body, headers=headers).status_code in (200, 201)


@pytest.mark.parametrize("name", ["forged", "of another purpose", "expired", "flipped"])
def test_a_link_that_is_almost_right_is_refused(gateway: Gateway, user: Client, sources: Sources, name: str) -> None:
    key, token = key_of(gateway), token_of(user.link(user.upload(sources.make(100, "almost"))))
    claims = bytes_of(token)
    bad = {
        "forged": sign("0" * 64, "link", claims),
        "of another purpose": sign(key, "cursor", claims),
        "expired": sign(key, "link", claims[:-4] + (int(time.time()) - 1).to_bytes(4)),
        "flipped": flipped(token, 40),
    }[name]
    expected = (410, "LINK_EXPIRED") if name == "expired" else (403, "LINK_INVALID")
    assert code(user.fetch(f"{gateway.address}/d/{bad}/x")) == expected


def test_signing_out_ends_that_session_alone(gateway: Gateway) -> None:
    laptop = gateway.user()
    phone = laptop.another_machine()
    assert phone.call("GET", "/users/me").status_code == 200
    phone.want(204, "DELETE", "/sessions/current")
    takes_effect(lambda: phone.call("GET", "/users/me"), (401, "TOKEN_REVOKED"))
    refresh = {"refresh_token": phone.refresh_token}
    assert code(gateway.client().call("POST", "/sessions/refresh", refresh)) == (401, "TOKEN_REVOKED")
    assert laptop.call("GET", "/users/me").status_code == 200


def test_a_used_refresh_token_ends_its_session(gateway: Gateway) -> None:
    client = gateway.user()
    first = client.refresh_token
    session = client.want(200, "POST", "/sessions/refresh", {"refresh_token": first})
    client.token = session["access_token"]
    assert client.call("GET", "/users/me").status_code == 200
    stolen = gateway.client().call("POST", "/sessions/refresh", {"refresh_token": first})
    assert code(stolen) == (401, "TOKEN_REVOKED")
    takes_effect(lambda: client.call("GET", "/users/me"), (401, "TOKEN_REVOKED"))
    last = gateway.client().call("POST", "/sessions/refresh", {"refresh_token": session["refresh_token"]})
    assert code(last) == (401, "TOKEN_REVOKED")


def test_a_new_password_ends_every_session(gateway: Gateway) -> None:
    laptop = gateway.user()
    phone = laptop.another_machine()
    new = gateway.secrets.new_password()
    wrong = {"password": new, "current_password": "not the password"}
    assert code(laptop.call("PATCH", "/users/me", wrong)) == (403, "PASSWORD_WRONG")
    laptop.want(200, "PATCH", "/users/me", {"password": new, "current_password": laptop.password})
    for machine in (laptop, phone):
        takes_effect(partial(machine.call, "GET", "/users/me"), (401, "TOKEN_REVOKED"))
    old = {"username": laptop.username, "password": laptop.password}
    assert code(gateway.client().call("POST", "/sessions", old)) == (401, "CREDENTIALS_INVALID")
    assert laptop.sign_in(laptop.username, new).call("GET", "/users/me").status_code == 200


def test_trash_ends_a_files_links_and_restore_gives_new_ones(user: Client, sources: Sources) -> None:
    source = sources.make(PART + 7, "trash")
    file = user.upload(source)
    kept = user.upload(sources.make(300, "kept"))
    links = [user.link(file), user.link(file, disposition="inline", expires_in=604_800)]
    kept_link = user.link(kept)
    assert [user.fetch(link).status_code for link in (*links, kept_link)] == [200, 200, 200]
    user.want(204, "DELETE", f"/files/{file['id']}")
    for link in links:
        takes_effect(partial(user.fetch, link, Range="bytes=0-0"), (410, "LINK_REVOKED"))
    assert code(user.call("POST", f"/files/{file['id']}/links", {})) == (404, "FILE_NOT_FOUND")
    assert code(user.call("GET", f"/files/{file['id']}/content")) == (404, "FILE_NOT_FOUND")
    assert user.want(200, "GET", "/files?trashed=true")["items"][0]["id"] == file["id"]

    restored = user.want(200, "POST", f"/files/{file['id']}/restore")
    assert restored["trashed_at"] is None
    assert user.holds(restored, source), "a new link works immediately"
    assert {code(user.fetch(link)) for link in links} == {(410, "LINK_REVOKED")}, "earlier links stay dead"
    assert user.fetch(kept_link).status_code == 200


def test_a_link_outlives_its_session(gateway: Gateway, sources: Sources) -> None:
    client = gateway.user()
    link = client.link(client.upload(sources.make(200, "outlives")))
    client.want(204, "DELETE", "/sessions/current")
    takes_effect(lambda: client.call("GET", "/users/me"), (401, "TOKEN_REVOKED"))
    assert client.fetch(link).status_code == 200


def test_guessing_a_password_is_slowed_down(gateway: Gateway) -> None:
    client, guesser = gateway.user(), gateway.client()
    guess = {"username": client.username, "password": "a wrong guess"}
    answers = [guesser.call("POST", "/sessions", guess) for _ in range(11)]
    assert {code(answer) for answer in answers[:10]} == {(401, "CREDENTIALS_INVALID")}
    assert code(answers[10]) == (429, "SIGNIN_LIMITED")
    right = {"username": client.username, "password": client.password}
    assert code(guesser.call("POST", "/sessions", right)) == (429, "SIGNIN_LIMITED")
    assert client.call("GET", "/users/me").status_code == 200


def test_keys_rotate_without_ending_a_session_until_one_is_retired(gateway: Gateway, sources: Sources) -> None:
    client, source = gateway.user(), sources.make(2 * PART, "keys")
    keys = gateway.data / "secrets" / "token_keys"
    old_token, old_key = client.token, keys.read_text().strip()
    file = client.upload(source)
    old_link = client.link(file)
    begun = client.create(sources.make(PART + 1, "keys"))
    old_part = client.sign(begun, sources.make(PART + 1, "keys"), [2])[2]

    def restart_with(*kept: str) -> None:
        gateway.stop()
        keys.write_text("".join(f"{key}\n" for key in kept))
        gateway.start()

    new_key = secrets.token_hex(32)
    restart_with(old_key, new_key)
    assert client.call("GET", "/users/me").status_code == 200, "the older key is still valid"
    assert client.fetch(old_link).status_code == 200
    client.sign_in(client.username, client.password)
    new_link = client.link(file)

    restart_with(new_key)
    old = gateway.client().call("GET", "/users/me", headers={"Authorization": f"Bearer {old_token}"})
    assert code(old) == (401, "TOKEN_INVALID")
    assert code(client.fetch(old_link)) == (403, "LINK_INVALID")
    assert code(client.put(old_part, b"x")) == (403, "PART_URL_INVALID")
    assert client.call("GET", "/users/me").status_code == 200
    assert client.sha256_of(new_link) == source.sha256
    rest = sources.make(PART + 1, "keys")
    client.send(client.create(rest), rest)
    assert client.holds(client.complete(begun), rest)
