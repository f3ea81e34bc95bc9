"""Accounts and sessions: sign up, sign in, renew, sign out, change of password."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import falcon.testing
import pytest

from api.core.claims import AccessClaims, CursorClaims, LinkClaims, RefreshClaims
from tests.api.conftest import Gateway, User, error, together

ORIGIN = "http://127.0.0.1:8080"


def post(gateway: Gateway, path: str, body: object, **headers: str) -> falcon.testing.Result:
    return gateway.http.simulate_post(f"/api/v1{path}", json=body, headers=headers)


def refresh(gateway: Gateway, token: str) -> falcon.testing.Result:
    return post(gateway, "/sessions/refresh", {"refresh_token": token})


def revoked(gateway: Gateway, kind: str, subject: str) -> int:
    sql = "SELECT 1 FROM revocation WHERE kind = %s AND subject = UNHEX(%s)"
    return len(gateway.rows(sql, kind, subject))


def session_id(gateway: Gateway, session: Mapping[str, Any]) -> str:
    claims = gateway.services.tokens.verify(AccessClaims, session["access_token"], now=gateway.clock.now.timestamp())
    return claims.session_id


class TestSignUp:
    def test_an_account_is_as_in_the_response(self, gateway: Gateway) -> None:
        answer = post(gateway, "/users", {"username": "New.Name_1", "password": "eight ch"})
        assert answer.status_code == 201
        assert {key: answer.json[key] for key in ("username", "role", "tier")} == {
            "username": "new.name_1",
            "role": "user",
            "tier": "default",
        }
        assert set(answer.json) == {"id", "username", "role", "tier", "created_at"}

    def test_a_name_is_taken_once_also_in_other_letters_and_concurrently(self, gateway: Gateway) -> None:
        answers = together(
            *[
                lambda n=name: post(gateway, "/users", {"username": n, "password": "password"})
                for name in ("only-one", "Only-One", "ONLY-ONE")
            ]
        )
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
        error(post(gateway, "/users", {"username": "oNLY-oNE", "password": "password"}), 409, "USERNAME_TAKEN")

    @pytest.mark.parametrize(("length", "status"), [(7, 400), (8, 201), (1024, 201), (1025, 400)])
    def test_a_password_has_8_to_1024_characters(self, gateway: Gateway, length: int, status: int) -> None:
        answer = post(gateway, "/users", {"username": f"length-{length}", "password": "ä" * length})
        assert answer.status_code == status
        if status == 400:
            error(answer, 400, "PASSWORD_INVALID")

    def test_a_password_of_any_text_signs_in_and_is_stored_only_as_argon2id(self, gateway: Gateway) -> None:
        password = " pass\0wörd 📦\n'\"; --"
        post(gateway, "/users", {"username": "any-text", "password": password})
        assert post(gateway, "/sessions", {"username": "any-text", "password": password}).status_code == 201
        error(post(gateway, "/sessions", {"username": "any-text", "password": " pass"}), 401, "CREDENTIALS_INVALID")
        ((stored,),) = gateway.rows("SELECT password_hash FROM user WHERE username = 'any-text'")
        assert stored.startswith("$argon2id$")

    def test_a_bad_name_is_refused(self, gateway: Gateway) -> None:
        error(post(gateway, "/users", {"username": "../x", "password": "password"}), 400, "USERNAME_INVALID")

    def test_a_closed_server_takes_no_sign_ups(self, build: Callable[..., Gateway]) -> None:
        body = {"username": "closed-out", "password": "password"}
        error(post(build(signup="closed"), "/users", body), 403, "SIGNUP_CLOSED")

    @pytest.mark.parametrize("code", [None, "", "wrong", "let-me-in ", "é"])
    def test_an_invitation_needs_its_code(self, build: Callable[..., Gateway], code: str | None) -> None:
        gateway = build(signup="invite", signup_code="let-me-in")
        body = {"username": "invited", "password": "password"}
        error(post(gateway, "/users", body | {"code": code}), 403, "SIGNUP_CLOSED")
        assert gateway.rows("SELECT 1 FROM user WHERE username = 'invited'") == ()

    def test_an_invitation_with_its_code_is_taken(self, build: Callable[..., Gateway]) -> None:
        gateway = build(signup="invite", signup_code="let-me-in")
        body = {"username": "really-invited", "password": "password", "code": "let-me-in"}
        assert post(gateway, "/users", body).status_code == 201

    def test_a_bad_bearer_token_does_not_matter_to_public_calls(self, gateway: Gateway) -> None:
        body = {"username": "with-header", "password": "password"}
        assert post(gateway, "/users", body, Authorization="Bearer junk").status_code == 201
        made = post(gateway, "/sessions", body, Authorization="Bearer junk")
        again = {"refresh_token": made.json["refresh_token"]}
        assert post(gateway, "/sessions/refresh", again, Authorization="Bearer junk").status_code == 200


class TestSession:
    def test_a_session_has_a_token_for_15_minutes_and_one_for_30_days(self, gateway: Gateway, user: User) -> None:
        assert set(user.session) == {"access_token", "refresh_token", "token_type", "expires_in"}
        assert (user.session["token_type"], user.session["expires_in"]) == ("Bearer", 900)
        tokens, now = gateway.services.tokens, gateway.clock.now.timestamp()
        assert tokens.verify(AccessClaims, user.session["access_token"], now=now).exp == int(now) + 900
        assert tokens.verify(RefreshClaims, user.session["refresh_token"], now=now).exp == int(now + 2_592_000)

    def test_the_access_token_ends_by_itself(self, gateway: Gateway, user: User) -> None:
        gateway.clock.turn(899)
        assert user.get("/users/me").json["id"] == user.id
        gateway.clock.turn(2)
        error(user.get("/users/me"), 401, "TOKEN_EXPIRED")

    def test_me_is_who_asks(self, gateway: Gateway, user: User) -> None:
        assert user.get("/users/me").json["username"] == user.name
        assert gateway.user().get("/users/me").json["id"] != user.id

    def test_a_disabled_user_has_no_sessions_any_more(self, gateway: Gateway, user: User) -> None:
        gateway.db.execute("UPDATE user SET disabled_at = NOW(6) WHERE id = UNHEX(%s)", (user.id,))
        error(user.get("/users/me"), 401, "TOKEN_REVOKED")
        error(refresh(gateway, user.session["refresh_token"]), 401, "TOKEN_REVOKED")
        body = {"username": user.name, "password": user.password}
        error(post(gateway, "/sessions", body), 401, "CREDENTIALS_INVALID")

    def test_sign_out_ends_the_session_alone_and_writes_a_revocation(self, gateway: Gateway, user: User) -> None:
        other = post(gateway, "/sessions", {"username": user.name, "password": user.password}).json
        sid = session_id(gateway, user.session)
        assert user.call("DELETE", "/sessions/current").status_code == 204
        assert user.call("DELETE", "/sessions/current").status_code == 204
        assert revoked(gateway, "session", sid) == 1
        error(refresh(gateway, user.session["refresh_token"]), 401, "TOKEN_REVOKED")
        assert refresh(gateway, other["refresh_token"]).status_code == 200


class TestRefresh:
    def test_a_refresh_gives_new_tokens_of_the_same_session(self, gateway: Gateway, user: User) -> None:
        gateway.clock.turn(3600)
        renewed = refresh(gateway, user.session["refresh_token"])
        assert renewed.status_code == 200
        assert renewed.json["refresh_token"] != user.session["refresh_token"]
        before, user.session = user.session, renewed.json
        assert user.get("/users/me").status_code == 200
        with_old = gateway.services.tokens.verify(AccessClaims, before["access_token"], now=0)
        assert session_id(gateway, renewed.json) == with_old.session_id

    def test_a_refresh_token_lives_30_days_from_its_last_use(self, gateway: Gateway, user: User) -> None:
        token = user.session["refresh_token"]
        for _ in range(3):
            gateway.clock.turn(20 * 86_400)
            token = refresh(gateway, token).json["refresh_token"]
        gateway.clock.turn(30 * 86_400 + 1)
        error(refresh(gateway, token), 401, "TOKEN_EXPIRED")

    def test_a_reused_refresh_token_ends_its_family(self, gateway: Gateway, user: User) -> None:
        stolen = user.session["refresh_token"]
        renewed = refresh(gateway, stolen).json
        error(refresh(gateway, stolen), 401, "TOKEN_REVOKED")
        error(refresh(gateway, renewed["refresh_token"]), 401, "TOKEN_REVOKED")
        assert revoked(gateway, "session", session_id(gateway, renewed)) == 1

    def test_of_one_token_used_twice_concurrently_at_most_one_use_counts(self, gateway: Gateway, user: User) -> None:
        token = user.session["refresh_token"]
        answers = together(*[lambda: refresh(gateway, token)] * 5)
        assert sorted(answer.status_code for answer in answers)[:2] in ([200, 401], [401, 401])
        for answer in answers:
            if answer.status_code == 200:
                error(refresh(gateway, answer.json["refresh_token"]), 401, "TOKEN_REVOKED")
        assert revoked(gateway, "session", session_id(gateway, user.session)) == 1

    def test_another_session_of_the_user_continues(self, gateway: Gateway, user: User) -> None:
        other = post(gateway, "/sessions", {"username": user.name, "password": user.password}).json
        refresh(gateway, user.session["refresh_token"])
        error(refresh(gateway, user.session["refresh_token"]), 401, "TOKEN_REVOKED")
        assert refresh(gateway, other["refresh_token"]).status_code == 200

    @pytest.mark.parametrize("token", ["", "x", "a.b.c", "é"])
    def test_junk_is_no_refresh_token(self, gateway: Gateway, token: str) -> None:
        error(refresh(gateway, token), 401, "TOKEN_INVALID")

    def test_an_access_token_is_no_refresh_token_and_the_other_way_round(self, gateway: Gateway, user: User) -> None:
        error(refresh(gateway, user.session["access_token"]), 401, "TOKEN_INVALID")
        user.session["access_token"] = user.session["refresh_token"]
        error(user.get("/users/me"), 401, "TOKEN_INVALID")

    def test_the_database_holds_no_refresh_token(self, gateway: Gateway, user: User) -> None:
        claims = gateway.services.tokens.verify(RefreshClaims, user.session["refresh_token"], now=0)
        rows = gateway.rows("SELECT HEX(refresh_hash) FROM session WHERE user_id = UNHEX(%s)", user.id)
        assert claims.secret not in str(rows).lower()


class TestCookie:
    @pytest.fixture
    def browser(self, gateway: Gateway, user: User) -> falcon.testing.Cookie:
        """The cookie of a session that was started in a browser."""
        made = post(gateway, "/sessions", {"username": user.name, "password": user.password, "cookie": True})
        assert "refresh_token" not in made.json
        return made.cookies["sluice_refresh"]

    def test_a_foreign_page_cannot_sign_its_visitor_in(self, gateway: Gateway, user: User) -> None:
        body = {"username": user.name, "password": user.password, "cookie": True}
        for origin in ("http://evil.example", "null", ORIGIN + ".evil.example"):
            answer = post(gateway, "/sessions", body, Origin=origin)
            error(answer, 403, "ORIGIN_INVALID")
            assert "set-cookie" not in answer.headers
        assert post(gateway, "/sessions", body, Origin=ORIGIN).status_code == 201

    def renew(self, gateway: Gateway, cookie: falcon.testing.Cookie, **headers: str) -> falcon.testing.Result:
        return post(gateway, "/sessions/refresh", {}, Cookie=f"sluice_refresh={cookie.value}", **headers)

    def test_the_cookie_is_for_our_own_pages_and_no_script(self, browser: falcon.testing.Cookie) -> None:
        assert (browser.http_only, browser.same_site, browser.path) == (True, "Strict", "/api/v1/sessions")
        assert (browser.secure, browser.max_age) == (False, 2_592_000)
        assert browser.domain is None

    def test_under_tls_it_is_secure(self, build: Callable[..., Gateway]) -> None:
        gateway = build(public_url="https://files.example/")
        user = gateway.user()
        made = post(gateway, "/sessions", {"username": user.name, "password": user.password, "cookie": True})
        assert made.cookies["sluice_refresh"].secure
        renewed = self.renew(gateway, made.cookies["sluice_refresh"], Origin="https://files.example")
        assert renewed.status_code == 200

    def test_a_refresh_by_cookie_rotates_the_cookie(self, gateway: Gateway, browser: falcon.testing.Cookie) -> None:
        renewed = self.renew(gateway, browser, Origin=ORIGIN)
        assert renewed.status_code == 200
        assert "refresh_token" not in renewed.json
        assert renewed.cookies["sluice_refresh"].value != browser.value
        error(self.renew(gateway, browser, Origin=ORIGIN), 401, "TOKEN_REVOKED")

    @pytest.mark.parametrize(
        "headers",
        [{}, {"Origin": "null"}, {"Origin": "http://evil.example"}, {"Origin": ORIGIN + ".evil.example"}],
    )
    def test_a_cookie_from_another_page_is_refused_and_the_session_lives(
        self, gateway: Gateway, browser: falcon.testing.Cookie, headers: dict[str, str]
    ) -> None:
        error(self.renew(gateway, browser, **headers), 403, "ORIGIN_INVALID")
        assert self.renew(gateway, browser, Origin=ORIGIN).status_code == 200

    def test_without_token_and_cookie_there_is_nothing_to_renew(self, gateway: Gateway) -> None:
        error(post(gateway, "/sessions/refresh", {}), 401, "TOKEN_MISSING")

    def test_sign_out_takes_the_cookie_back(self, gateway: Gateway, browser: falcon.testing.Cookie) -> None:
        session = self.renew(gateway, browser, Origin=ORIGIN)
        cookie = session.cookies["sluice_refresh"].value
        out = gateway.http.simulate_delete(
            "/api/v1/sessions/current",
            headers={
                "Authorization": f"Bearer {session.json['access_token']}",
                "Cookie": f"sluice_refresh={cookie}",
            },
        )
        assert out.status_code == 204
        gone = out.cookies["sluice_refresh"]
        assert (gone.value, gone.path) == ("", "/api/v1/sessions")
        assert gone.expires is not None
        assert gone.expires.timestamp() < gateway.clock.now.timestamp()
        error(
            post(gateway, "/sessions/refresh", {}, Cookie=f"sluice_refresh={cookie}", Origin=ORIGIN),
            401,
            "TOKEN_REVOKED",
        )


class TestPassword:
    def change(self, user: User, current: str, new: str) -> falcon.testing.Result:
        return user.call("PATCH", "/users/me", json={"current_password": current, "password": new})

    def test_a_change_ends_every_session_and_the_old_password(self, gateway: Gateway, user: User) -> None:
        other = post(gateway, "/sessions", {"username": user.name, "password": user.password}).json
        gateway.user()  # this session stays valid
        assert self.change(user, user.password, "another password").json["id"] == user.id
        assert revoked(gateway, "user", user.id) == 1
        for session in (user.session, other):
            error(refresh(gateway, session["refresh_token"]), 401, "TOKEN_REVOKED")
        old, new = (
            post(gateway, "/sessions", {"username": user.name, "password": password})
            for password in (user.password, "another password")
        )
        error(old, 401, "CREDENTIALS_INVALID")
        assert new.status_code == 201

    def test_a_wrong_current_password_changes_nothing(self, gateway: Gateway, user: User) -> None:
        error(self.change(user, "wrong password", "another password"), 403, "PASSWORD_WRONG")
        assert refresh(gateway, user.session["refresh_token"]).status_code == 200

    def test_a_new_password_that_cannot_be_used_changes_nothing(self, gateway: Gateway, user: User) -> None:
        error(self.change(user, user.password, "short"), 400, "PASSWORD_INVALID")
        assert refresh(gateway, user.session["refresh_token"]).status_code == 200

    def test_the_current_password_cannot_be_guessed_by_a_stolen_token(self, gateway: Gateway, user: User) -> None:
        for _ in range(10):
            error(self.change(user, "a guess", "another password"), 403, "PASSWORD_WRONG")
        error(self.change(user, user.password, "another password"), 429, "SIGNIN_LIMITED")


class TestBearer:
    def ask(self, gateway: Gateway, authorization: str | None) -> falcon.testing.Result:
        headers = {} if authorization is None else {"Authorization": authorization}
        return gateway.http.simulate_get("/api/v1/users/me", headers=headers)

    @pytest.mark.parametrize("authorization", [None, "", "Basic dXNlcjpwYXNz", "Bearer", "Token x"])
    def test_none_is_missing(self, gateway: Gateway, authorization: str | None) -> None:
        code = "TOKEN_INVALID" if authorization == "Bearer" else "TOKEN_MISSING"
        error(self.ask(gateway, authorization), 401, code)

    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
    def test_the_scheme_is_of_any_case(self, gateway: Gateway, user: User, scheme: str) -> None:
        assert self.ask(gateway, f"{scheme} {user.session['access_token']}").status_code == 200

    def test_a_flipped_bit_anywhere_is_invalid(self, gateway: Gateway, user: User) -> None:
        token = user.session["access_token"]
        for at in range(0, len(token), 7):
            flipped = token[:at] + chr(ord(token[at]) ^ 1) + token[at + 1 :]
            error(self.ask(gateway, f"Bearer {flipped}"), 401, "TOKEN_INVALID")

    def test_a_token_of_another_purpose_is_invalid(self, gateway: Gateway, user: User) -> None:
        claims = gateway.services.tokens.verify(AccessClaims, user.session["access_token"], now=0)
        tokens = gateway.services.tokens
        link = LinkClaims(bytes(8), bytes(16), 1, "attachment", claims.exp)
        others = [
            user.session["refresh_token"],
            tokens.sign(CursorClaims(claims.exp, claims.user_id, "files", [])),
            tokens.sign_link(link),
            tokens.seal(claims),
        ]
        for token in others:
            error(self.ask(gateway, f"Bearer {token}"), 401, "TOKEN_INVALID")

    def test_a_retired_key_is_invalid_and_an_older_one_is_not(self, build: Callable[..., Gateway]) -> None:
        old, new = "o" * 64, "n" * 64
        user = build(secret_keys=old).user()
        token = f"Bearer {user.session['access_token']}"
        assert self.ask(build(secret_keys=f"{old},{new}"), token).status_code == 200
        error(self.ask(build(secret_keys=new), token), 401, "TOKEN_INVALID")
