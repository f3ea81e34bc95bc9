"""The rows that one call reads are bounded by what the call names, however much the account has stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import falcon.testing
import pytest

from api.core.config import load
from tests.api.conftest import Content, Gateway, User, fresh_database, settings
from tests.conftest import Servers

MANY = 40_000
"""Number of rows of each kind that the account has."""
FEW = 400
"""Rows that a call may read, if it names one thing or requests a page of 50."""
SEARCHED = 130_000
"""Rows that a list may read if it searches and sorts 10,000 entries; two pages of it."""
PARTS = 10_000
HASH = "0" * 64

FILL = (
    "INSERT INTO session SELECT {id}, UNHEX('{user}'), {digest}, NOW(6), NOW(6), NOW(6) + INTERVAL 9 DAY, NOW(6) "
    "FROM {seq}",
    "INSERT INTO file (id, user_id, folder_id, name, blob_id, content_type, created_at, updated_at, trashed_at) "
    "SELECT UNHEX(MD5(CONCAT(seq, trashed))), UNHEX('{user}'), REPEAT(CHAR(0), 16), CONCAT('name ', seq), "
    "(SELECT id FROM `blob` LIMIT 1), 'a/b', NOW(6), NOW(6), IF(trashed, NOW(6) - INTERVAL seq SECOND, NULL) "
    "FROM {seq} JOIN (SELECT 0 trashed UNION SELECT 1) both_kinds",
    "INSERT INTO upload (id, user_id, state, name, folder_id, content_type, size, part_size, part_count, storage, "
    "object_key, binds_hash, created_at, updated_at, expires_at) SELECT {id}, UNHEX('{user}'), 'aborted', 'n', "
    "REPEAT(CHAR(0), 16), 'a/b', 1, 8388608, 1, 'local', CONCAT('k', seq), 1, NOW(6), NOW(6), NOW(6) FROM {seq}",
    "INSERT INTO upload_part (upload_id, part_number, sha256) SELECT u.id, seq, {digest} FROM {seq} "
    "JOIN upload u ON u.part_count = 10000",
)


class Rich:
    """An account with many rows of every kind, and an unfinished upload whose parts are recorded and not sent."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.user = gateway.user("rich")
        content = Content(b"on which every file lies")
        self.file, self.digest = self.user.upload(content)["id"], content.digest
        size = PARTS * 8 * 1024**2
        self.upload = self.user.post("/uploads", {"name": "u", "size": size, "resume_key": "u"}).json["id"]
        for sql in FILL:
            text = sql.replace("{id}", "UNHEX(MD5(seq))").replace("{digest}", "UNHEX(SHA2(seq, 256))")
            gateway.db.execute(text.replace("{user}", self.user.id).replace("{seq}", f"seq_1_to_{MANY}"))
        gateway.rows("ANALYZE TABLE file, upload, upload_part, session, user, `blob`")

    def rows_read(self, run: Callable[[], Any]) -> int:
        """Rows that the server read while ``run`` ran. No other client uses the server."""
        counted = (
            "SELECT SUM(variable_value) FROM information_schema.global_status WHERE variable_name LIKE 'HANDLER_READ%%'"
        )
        counted = counted.replace("%%", "%")
        before = self.gateway.rows(counted)[0][0]
        nothing = self.gateway.rows(counted)[0][0] - before
        before = self.gateway.rows(counted)[0][0]
        run()
        return int(self.gateway.rows(counted)[0][0] - before - nothing)


@pytest.fixture(scope="module")
def rich(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rich]:
    made = Gateway(load(settings(fresh_database(servers), servers, tmp_path_factory.mktemp("bounded"))))
    yield Rich(made)
    made.db.close()


def listing(path: str, **params: str) -> Callable[[Rich], falcon.testing.Result]:
    def run(rich: Rich) -> falcon.testing.Result:
        given = {name: rich.digest if value == "{digest}" else value for name, value in params.items()}
        first = rich.user.get(path, limit=50, **given)
        assert first.status_code == 200, first.text
        if cursor := first.json["next_cursor"]:
            return rich.user.get(path, limit=50, cursor=cursor, **given)
        return first

    return run


def call(method: str, path: str, **options: Any) -> Callable[[Rich], falcon.testing.Result]:
    return lambda rich: rich.user.call(method, path.format(file=rich.file, upload=rich.upload), **options)


def complete_in_batch(rich: Rich) -> falcon.testing.Result:
    return rich.user.post("/uploads/batch/complete", {"ids": [rich.upload]})


def change_password(rich: Rich) -> falcon.testing.Result:
    body = {"current_password": User.password, "password": User.password}
    return rich.user.call("PATCH", "/users/me", json=body)


def sign_in(rich: Rich) -> falcon.testing.Result:
    body = {"username": rich.user.name, "password": User.password}
    return rich.gateway.http.simulate_post("/api/v1/sessions", json=body)


CALLS: dict[str, tuple[Callable[[Rich], falcon.testing.Result], int, int]] = {
    # the calls: (function, status, maximum of rows)
    "complete without a byte": (call("POST", "/uploads/{upload}/complete"), 409, FEW),
    "complete in a batch": (complete_in_batch, 200, FEW),
    "sign the first and the last part": (
        call("POST", "/uploads/{upload}/parts", json={"parts": {"1": HASH, str(PARTS): HASH}}),
        409,
        FEW,
    ),
    "create again with the first and the last part": (
        call(
            "POST",
            "/uploads",
            json={
                "name": "u",
                "size": PARTS * 8 * 1024**2,
                "resume_key": "u",
                "parts": {"1": HASH, str(PARTS): HASH},
            },
        ),
        409,
        FEW,
    ),
    "create": (call("POST", "/uploads", json={"name": "new", "size": 1}), 201, FEW),
    "create what is empty": (call("POST", "/uploads", json={"name": "new", "size": 0}), 201, FEW),
    "look at an upload": (call("GET", "/uploads/{upload}"), 200, FEW),
    "list uploads": (listing("/uploads"), 200, FEW),
    "list uploads of a state": (listing("/uploads", state="aborted"), 200, FEW),
    "list files": (listing("/files"), 200, FEW),
    "list files by name": (listing("/files", order="name"), 200, FEW),
    "list the trash": (listing("/files", trashed="true"), 200, FEW),
    "list the trash by name": (listing("/files", trashed="true", order="name"), 200, SEARCHED),
    "list a digest": (listing("/files", digest="{digest}"), 200, SEARCHED),
    "list a digest by name": (listing("/files", digest="{digest}", order="name"), 200, SEARCHED),
    "search": (listing("/files", q="no such name"), 200, SEARCHED),
    "search by name": (listing("/files", q="no such name", order="name"), 200, SEARCHED),
    "search the trash": (listing("/files", q="no such name", trashed="true"), 200, SEARCHED),
    "search a digest": (listing("/files", q="no such name", digest="{digest}"), 200, SEARCHED),
    "look at a file": (call("GET", "/files/{file}"), 200, FEW),
    "trash": (call("DELETE", "/files/{file}"), 204, FEW),
    "restore": (call("POST", "/files/{file}/restore"), 200, FEW),
    "link": (call("POST", "/files/{file}/links"), 201, FEW),
    "content": (call("GET", "/files/{file}/content"), 200, FEW),
    "look at the account": (call("GET", "/users/me"), 200, FEW),
    "sign in": (sign_in, 201, FEW),
    "change the password": (change_password, 200, FEW),
    "abort": (call("DELETE", "/uploads/{upload}"), 200, FEW),
}


@pytest.mark.parametrize(("run", "status", "most"), CALLS.values(), ids=CALLS.keys())
def test_a_call_reads_at_most_its_number_of_rows(
    rich: Rich, run: Callable[[Rich], falcon.testing.Result], status: int, most: int
) -> None:
    answers: list[falcon.testing.Result] = []
    read = rich.rows_read(lambda: answers.append(run(rich)))
    assert answers[0].status_code == status, answers[0].text
    assert read <= most


def test_the_guard_sees_what_is_read(rich: Rich) -> None:
    assert rich.rows_read(lambda: rich.gateway.rows("SELECT COUNT(*) FROM file")) >= 2 * MANY


def test_an_id_that_is_repeated_costs_nothing(rich: Rich) -> None:
    def read(ids: list[str]) -> int:
        return rich.rows_read(lambda: rich.user.post("/uploads/batch/complete", {"ids": ids}))

    upload = rich.user.post("/uploads", {"name": "again", "size": PARTS * 8 * 1024**2}).json["id"]
    assert read([upload] * 50) <= read([upload]) + 50


def test_a_batch_answers_at_each_place(gateway: Gateway, user: User) -> None:
    upload = user.create(Content(b"twice"))
    items = user.post("/uploads/batch/complete", {"ids": [upload["id"]] * 2}).json["items"]
    assert [item["error"]["code"] for item in items] == ["PARTS_MISSING"] * 2
