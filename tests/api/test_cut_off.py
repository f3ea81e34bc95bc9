"""The database connection is lost at each statement of each call, before it ran and before its result arrived."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import falcon.testing
import pytest

from api.core.errors import PartMismatch
from tests.api.conftest import Content, Gateway, User, error, fresh_database
from tests.api.cutting import Proxy, proxy
from tests.api.outcomes import consistent, count, finish
from tests.conftest import Servers

Run = Callable[[], falcon.testing.Result]
Case = tuple[Run, Callable[[falcon.testing.Result], None]]
"""A call, and the conditions after its repeat."""


class Cases:
    """Every call that changes data. Each method prepares one, and returns the conditions after its repeat."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.user = gateway.user()

    def content(self, parts: int = 0) -> Content:
        name = f"fault {self.user.name}"
        return Content.of_parts(parts, name) if parts else Content(name.encode())

    def put(self, content: Content, user: User | None = None) -> dict[str, Any]:
        user = user or self.user
        upload = user.create(content, resume_key="k")
        user.put(upload, content)
        return upload

    def sign_up(self) -> Case:
        body = {"username": f"new-{self.user.name}", "password": "password"}
        return self.public("/users", body), lambda answer: self.signed_in(body, answer, 201, 409)

    def sign_in(self) -> Case:
        body = {"username": self.user.name, "password": self.user.password}
        return self.public("/sessions", body), lambda answer: self.signed_in(body, answer, 201)

    def refresh(self) -> Case:
        # If the response of a rotation is lost, the old token counts as used, so its holder must sign in again.
        run = self.public("/sessions/refresh", {"refresh_token": self.user.session["refresh_token"]})
        body = {"username": self.user.name, "password": self.user.password}
        return run, lambda answer: self.signed_in(body, answer, 200, 401)

    def sign_out(self) -> Case:
        def ended(answer: falcon.testing.Result) -> None:
            assert answer.status_code == 204
            sql = "session s JOIN revocation r ON r.subject = s.id WHERE s.user_id = UNHEX(%s) AND ended_at IS NOT NULL"
            assert count(self.gateway, sql, self.user.id) == 1

        return lambda: self.user.call("DELETE", "/sessions/current"), ended

    def change_password(self) -> Case:
        body = {"current_password": self.user.password, "password": "another password"}
        known = {"username": self.user.name, "password": "another password"}
        return (
            lambda: self.user.call("PATCH", "/users/me", json=body),
            lambda answer: self.signed_in(known, answer, 200, 403),  # 403: the password has already changed
        )

    def public(self, path: str, body: dict[str, Any]) -> Run:
        return lambda: self.gateway.http.simulate_post(f"/api/v1{path}", json=body)

    def signed_in(self, body: dict[str, Any], answer: falcon.testing.Result, *statuses: int) -> None:
        assert answer.status_code in statuses, answer.text
        assert self.public("/sessions", body)().status_code == 201
        assert count(self.gateway, "user WHERE username = %s", body["username"]) == 1

    def create(self) -> Case:
        content = self.content(2)

        def one(answer: falcon.testing.Result) -> None:
            assert answer.status_code in (200, 201)
            assert count(self.gateway, "upload WHERE user_id = UNHEX(%s)", self.user.id) == 1
            self.user.put(answer.json, content)
            assert self.user.complete(answer.json).json["state"] == "done"

        return lambda: self.user.post("/uploads", {"name": "a", "size": content.size, "digest": content.digest}), one

    def parts(self) -> Case:
        content = self.content(3)
        upload = self.user.create(content, digest=content.digest)

        def written(answer: falcon.testing.Result) -> None:
            assert answer.status_code == 200
            assert len(answer.json["parts"]) == 3
            assert count(self.gateway, "upload_part WHERE upload_id = UNHEX(%s)", upload["id"]) == 3
            self.user.put(upload, content)
            assert self.user.complete(upload).json["state"] == "done"

        return lambda: self.user.post(f"/uploads/{upload['id']}/parts", {"parts": content.hashes()}), written

    def proof(self) -> Case:
        content, other = self.content(2), self.gateway.user()
        other.upload(content)
        upload = self.user.create(content, digest=content.digest)

        def goes_on(answer: falcon.testing.Result) -> None:
            assert answer.status_code in (200, 409), answer.text
            if self.user.get(f"/uploads/{upload['id']}").json["state"] == "uploading":  # the challenge was consumed
                self.user.put(upload, content)
                assert self.user.complete(upload).json["state"] == "done"
            consistent(self.gateway, content, 2)

        body = content.prove(upload["challenge"])
        return lambda: self.user.post(f"/uploads/{upload['id']}/proof", body), goes_on

    def complete(self) -> Case:
        content = self.content()
        upload = self.put(content)

        def done(answer: falcon.testing.Result) -> None:
            assert answer.status_code in (200, 202), answer.text
            assert finish(self.gateway, self.user, upload)["state"] == "done"
            consistent(self.gateway, content, 1)

        return lambda: self.user.complete(upload), done

    def complete_merged(self, heal: bool = False) -> Case:
        content, other = self.content(), self.gateway.user()
        other.upload(content)
        upload = self.put(content)
        if heal:
            self.gateway.storage.objects.clear()

        def done(answer: falcon.testing.Result) -> None:
            assert answer.status_code in (200, 202), answer.text
            assert finish(self.gateway, self.user, upload)["state"] == "done"
            consistent(self.gateway, content, 2)
            ((key,),) = self.gateway.rows(
                "SELECT object_key FROM replica r JOIN `blob` b ON b.id = r.blob_id WHERE digest = UNHEX(%s)",
                content.digest,
            )
            assert self.gateway.storage.objects[key] == content.data
            assert count(self.gateway, "doomed WHERE object_key = %s", key) == 0

        return lambda: self.user.complete(upload), done

    def complete_healing(self) -> Case:
        return self.complete_merged(heal=True)

    def complete_believed_wrongly(self) -> Case:
        """Every ETag is given, and a part is missing: a worker that finishes the upload also notices that."""
        content = self.content(2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.gateway.storage, "_enforces", True)
            upload = self.user.create(content)
        self.user.put(upload, content)
        del self.gateway.storage.uploads[upload["id"]][2]

        def open_again(answer: falcon.testing.Result) -> None:
            assert answer.status_code in (202, 409), answer.text
            assert finish(self.gateway, self.user, upload)["missing"] == [[2, 2]]
            self.user.put(upload, content)
            assert self.user.complete(upload).json["state"] == "done"
            consistent(self.gateway, content, 1)

        etags = {"etags": {"1": "a", "2": "b"}}
        return lambda: self.user.post(f"/uploads/{upload['id']}/complete", etags), open_again

    def complete_with_a_wrong_part(self) -> Case:
        content = self.content(2)
        upload = self.put(content)
        self.gateway.storage.uploads[upload["id"]][2] = b"x" * len(content.part(2))

        def open_again(answer: falcon.testing.Result) -> None:
            assert answer.status_code in (202, 409, 422), answer.text
            with contextlib.suppress(PartMismatch):
                finish(self.gateway, self.user, upload)
            assert self.user.get(f"/uploads/{upload['id']}").json["missing"] == [[2, 2]]
            self.user.put(upload, content)
            assert self.user.complete(upload).json["state"] == "done"
            consistent(self.gateway, content, 1)

        return lambda: self.user.complete(upload), open_again

    def abort(self) -> Case:
        upload = self.put(self.content())

        def aborted(answer: falcon.testing.Result) -> None:
            assert (answer.status_code, answer.json["state"]) == (200, "aborted")
            self.gateway.services.sweep.run()
            assert upload["id"] not in self.gateway.storage.uploads
            assert count(self.gateway, "upload_part WHERE upload_id = UNHEX(%s)", upload["id"]) == 0

        return lambda: self.user.call("DELETE", f"/uploads/{upload['id']}"), aborted

    def trash(self) -> Case:
        file = self.user.upload(self.content())

        def trashed(answer: falcon.testing.Result) -> None:
            assert answer.status_code == 204
            assert count(self.gateway, "revocation WHERE subject = UNHEX(%s)", self.user.id) == 1

        return lambda: self.user.call("DELETE", f"/files/{file['id']}"), trashed

    def restore(self) -> Case:
        file = self.user.upload(self.content())
        self.user.call("DELETE", f"/files/{file['id']}")

        def live(answer: falcon.testing.Result) -> None:
            assert answer.json["trashed_at"] is None

        return lambda: self.user.post(f"/files/{file['id']}/restore"), live

    def rename(self) -> Case:
        file = self.user.upload(self.content())

        def renamed(answer: falcon.testing.Result) -> None:
            assert answer.json["name"] == "b"

        return lambda: self.user.call("PATCH", f"/files/{file['id']}", json={"name": "b"}), renamed


CASES = [name for name, case in vars(Cases).items() if getattr(case, "__annotations__", {}).get("return") == "Case"]


@pytest.fixture(scope="module")
def cut_database(servers: Servers) -> str:
    """A separate database: the sweep and the counts of rows cover all of it."""
    return fresh_database(servers)


@pytest.fixture
def database(cut_database: str) -> Iterator[Proxy]:
    """The proxy before the database."""
    with proxy(re.findall(r"unix_socket=(.*)", cut_database)[0]) as made:
        yield made


@pytest.fixture
def gateway(build: Callable[..., Gateway], cut_database: str, database: Proxy) -> Gateway:
    """The API with this database."""
    made = build(database_url=re.sub(r"unix_socket=.*", f"unix_socket={database.path}", cut_database))
    made.user().create(Content(b"warm"))  # a process reads the deployment's id once
    return made


@pytest.mark.parametrize("name", CASES)
def test_the_repeat_succeeds_and_nothing_is_doubled(gateway: Gateway, database: Proxy, name: str) -> None:
    run, _ = getattr(Cases(gateway), name)()
    gateway.statements.clear()
    assert run().status_code not in (500, 503)
    statements = [sql for sql, _ in gateway.statements]
    assert statements
    for number, sql in enumerate(statements, 1):
        for after in (False,) if sql.startswith(("SELECT", "BEGIN")) else (False, True):
            run, holds = getattr(Cases(gateway), name)()
            database.cut(number, after=after)
            answer = run()
            try:
                assert database.tripped
                error(answer, 503, "DATABASE_UNAVAILABLE")
                error(run(), 503, "DATABASE_UNAVAILABLE")  # still down
                database.restore()
                holds(run())
            except AssertionError as ex:
                where = f"{name}, cut {'after' if after else 'before'} statement {number}: {sql}"
                raise AssertionError(where) from ex


def test_there_is_a_case_for_every_call_that_changes_something() -> None:
    assert len(CASES) == 17
