"""How long one call may use the database."""

from __future__ import annotations

import time

import pytest

from api.core import budget
from api.core.errors import DatabaseTooSlow
from api.db.pool import Database
from tests.api.conftest import Gateway, User, error


def test_the_server_ends_a_statement_that_takes_too_long(database_url: str) -> None:
    db = Database(database_url, 1, statement_seconds=1)
    began = time.monotonic()
    with pytest.raises(DatabaseTooSlow):
        db.all("SELECT SLEEP(20) FROM user UNION SELECT SLEEP(20)")
    assert time.monotonic() - began < 10
    assert db.one("SELECT 1") == (1,), "the connection is still usable"
    with pytest.raises(DatabaseTooSlow):
        db.transaction(lambda tx: tx.execute("INSERT INTO deployment SELECT 'slow', SLEEP(20)"))
    assert db.one("SELECT COUNT(*) FROM deployment WHERE name = 'slow'") == (0,)
    db.close()


def test_others_than_the_api_have_no_such_limit(database_url: str) -> None:
    db = Database(database_url, 1)
    assert db.one("SELECT @@SESSION.max_statement_time") == (0,)
    db.close()


def test_a_call_that_has_had_its_time_begins_no_statement(
    gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "CALL_SECONDS", -1)
    gateway.statements.clear()
    refused = user.get("/files")
    error(refused, 503, "DATABASE_TOO_SLOW")
    assert refused.headers["retry-after"] == "10"
    assert gateway.statements == []
    monkeypatch.undo()
    assert user.get("/files").status_code == 200


def test_a_transaction_is_rolled_back_when_the_time_is_over(
    gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "is_spent", lambda: len(gateway.statements) > 3)
    gateway.statements.clear()
    error(user.post("/uploads", {"name": "a", "size": 0}), 503, "DATABASE_TOO_SLOW")
    monkeypatch.undo()
    assert user.get("/uploads").json["items"] == []
    assert user.get("/files").json["items"] == []
