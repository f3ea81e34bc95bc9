"""Transfers over HTTP and by the command line: access, results, errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api import __main__ as command
from api import app
from api.core import config
from tests.api.conftest import User, error
from tests.api.moving import Moving
from tests.conftest import Servers

NOBODY = "0" * 32


@pytest.fixture
def gateway(servers: Servers, tmp_path: Path) -> Iterator[Moving]:
    made = Moving.over(servers, tmp_path)
    yield made
    made.db.close()


@pytest.fixture
def admin(gateway: Moving) -> User:
    made = gateway.user()
    gateway.db.execute("UPDATE user SET role = 'admin' WHERE username = %s", (made.name,))
    body = {"username": made.name, "password": made.password}
    made.session = gateway.http.simulate_post("/api/v1/sessions", json=body).json
    return made


def start(admin: User, **more: Any) -> dict[str, Any]:
    answer = admin.post("/transfers", {"from": "local", "to": "main"} | more)
    assert answer.status_code in (200, 201), answer.text
    found: dict[str, Any] = answer.json
    return found


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/transfers"),
        ("POST", "/transfers"),
        ("GET", f"/transfers/{NOBODY}"),
        ("PATCH", f"/transfers/{NOBODY}"),
        ("POST", f"/transfers/{NOBODY}/retry"),
    ],
)
def test_only_administrators_may(gateway: Moving, user: User, admin: User, method: str, path: str) -> None:
    error(gateway.http.simulate_request(method, f"/api/v1{path}"), 401, "TOKEN_MISSING")
    error(user.call(method, path, json={}), 403, "ADMIN_REQUIRED")
    assert admin.call(method, path, json={}).status_code != 403


def test_a_transfer_from_its_start_to_its_end(gateway: Moving, user: User, admin: User) -> None:
    files = gateway.upload_all(user, [100, 200, 300], "http")
    made = admin.post("/transfers", {"from": "local", "to": "main"})
    assert made.status_code == 201
    shown = made.json
    assert (shown["state"], shown["from"], shown["to"], shown["policy"]) == ("running", "local", "main", None)
    again = admin.post("/transfers", {"from": "local", "to": "main"})
    assert (again.status_code, again.json["id"]) == (200, shown["id"])
    path = f"/transfers/{shown['id']}"
    assert admin.call("PATCH", path, json={"state": "paused"}).json["state"] == "paused"
    assert admin.call("PATCH", path, json={"state": "running"}).json["state"] == "running"
    gateway.turn_until_done()
    shown = admin.get(path).json
    assert (shown["state"], shown["items"], shown["done_items"], shown["done_bytes"]) == ("done", 3, 3, 600)
    assert (shown["failures"], shown["reasons"], shown["unfinished_bytes"]) == ([], {}, 0)
    assert all("main" in gateway.replicas(file) for file, _ in files)
    error(admin.call("PATCH", path, json={"state": "running"}), 409, "TRANSFER_NOT_OPEN")


def test_failures_are_shown_with_their_reasons_and_retried(gateway: Moving, user: User, admin: User) -> None:
    ((file, content),) = gateway.upload_all(user, [100], "broken")
    key = gateway.replicas(file)["local"]
    gateway.storage.objects[key] = bytes(100)
    path = f"/transfers/{start(admin)['id']}"
    gateway.turn_until_done()
    shown = admin.get(path).json
    assert (shown["state"], shown["failed_items"], shown["reasons"]) == ("done", 1, {"SOURCE_CORRUPT": 1})
    (failure,) = shown["failures"]
    assert failure == {
        "blob": gateway.rows("SELECT LOWER(HEX(blob_id)) FROM replica WHERE object_key = %s", key)[0][0],
        "size": 100,
        "phase": "copy",
        "reason": "SOURCE_CORRUPT",
        "message": "part 1 on local is not what was uploaded",
    }
    gateway.storage.objects[key] = content.data
    assert admin.post(f"{path}/retry").json["failed_items"] == 0
    gateway.turn_until_done()
    assert "main" in gateway.replicas(file)


def test_the_list_is_in_pages(gateway: Moving, admin: User) -> None:
    ids = [start(admin, delete_source=True, keep_for=n)["id"] for n in range(5)]
    found, cursor = [], None
    while True:
        page = admin.get("/transfers", limit=2, **({"cursor": cursor} if cursor else {})).json
        found += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == ids[::-1]
    error(admin.get("/transfers", cursor="x"), 400, "CURSOR_INVALID")


def test_a_dry_run_answers_figures(gateway: Moving, user: User, admin: User) -> None:
    gateway.upload_all(user, [100, 200], "dry")
    answer = admin.post("/transfers", {"from": "local", "to": "main", "dry_run": True})
    assert answer.status_code == 200
    assert answer.json == {"dry_run": True, "items": 2, "bytes": 300, "there_items": 0}
    assert admin.get("/transfers").json["items"] == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "BODY_INVALID"),
        ({"from": "local"}, "BODY_INVALID"),
        ({"from": "local", "to": "local"}, "TRANSFER_INVALID"),
        ({"from": "local", "to": "away"}, "TRANSFER_INVALID"),
        ({"from": "away", "to": "local"}, "TRANSFER_INVALID"),
        ({"from": "local", "to": "main", "keep_for": 5}, "BODY_INVALID"),
        ({"from": "local", "to": "main", "delete_source": True, "keep_for": -1}, "BODY_INVALID"),
        ({"from": "local", "to": "main", "delete_source": True, "keep_for": 10**12}, "TRANSFER_INVALID"),
        ({"from": "local", "to": "main", "source": "x"}, "BODY_INVALID"),
        ({"from": "local", "to": 7}, "BODY_INVALID"),
    ],
)
def test_what_cannot_be_started_is_said(admin: User, body: dict[str, Any], code: str) -> None:
    error(admin.post("/transfers", body), 400, code)


def test_what_is_not_there_is_said(admin: User) -> None:
    for path in (f"/transfers/{NOBODY}", "/transfers/x"):
        error(admin.get(path), 404, "TRANSFER_NOT_FOUND")
        error(admin.call("PATCH", path, json={"state": "paused"}), 404, "TRANSFER_NOT_FOUND")
        error(admin.post(f"{path}/retry"), 404, "TRANSFER_NOT_FOUND")
    made = start(admin)["id"]
    error(admin.call("PATCH", f"/transfers/{made}", json={"state": "done"}), 400, "BODY_INVALID")
    assert admin.call("PATCH", f"/transfers/{made}", json={"state": "cancelled"}).json["state"] == "cancelled"
    error(admin.call("PATCH", f"/transfers/{made}", json={"state": "running"}), 409, "TRANSFER_NOT_OPEN")
    error(admin.post(f"/transfers/{made}/retry"), 409, "TRANSFER_NOT_OPEN")


class TestCommands:
    @pytest.fixture
    def run(self, gateway: Moving, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
        monkeypatch.setattr(app, "compose", lambda settings: gateway.services)
        monkeypatch.setattr(config, "load", lambda: gateway.config)

        def call(*words: str) -> tuple[int, str]:
            code = command.main(["transfer", *words])
            captured = capsys.readouterr()
            return code, captured.out + captured.err

        return call

    def test_from_start_to_end(self, gateway: Moving, user: User, run: Any) -> None:
        assert run("status") == (0, "there are no transfers\n")
        gateway.upload_all(user, [100, 2000], "command")
        assert run("start", "--from", "local", "--to", "main", "--dry-run") == (0, "would copy 2 blobs, 2.1 KiB\n")
        code, text = run("start", "--from", "local", "--to", "main", "--delete-source", "--keep-for", "1h")
        assert code == 0
        made = text.split()[0]
        assert "local → main, then deletes the source" in text
        assert "paused" in run("pause", made)[1]
        assert "running" in run("resume", made)[1]
        gateway.turn_until_done()
        code, text = run("status", made, "--json")
        shown = json.loads(text)
        assert (shown["keep_for"], shown["unfinished_bytes"], shown["state"]) == (3600, 2100, "running")
        gateway.clock.turn(3600)
        gateway.turn_until_done()
        assert "done     2 blobs, 2.1 KiB" in run("status", made)[1]
        assert [item["id"] for item in json.loads(run("status", "--json")[1])["items"]] == [made]
        assert run("retry", made)[0] == 0
        assert "cancelled" in run("cancel", made)[1]

    def test_what_failed_is_shown(self, gateway: Moving, user: User, run: Any) -> None:
        ((file, _),) = gateway.upload_all(user, [100], "failed")
        gateway.storage.objects[gateway.replicas(file)["local"]] = bytes(100)
        made = run("start", "--from", "local", "--to", "main")[1].split()[0]
        gateway.turn_until_done()
        text = run("status", made)[1]
        assert "failed   1 blobs, 100 B: 1 SOURCE_CORRUPT" in text
        assert "copy: SOURCE_CORRUPT: part 1 on local is not what was uploaded" in text
        gateway.storage.objects.clear()

    @pytest.mark.parametrize(
        ("words", "code", "says"),
        [
            (("start", "--from", "local", "--to", "away"), 1, "There is no storage 'away'"),
            (("start", "--from", "local", "--to", "main", "--keep-for", "1h"), 2, "--delete-source"),
            (("status", "xyz"), 1, "TRANSFER_NOT_FOUND"),
            (("pause", NOBODY), 1, "TRANSFER_NOT_FOUND"),
        ],
    )
    def test_what_cannot_be_is_said(self, run: Any, words: tuple[str, ...], code: int, says: str) -> None:
        found = run(*words)
        assert found[0] == code
        assert says in found[1]
