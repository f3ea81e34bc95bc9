"""The feed of revocations for edges: it misses none, and does not repeat old ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import falcon.testing
import msgspec
import pytest

from api.accounts import revocation_rows, revocations
from api.core.claims import AccessClaims
from tests.api.conftest import EDGE_KEY, Content, Gateway, User, error, fresh_database
from tests.conftest import Servers


@pytest.fixture
def gateway(build: Callable[..., Gateway], feed_database: str) -> Gateway:
    """The API with a separate, empty feed."""
    made = build(database_url=feed_database)
    made.db.execute("DELETE FROM revocation")
    return made


@pytest.fixture(scope="module")
def feed_database(servers: Servers) -> str:
    return fresh_database(servers)


def feed(gateway: Gateway, after: int | str = 0) -> dict[str, Any]:
    answer = gateway.http.simulate_get(
        "/internal/revocations", params={"after": after}, headers={"X-Sluice-Edge": EDGE_KEY}
    )
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json
    assert set(result) == {"position", "more", "room", "tiers", "revocations"}
    del result["tiers"]
    return result


def subjects(answer: dict[str, Any]) -> list[str]:
    return [row[1] for row in answer["revocations"]]


def add(gateway: Gateway, count: int = 1, expires_in: float = 3600) -> list[str]:
    """Inserts rows of the feed, a second apart. Returns their subjects."""
    made = [os.urandom(16) for _ in range(count)]
    for subject in made:
        gateway.clock.turn(1)
        now = gateway.clock.now
        revocation_rows.note(gateway.db, "session", subject, 1, now, now + timedelta(seconds=expires_in))
    return [subject.hex() for subject in made]


def sign_in(gateway: Gateway, user: User) -> None:
    body = {"username": user.name, "password": user.password}
    user.session = gateway.http.simulate_post("/api/v1/sessions", json=body).json


def claims(gateway: Gateway, user: User) -> dict[str, Any]:
    found = gateway.services.tokens.verify(AccessClaims, user.session["access_token"], now=0)
    told: dict[str, Any] = msgspec.to_builtins(found)
    return told


class TestRows:
    def test_every_end_is_a_row_with_kind_subject_generation_moment_and_expiry(
        self, gateway: Gateway, user: User
    ) -> None:
        file = user.create(Content(b""))["file"]
        user.call("DELETE", f"/files/{file['id']}")
        sid = claims(gateway, user)["sid"]
        gateway.clock.turn(1)
        user.call("DELETE", "/sessions/current")
        now = int(gateway.clock.now.timestamp())
        rows = feed(gateway)["revocations"]
        assert [row[:3] + row[4:] for row in rows] == [
            ["user", user.id, 0, now - 1 + 60 + 30 + 2 + 30],
            ["session", sid, 1, now + 900 + 300],
        ]
        assert [row[3] // 1_000_000 for row in rows] == [now - 1, now]

    def test_a_password_change_is_one_row_however_many_sessions_end(self, gateway: Gateway, user: User) -> None:
        for _ in range(3):
            sign_in(gateway, user)
        body = {"current_password": user.password, "password": "another one"}
        assert user.call("PATCH", "/users/me", json=body).status_code == 200
        ((kind, subject, generation, _, _),) = feed(gateway)["revocations"]
        assert (kind, subject, generation) == ("user", user.id, 1)
        assert claims(gateway, user)["gen"] == 0

    def test_who_signs_in_and_out_without_an_end_has_a_bounded_number_of_rows(
        self, gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(revocations, "_MOST_SESSIONS", 3)
        other, refresh = claims(gateway, user), user.session["refresh_token"]
        for n in range(8):
            sign_in(gateway, user)
            last = claims(gateway, user)
            assert user.call("DELETE", "/sessions/current").status_code == 204
            kinds = [row[0] for row in feed(gateway)["revocations"]]
            assert kinds == ["session"] * min(n + 1, 3) + ["user"] * (n >= 3)
        ((_, subject, generation, _, _),) = [row for row in feed(gateway)["revocations"] if row[0] == "user"]
        assert (subject, generation) == (user.id, 5)
        assert other["gen"] < generation
        assert last["gen"] < generation
        # the other session continues with a new token
        answer = gateway.http.simulate_post("/api/v1/sessions/refresh", json={"refresh_token": refresh})
        user.session = answer.json
        assert claims(gateway, user)["gen"] == generation
        # some time later, sessions end one by one again
        gateway.clock.turn(900 + 300)
        sign_in(gateway, user)
        user.call("DELETE", "/sessions/current")
        assert [row[0] for row in feed(gateway)["revocations"]] == ["session"]

    def test_a_row_that_is_written_again_never_goes_back(self, gateway: Gateway) -> None:
        now, subject = gateway.clock.now, os.urandom(16)
        ends = now + timedelta(hours=1)
        revocation_rows.note(gateway.db, "user", subject, 5, now, ends)
        revocation_rows.note(gateway.db, "user", subject, 3, now - timedelta(seconds=5), now + timedelta(seconds=1))
        ((_, _, generation, moment, expires),) = feed(gateway)["revocations"]
        assert (generation, expires) == (5, int(ends.timestamp()))
        assert moment == revocations.microseconds(now) + 1, "it is new for edges"


class TestPaging:
    def test_nothing_yet(self, gateway: Gateway) -> None:
        assert feed(gateway) == {"position": 0, "more": False, "room": None, "revocations": []}

    def test_a_position_is_the_moment_of_the_last_row_which_is_sent_again(self, gateway: Gateway) -> None:
        made = add(gateway, 3)
        first = feed(gateway)
        assert (subjects(first), first["position"]) == (made, first["revocations"][-1][3])
        again = feed(gateway, first["position"])
        assert (subjects(again), again["position"]) == (made[-1:], first["position"])
        after = feed(gateway, first["position"] + 1)
        assert (subjects(after), after["position"]) == ([], first["position"] + 1)

    def test_a_row_that_commits_late_is_found_by_an_edge_that_looks_back(self, gateway: Gateway) -> None:
        now, late = gateway.clock.now, os.urandom(16)
        seen: list[int] = []

        def body(tx: Any) -> None:
            revocation_rows.note(tx, "session", late, 1, now, now + timedelta(hours=1))
            add(gateway)
            seen.append(feed(gateway)["position"])

        gateway.db.transaction(body)
        assert late.hex() not in subjects(feed(gateway, seen[0]))
        assert late.hex() in subjects(feed(gateway, seen[0] - 10_000_000))

    def test_pages_follow_each_other_until_there_is_no_more(
        self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(revocation_rows, "PAGE", 4)
        monkeypatch.setattr(revocation_rows, "_SINCE", revocation_rows._SINCE.replace("LIMIT 10000", "LIMIT 4"))
        made = add(gateway, 11)
        seen, answer, asked = [], feed(gateway), 1
        while answer["more"]:
            seen += subjects(answer)
            answer, asked = feed(gateway, answer["position"]), asked + 1
        assert list(dict.fromkeys(seen + subjects(answer))) == made
        assert asked == 4

    def test_what_is_over_is_not_told_and_dropped(self, gateway: Gateway) -> None:
        short, long = add(gateway, 2, expires_in=60), add(gateway, 2, expires_in=3600)
        gateway.clock.turn(56)
        assert subjects(feed(gateway)) == [*short, *long]
        gateway.clock.turn(2)
        assert subjects(feed(gateway)) == long
        assert revocation_rows.prune(gateway.db, gateway.clock.now + timedelta(seconds=1)) == 2
        assert subjects(feed(gateway)) == long


class TestAnEdgeThatCannotTell:
    """The API checks itself whether a token has ended."""

    def unsure(self, user: User) -> falcon.testing.Result:
        return user.call("GET", "/users/me", headers={"X-Sluice-Unsure": "1"})

    def live(self, gateway: Gateway, told: dict[str, Any]) -> bool:
        query = {"user": told["sub"], "generation": told["gen"]}
        headers = {"X-Sluice-Edge": EDGE_KEY}
        answer = gateway.http.simulate_get(f"/internal/sessions/{told['sid']}", params=query, headers=headers)
        assert answer.status_code == 200, answer.text
        return bool(answer.json["live"])

    def test_of_a_session_that_continues(self, gateway: Gateway, user: User) -> None:
        assert self.unsure(user).status_code == 200
        assert self.live(gateway, claims(gateway, user))

    def test_of_one_that_has_ended(self, gateway: Gateway, user: User) -> None:
        told = claims(gateway, user)
        user.call("DELETE", "/sessions/current")
        assert user.get("/users/me").status_code == 200, "only the edge checks revocations"
        error(self.unsure(user), 401, "TOKEN_REVOKED")
        assert not self.live(gateway, told)

    def test_of_another_password(self, gateway: Gateway, user: User) -> None:
        told = claims(gateway, user)
        user.call("PATCH", "/users/me", json={"current_password": user.password, "password": "another one"})
        error(self.unsure(user), 401, "TOKEN_REVOKED")
        assert not self.live(gateway, told)

    def test_of_an_older_generation_and_of_a_disabled_account(self, gateway: Gateway, user: User) -> None:
        told = claims(gateway, user)
        gateway.db.execute("UPDATE user SET generation = generation + 1 WHERE id = UNHEX(%s)", (user.id,))
        assert not self.live(gateway, told)
        assert self.live(gateway, told | {"gen": 1})
        gateway.db.execute("UPDATE user SET disabled_at = NOW(6) WHERE id = UNHEX(%s)", (user.id,))
        assert not self.live(gateway, told | {"gen": 1})


class TestAccess:
    @pytest.mark.parametrize("path", ["/internal/revocations", f"/internal/targets/{'0' * 32}"])
    @pytest.mark.parametrize("key", [None, "", "x", EDGE_KEY[:-1], EDGE_KEY + "e", EDGE_KEY.upper(), "é" * 64])
    def test_without_the_edge_key_there_is_nothing_here(self, gateway: Gateway, path: str, key: str | None) -> None:
        headers = {} if key is None else {"X-Sluice-Edge": key.encode().decode("latin-1")}
        error(gateway.http.simulate_get(path, headers=headers), 404, "NOT_FOUND")

    def test_a_bearer_token_does_not_open_it(self, user: User) -> None:
        answer = user.gateway.http.simulate_get(
            "/internal/revocations", headers={"Authorization": f"Bearer {user.session['access_token']}"}
        )
        error(answer, 404, "NOT_FOUND")

    @pytest.mark.parametrize("after", ["-1", "x", "", "1.5", "1" * 20, "１"])
    def test_after_is_a_rows_id(self, gateway: Gateway, after: str) -> None:
        answer = gateway.http.simulate_get(
            "/internal/revocations", params={"after": after}, headers={"X-Sluice-Edge": EDGE_KEY}
        )
        error(answer, 400, "PARAMETER_INVALID")

    def test_the_highest_id_is_taken(self, gateway: Gateway) -> None:
        assert feed(gateway, "9" * 19)["revocations"] == []


class TestTargets:
    def ask(self, gateway: Gateway, file: dict[str, Any]) -> falcon.testing.Result:
        return gateway.http.simulate_get(f"/internal/targets/{file['id']}", headers={"X-Sluice-Edge": EDGE_KEY})

    def test_a_target_says_all_that_the_edge_needs(self, gateway: Gateway, user: User) -> None:
        content = Content(b"target")
        file = user.upload(content, "résumé 📦.pdf", content_type="application/pdf")
        (key,) = gateway.storage.objects
        assert self.ask(gateway, file).json == {
            "file": file["id"],
            "owner": user.id,
            "tier": "default",
            "link_tier": "default",
            "generation": 1,
            "filename": "résumé 📦.pdf",
            "type": "application/pdf",
            "size": 6,
            "digest": content.digest,
            "storage": "local",
            "name": "local",
            "uri": f"/{key}",
            "cached": False,
            "others": False,
        }

    def test_the_tier_of_links_may_be_another(self, build: Callable[..., Gateway]) -> None:
        gateway = build(link_tier="anonymous")
        told = self.ask(gateway, gateway.user().create(Content(b""))["file"]).json
        assert (told["tier"], told["link_tier"]) == ("default", "anonymous")

    def test_an_accounts_new_tier_is_in_the_response(self, gateway: Gateway, user: User) -> None:
        file = user.create(Content(b""))["file"]
        gateway.db.execute("UPDATE user SET tier = 'other' WHERE id = UNHEX(%s)", (user.id,))
        assert self.ask(gateway, file).json["tier"] == "other"

    def test_the_empty_file_lies_nowhere(self, gateway: Gateway, user: User) -> None:
        target = self.ask(gateway, user.create(Content(b""))["file"]).json
        assert (target["size"], target["storage"], target["uri"]) == (0, "empty", "")

    @pytest.mark.parametrize(
        ("change", "status", "code"),
        [
            ("UPDATE `blob` SET state = 'deleting' WHERE id = {blob}", 404, "FILE_NOT_FOUND"),
            ("UPDATE `blob` SET state = 'corrupt' WHERE id = {blob}", 410, "FILE_CORRUPT"),
            ("DELETE FROM replica WHERE blob_id = {blob}", 410, "CONTENT_LOST"),
            ("UPDATE replica SET storage = 'gone' WHERE blob_id = {blob}", 503, "STORAGE_UNAVAILABLE"),
            ("UPDATE file SET trashed_at = NOW(6) WHERE blob_id = {blob}", 410, "LINK_REVOKED"),
            ("UPDATE user SET disabled_at = NOW(6) WHERE id = {user}", 410, "LINK_REVOKED"),
            ("DELETE FROM file WHERE blob_id = {blob}", 404, "FILE_NOT_FOUND"),
        ],
    )
    def test_a_file_that_cannot_be_sent_says_why(
        self, gateway: Gateway, user: User, change: str, status: int, code: str
    ) -> None:
        file = user.upload(Content(f"unreadable {change}".encode()))
        ((blob,),) = gateway.rows("SELECT HEX(blob_id) FROM file WHERE id = UNHEX(%s)", file["id"])
        gateway.db.execute(change.format(blob=f"UNHEX('{blob}')", user=f"UNHEX('{user.id}')"))
        error(self.ask(gateway, file), status, code)

    @pytest.mark.parametrize("file", ["0" * 32, "x", "F" * 32])
    def test_what_is_no_file_is_not_found(self, gateway: Gateway, file: str) -> None:
        error(self.ask(gateway, {"id": file}), 404, "FILE_NOT_FOUND")
