"""The number of statements of each call, BEGIN and COMMIT included; loadtest/results lists the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import falcon.testing
import pytest

from tests.api.conftest import EDGE_KEY, Content, Gateway, User

EMPTY = Content(b"")
Call = Callable[[Gateway, User], Callable[[], falcon.testing.Result]]


def create(content: Content, **more: Any) -> Call:
    def prepare(gateway: Gateway, user: User) -> Callable[[], falcon.testing.Result]:
        return lambda: user.post("/uploads", {"name": "a", "size": content.size} | more)

    return prepare


def found_again(gateway: Gateway, user: User) -> Callable[[], falcon.testing.Result]:
    body = {"name": "a", "size": 2**30, "digest": "a" * 64}
    user.post("/uploads", body)
    return lambda: user.post("/uploads", body)


def ones_own(gateway: Gateway, user: User) -> Callable[[], falcon.testing.Result]:
    content = Content(b"statements of one's own")
    user.upload(content)
    return lambda: user.post("/uploads", {"name": "b", "size": content.size, "digest": content.digest})


def sign(count: int, proving: bool = False) -> Call:
    def prepare(gateway: Gateway, user: User) -> Callable[[], falcon.testing.Result]:
        more = {"digest": "a" * 64} if proving else {}
        upload = user.post("/uploads", {"name": "a", "size": count * 8 * 1024**2} | more).json
        parts = {"parts": {str(n): "0" * 64 for n in range(1, count + 1)}}
        return lambda: user.post(f"/uploads/{upload['id']}/parts", parts)

    return prepare


def complete(count: int, known: bool = False, again: bool = False) -> Call:
    def prepare(gateway: Gateway, user: User) -> Callable[[], falcon.testing.Result]:
        content = Content.of_parts(count, f"statements {count} {known} {again}")
        if known:
            gateway.user().upload(content)
        upload = user.create(content)
        user.put(upload, content)
        if again:
            user.complete(upload)
        return lambda: user.complete(upload)

    return prepare


def prove(right: bool) -> Call:
    def prepare(gateway: Gateway, user: User) -> Callable[[], falcon.testing.Result]:
        content = Content.of_parts(2, f"statements proof {right}")
        gateway.user().upload(content)
        upload = user.create(content, digest=content.digest)
        body = content.prove(upload["challenge"]) | ({} if right else {"proof": "0" * 64})
        return lambda: user.post(f"/uploads/{upload['id']}/proof", body)

    return prepare


def look(path: str, method: str = "GET", **options: Any) -> Call:
    def prepare(gateway: Gateway, user: User) -> Callable[[], falcon.testing.Result]:
        upload = user.create(Content(b"statements"), "b")
        file = user.create(EMPTY)["file"]
        gateway.clock.turn(10)
        return lambda: user.call(method, path.format(upload=upload["id"], file=file["id"]), **options)

    return prepare


def public(path: str, body: dict[str, Any]) -> Call:
    def prepare(gateway: Gateway, user: User) -> Callable[[], falcon.testing.Result]:
        known = {"username": user.name, "refresh_token": user.session["refresh_token"]}
        filled = {key: known.get(value, value) for key, value in body.items()}
        return lambda: gateway.http.simulate_post(f"/api/v1{path}", json=filled)

    return prepare


def edge(path: str) -> Call:
    def prepare(gateway: Gateway, user: User) -> Callable[[], falcon.testing.Result]:
        file = user.upload(Content(b"statements for the edge"))["id"]
        return lambda: gateway.http.simulate_get(path.format(file=file), headers={"X-Sluice-Edge": EDGE_KEY})

    return prepare


CALLS: dict[str, tuple[Call, int, int]] = {
    # the calls: (function, status, maximum of statements)
    "create, one part": (create(Content(b"x")), 201, 5),
    "create, to be proven": (create(EMPTY, size=2**30, digest="a" * 64), 201, 6),
    "create, the empty file": (create(EMPTY), 201, 6),
    "create, content that the user has": (ones_own, 201, 6),
    "create, found again": (found_again, 200, 3),
    "create with its parts": (create(Content(b"x"), parts={"1": "0" * 64}), 201, 8),
    "parts, one": (sign(1), 200, 3),
    "parts, 1,000 at once": (sign(1000), 200, 3),
    "parts, 1,000 instead of a proof": (sign(1000, proving=True), 200, 4),
    "complete, one part": (complete(1), 200, 10),
    "complete, five parts": (complete(5), 200, 10),
    "complete, merged with what was there": (complete(2, known=True), 200, 11),
    "complete, repeated": (complete(1, again=True), 200, 2),
    "proof, right": (prove(True), 200, 9),
    "proof, wrong": (prove(False), 200, 5),
    "look at an upload": (look("/uploads/{upload}"), 200, 2),
    "list uploads": (look("/uploads"), 200, 1),
    "abort": (look("/uploads/{upload}", "DELETE"), 200, 3),
    "list files": (look("/files"), 200, 1),
    "look at a file": (look("/files/{file}"), 200, 1),
    "rename": (look("/files/{file}", "PATCH", json={"name": "c"}), 200, 3),
    "trash": (look("/files/{file}", "DELETE"), 204, 5),
    "restore": (look("/files/{file}/restore", "POST"), 200, 2),
    "link": (look("/files/{file}/links", "POST"), 201, 1),
    "content": (look("/files/{file}/content"), 200, 1),
    "sign in": (public("/sessions", {"username": "username", "password": User.password}), 201, 3),
    "refresh": (public("/sessions/refresh", {"refresh_token": "refresh_token"}), 200, 3),
    "sign out": (look("/sessions/current", "DELETE"), 204, 5),
    "revocation feed": (edge("/internal/revocations"), 200, 1),
    "target, for a link that the edge sees for the first time": (edge("/internal/targets/{file}"), 200, 1),
}


@pytest.mark.parametrize(("call", "status", "most"), CALLS.values(), ids=CALLS.keys())
def test_a_call_costs_at_most_its_number_of_statements(
    gateway: Gateway, user: User, call: Call, status: int, most: int
) -> None:
    gateway.user().create(EMPTY)  # process and database have read what they read only once
    run = call(gateway, user)
    gateway.statements.clear()
    answer = run()
    assert answer.status_code == status, answer.text
    listed = [sql for sql, _ in gateway.statements]
    assert 1 <= len(listed) <= most, "\n".join(listed)


def test_statements_do_not_grow_with_parts(gateway: Gateway, user: User) -> None:
    def cost(count: int) -> int:
        run = complete(count)(gateway, user)
        gateway.statements.clear()
        run()
        return len(gateway.statements)

    cost(1)
    assert cost(2) == cost(6)


def test_the_record_holds_transactions_too(gateway: Gateway) -> None:
    gateway.statements.clear()
    gateway.db.transaction(lambda tx: tx.one("SELECT 1"))
    assert [sql for sql, _ in gateway.statements] == ["BEGIN", "SELECT 1", "COMMIT"]
