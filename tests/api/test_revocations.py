"""The feed by which edges learn what has ended: nothing is missed, nothing that is over is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import falcon.testing
import pytest

from api.accounts import revocation_rows as revocations
from tests.api.conftest import EDGE_KEY, Content, Gateway, User, error, fresh_database
from tests.conftest import Servers


@pytest.fixture
def gateway(build: Callable[..., Gateway], feed_database: str) -> Gateway:
    """The API over a feed of its own, empty."""
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
    assert set(result) == {"last_id", "more", "room", "tiers", "revocations"}
    del result["tiers"]
    return result


def ids(answer: dict[str, Any]) -> list[int]:
    return [row[0] for row in answer["revocations"]]


def add(gateway: Gateway, count: int = 1, expires_in: float = 3600) -> list[int]:
    """Rows of the feed; answers their ids."""
    now = gateway.clock.now
    subjects = [bytes([n % 256, n // 256]) + bytes(14) for n in range(count)]
    revocations.insert(gateway.db, "session", subjects, 0, now, now + timedelta(seconds=expires_in))
    found = gateway.rows("SELECT id FROM revocation ORDER BY id DESC LIMIT %s", count)
    return sorted(row for (row,) in found)


class TestRows:
    def test_every_end_is_a_row_with_kind_subject_generation_and_expiry(self, gateway: Gateway, user: User) -> None:
        file = user.create(Content(b""))["file"]
        user.call("DELETE", f"/files/{file['id']}")
        sid = gateway.services.tokens.verify("access", user.session["access_token"], now=0)["sid"]
        user.call("DELETE", "/sessions/current")
        now = int(gateway.clock.now.timestamp())
        rows = [row[1:] for row in feed(gateway)["revocations"]]
        assert rows == [
            ["file", file["id"], 1, now + 604_800 + 300],
            ["session", sid, 0, now + 900 + 300],
        ]

    def test_a_password_change_is_a_row_for_each_session(self, gateway: Gateway, user: User) -> None:
        for _ in range(2):
            gateway.http.simulate_post("/api/v1/sessions", json={"username": user.name, "password": user.password})
        user.call("PATCH", "/users/me", json={"current_password": user.password, "password": "another one"})
        rows = feed(gateway)["revocations"]
        assert len({row[2] for row in rows}) == len(rows) == 3
        assert {row[1] for row in rows} == {"session"}


class TestPaging:
    def test_nothing_yet(self, gateway: Gateway) -> None:
        assert feed(gateway) == {"last_id": 0, "more": False, "room": None, "revocations": []}

    def test_what_is_older_than_the_overlap_is_told_once(self, gateway: Gateway) -> None:
        old = add(gateway, 3)
        gateway.clock.turn(11)
        first = feed(gateway)
        assert (ids(first), first["last_id"]) == (old, old[-1])
        assert feed(gateway, first["last_id"]) == {"last_id": old[-1], "more": False, "room": None, "revocations": []}

    def test_what_was_made_in_the_last_10_s_is_told_again(self, gateway: Gateway) -> None:
        recent = add(gateway, 2)
        gateway.clock.turn(9)
        again = feed(gateway, recent[-1])
        assert (ids(again), again["last_id"]) == (recent, recent[-1])

    def test_a_row_that_commits_after_one_with_a_higher_id_is_not_missed(self, gateway: Gateway) -> None:
        now, late = gateway.clock.now, bytes([9] * 16)
        seen: list[int] = []

        def body(tx: Any) -> None:
            revocations.insert(tx, "session", [late], 0, now, now + timedelta(hours=1))
            higher = add(gateway)
            seen.extend([feed(gateway)["last_id"], *higher])

        gateway.db.transaction(body)
        last_id, higher = seen
        assert last_id == higher
        assert late.hex() in {row[2] for row in feed(gateway, last_id)["revocations"]}

    def test_pages_follow_each_other_until_there_is_no_more(
        self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(revocations, "PAGE", 4)
        monkeypatch.setattr(revocations, "_SINCE", revocations._SINCE.replace("LIMIT 10000", "LIMIT 4"))
        old = add(gateway, 9)
        gateway.clock.turn(11)
        recent = add(gateway, 2)
        seen: set[int] = set()
        answer, asked = feed(gateway), 1
        while answer["more"]:
            assert set(recent) <= set(ids(answer)), "what is recent comes with every page"
            seen |= set(ids(answer))
            answer, asked = feed(gateway, answer["last_id"]), asked + 1
        seen |= set(ids(answer))
        assert seen == {*old, *recent}
        assert answer["last_id"] == recent[-1]
        assert asked == 3

    def test_a_fresh_edge_gets_all_that_is_in_force_and_nothing_that_is_over(self, gateway: Gateway) -> None:
        short, long = add(gateway, 2, expires_in=60), add(gateway, 2, expires_in=3600)
        gateway.clock.turn(59)
        assert ids(feed(gateway)) == [*short, *long]
        gateway.clock.turn(1)
        assert ids(feed(gateway)) == long
        assert feed(gateway)["last_id"] == long[-1]


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
    def ask(self, gateway: Gateway, blob: str) -> falcon.testing.Result:
        return gateway.http.simulate_get(f"/internal/targets/{blob}", headers={"X-Sluice-Edge": EDGE_KEY})

    def blob(self, gateway: Gateway, file: dict[str, Any]) -> str:
        ((blob,),) = gateway.rows("SELECT LOWER(HEX(blob_id)) FROM file WHERE id = UNHEX(%s)", file["id"])
        return str(blob)

    def test_a_target_says_where_the_bytes_are(self, gateway: Gateway, user: User) -> None:
        content = Content(b"target")
        blob = self.blob(gateway, user.upload(content))
        (key,) = gateway.storage.objects
        assert self.ask(gateway, blob).json == {
            "blob": blob,
            "size": 6,
            "digest": content.digest,
            "storage": "local",
            "name": "local",
            "uri": f"/{key}",
            "cached": False,
        }

    def test_the_empty_blob_lies_nowhere(self, gateway: Gateway, user: User) -> None:
        target = self.ask(gateway, self.blob(gateway, user.create(Content(b""))["file"])).json
        assert (target["size"], target["storage"], target["uri"]) == (0, "empty", "")

    @pytest.mark.parametrize(
        ("change", "status", "code"),
        [
            ("UPDATE `blob` SET state = 'deleting' WHERE id = UNHEX(%s)", 404, "FILE_NOT_FOUND"),
            ("UPDATE `blob` SET state = 'corrupt' WHERE id = UNHEX(%s)", 410, "FILE_CORRUPT"),
            ("DELETE FROM replica WHERE blob_id = UNHEX(%s)", 404, "FILE_NOT_FOUND"),
            ("UPDATE replica SET storage = 'gone' WHERE blob_id = UNHEX(%s)", 503, "STORAGE_UNAVAILABLE"),
        ],
    )
    def test_a_blob_that_cannot_be_read_says_why(
        self, gateway: Gateway, user: User, change: str, status: int, code: str
    ) -> None:
        blob = self.blob(gateway, user.upload(Content(f"unreadable {change}".encode())))
        gateway.db.execute(change, (blob,))
        error(self.ask(gateway, blob), status, code)

    @pytest.mark.parametrize("blob", ["0" * 32, "x", "F" * 32])
    def test_what_is_no_blob_is_not_found(self, gateway: Gateway, blob: str) -> None:
        error(self.ask(gateway, blob), 404, "FILE_NOT_FOUND")
