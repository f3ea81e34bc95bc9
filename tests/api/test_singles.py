"""Small uploads whose object is one PUT: one by one, and many per call. Their remains are deleted in time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import falcon.testing
import pytest

from api.core.config import load
from api.core.errors import StorageUnavailable
from api.core.models import SINGLE_PUT
from api.storage.memory import MemoryStorage
from tests.api.conftest import Content, Gateway, User, Watch, error, fresh_database, settings, together
from tests.conftest import Servers

MIB = 1024**2


def storage_of(most: int = 8 * MIB) -> MemoryStorage:
    return MemoryStorage(enforces_sha256=True, compares=False, single_put_max=most)


@pytest.fixture
def make(environ: dict[str, str]) -> Iterator[Callable[..., Gateway]]:
    made: list[Gateway] = []

    def compose(**more: object) -> Gateway:
        made.append(Gateway(replace(load(environ), **more), storage_of()))  # type: ignore[arg-type]
        return made[-1]

    yield compose
    for gateway in made:
        gateway.db.close()


@pytest.fixture
def gateway(make: Callable[..., Gateway]) -> Gateway:
    return make()


def new(size: int = 100) -> Content:
    return Content(os.urandom(size))


def body(content: Content, name: str = "a", **more: Any) -> dict[str, Any]:
    return {"name": name, "size": content.size, "digest": content.digest, "parts": content.hashes()} | more


def key_of(gateway: Gateway, upload_id: str) -> str:
    ((key,),) = gateway.rows("SELECT object_key FROM upload WHERE id = UNHEX(%s)", upload_id)
    return str(key)


def put(gateway: Gateway, upload_id: str, content: Content) -> str:
    """Stores the only part, as the edge does. Returns the object's key."""
    key = key_of(gateway, upload_id)
    gateway.storage.objects.setdefault(key, content.data)
    return key


def begin(user: User, contents: Sequence[Content], **more: Any) -> list[dict[str, Any]]:
    """Creates several new uploads in one call. Returns them."""
    answer = user.post(
        "/uploads/batch", {"uploads": [body(content, f"n{i}") | more for i, content in enumerate(contents)]}
    )
    assert answer.status_code == 200, answer.text
    items = answer.json["items"]
    assert [item["status"] for item in items] == [201] * len(contents), items
    return [item["upload"] for item in items]


def end(user: User, ids: Sequence[str]) -> list[dict[str, Any]]:
    answer = user.post("/uploads/batch/complete", {"ids": ids})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json["items"]
    assert len(items) == len(ids)
    return items


def upload(gateway: Gateway, user: User, content: Content) -> None:
    """A whole upload."""
    upload_id = begin(user, [content])[0]["id"]
    put(gateway, upload_id, content)
    assert end(user, [upload_id])[0]["upload"]["state"] == "done"


def statements(gateway: Gateway, call: Callable[[], falcon.testing.Result]) -> int:
    gateway.statements.clear()
    assert call().status_code in (200, 201)
    return len(gateway.statements)


def test_one_is_a_file_by_two_calls_and_a_put(gateway: Gateway, user: User) -> None:
    content = new()
    answer = user.post("/uploads", body(content))
    assert answer.status_code == 201
    upload = answer.json
    assert (upload["state"], upload["received"], upload["missing"]) == ("uploading", [], [[1, 1]])
    assert list(upload["parts"]) == ["1"]
    assert gateway.storage.uploads == {}  # nothing was opened
    key = put(gateway, upload["id"], content)
    done = user.complete(upload)
    assert (done.status_code, done.json["state"]) == (200, "done")
    assert (done.json["received"], done.json["percent"]) == ([[1, 1]], 100.0)
    file = done.json["file"]
    assert (file["digest"], file["state"], file["name"]) == (content.digest, "ready", "a")
    assert user.get(f"/files/{file['id']}").json == file
    assert user.get(f"/uploads/{upload['id']}").json == done.json
    ((scope, hashes, stored),) = gateway.rows(
        "SELECT d.scope, p.hashes, r.object_key FROM file f JOIN blob_digest d ON d.blob_id = f.blob_id "
        "JOIN blob_parts p ON p.blob_id = f.blob_id JOIN replica r ON r.blob_id = f.blob_id WHERE f.id = UNHEX(%s)",
        file["id"],
    )
    assert (scope, hashes, stored) == (bytes(16), hashlib.sha256(content.data).digest(), key)


@pytest.mark.parametrize("count", [1, 20])
def test_statements_do_not_grow_with_their_number(gateway: Gateway, user: User, count: int) -> None:
    upload(gateway, gateway.user(), new())  # the deployment's id is read once
    contents = [new() for _ in range(count)]
    bodies = {"uploads": [body(content) for content in contents]}
    assert statements(gateway, lambda: user.post("/uploads/batch", bodies)) <= 7
    ids = [upload["id"] for upload in user.get("/uploads").json["items"]]
    for upload_id in ids:
        assert gateway.rows("SELECT multipart_id FROM upload WHERE id = UNHEX(%s)", upload_id) == ((SINGLE_PUT,),)
        gateway.storage.objects[key_of(gateway, upload_id)] = b"x" * 100
    assert statements(gateway, lambda: user.post("/uploads/batch/complete", {"ids": ids})) <= 9
    assert len(user.get("/files").json["items"]) == count


class TestEachHasItsOwnAnswer:
    def test_at_their_beginning(self, gateway: Gateway, user: User) -> None:
        own, others, large, plain = new(), new(), new(9 * MIB), new()
        upload(gateway, user, own)
        upload(gateway, gateway.user(), others)
        again = body(plain, "same")
        answer = user.post("/uploads/batch", {"uploads": [
            body(new()),
            body(new(), name="a/b\0"),
            body(new(), digest="x"),
            body(new(), parts={"2": "0" * 64}),
            body(new(), size=-1),
            body(new(), folder_id="0" * 32),
            body(own),
            body(others),
            {"name": "large", "size": large.size, "digest": large.digest},
            {"name": "empty", "size": 0},
            again,
            again,
            {"name": "without parts", "size": 5},
        ]})  # fmt: skip
        assert answer.status_code == 200
        items = answer.json["items"]
        codes = [item.get("error", {}).get("code") or item["upload"]["state"] for item in items]
        assert codes == [
            "uploading", "NAME_INVALID", "DIGEST_INVALID", "PART_NUMBER_INVALID", "SIZE_INVALID", "FOLDER_NOT_FOUND",
            "done", "uploading", "proving", "done", "uploading", "uploading", "uploading",
        ]  # fmt: skip
        assert [item["status"] for item in items] == [201, 400, 400, 400, 400, 404, *[201] * 5, 200, 201]
        assert items[10]["upload"]["id"] == items[11]["upload"]["id"]
        assert all(len(item["error"]["request_id"]) >= 16 for item in items if "error" in item)

    def test_at_their_end(self, gateway: Gateway, user: User) -> None:
        contents = [new() for _ in range(4)]
        ids = [upload["id"] for upload in begin(user, contents)]
        strangers = begin(gateway.user(), [new()])[0]["id"]
        for place in (0, 2):
            put(gateway, ids[place], contents[place])
        user.call("DELETE", f"/uploads/{ids[3]}")
        items = end(user, [*ids, strangers, ids[0]])
        assert [item["status"] for item in items] == [200, 409, 200, 409, 404, 200]
        assert items[1]["error"]["code"] == "PARTS_MISSING"
        assert items[1]["error"]["missing"] == [[1, 1]]
        assert items[3]["error"]["code"] == "UPLOAD_NOT_OPEN"
        assert items[4]["error"]["code"] == "UPLOAD_NOT_FOUND"
        assert items[5]["upload"]["file"] == items[0]["upload"]["file"]
        put(gateway, ids[1], contents[1])
        assert end(user, ids[:3])[1]["upload"]["state"] == "done"

    @pytest.mark.parametrize("call", ["/uploads/batch", "/uploads/batch/complete"])
    @pytest.mark.parametrize("count", [0, 51])
    def test_but_not_for_more_than_the_limit(self, user: User, call: str, count: int) -> None:
        given = {"uploads": [body(new())] * count} if call == "/uploads/batch" else {"ids": ["0" * 32] * count}
        error(user.post(call, given), 400, "BODY_INVALID")

    def test_and_none_for_an_invalid_id(self, user: User) -> None:
        error(user.post("/uploads/batch/complete", {"ids": ["x"]}), 404, "UPLOAD_NOT_FOUND")

    def test_and_a_storage_that_is_away_spares_the_others(
        self, gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        contents = [new(), new()]
        ids = [upload["id"] for upload in begin(user, contents)]
        keys = [put(gateway, *pair) for pair in zip(ids, contents, strict=True)]
        real = gateway.storage.complete

        def complete(ref: Any, *rest: Any) -> Any:
            if ref.object_key == keys[0]:
                raise StorageUnavailable("away")
            return real(ref, *rest)

        monkeypatch.setattr(gateway.storage, "complete", complete)
        items = end(user, ids)
        assert (items[0]["status"], items[0]["error"]["code"]) == (503, "STORAGE_UNAVAILABLE")
        assert items[1]["upload"]["state"] == "done"
        monkeypatch.undo()
        gateway.clock.turn(60)
        gateway.work("finalize")
        assert end(user, ids)[0]["upload"]["state"] == "done"


class TestLimits:
    def test_of_unfinished_uploads_hold(self, make: Callable[..., Gateway]) -> None:
        user = make(user_uploads=5).user()
        answer = user.post("/uploads/batch", {"uploads": [body(new(), f"{n}") for n in range(8)]}).json["items"]
        assert [item["status"] for item in answer] == [201] * 5 + [429] * 3
        assert answer[7]["error"]["code"] == "UPLOADS_LIMITED"

    def test_of_parts_hold(self, make: Callable[..., Gateway]) -> None:
        user = make(user_parts=3).user()
        answer = user.post("/uploads/batch", {"uploads": [body(new(), f"{n}") for n in range(5)]}).json["items"]
        assert [item.get("error", {}).get("code") for item in answer] == [None, None, None, *["PARTS_LIMITED"] * 2]

    def test_of_many_concurrent_calls_hold(self, make: Callable[..., Gateway]) -> None:
        gateway = make(user_uploads=20)
        user = gateway.user()
        calls = [lambda: user.post("/uploads/batch", {"uploads": [body(new()) for _ in range(6)]}) for _ in range(6)]
        statuses = [item["status"] for answer in together(*calls) for item in answer.json["items"]]
        assert (statuses.count(201), statuses.count(429)) == (20, 16)


class TestResuming:
    def test_what_is_there_is_received(self, gateway: Gateway, user: User) -> None:
        content = new()
        upload = user.post("/uploads", body(content)).json
        again = user.post("/uploads", body(content))
        assert (again.status_code, list(again.json["parts"])) == (200, ["1"])
        put(gateway, upload["id"], content)
        gateway.clock.turn(10)
        again = user.post("/uploads", body(content))
        assert (again.status_code, again.json["id"]) == (200, upload["id"])
        assert (again.json["received"], again.json["parts"]) == ([[1, 1]], {})
        parts = user.post(f"/uploads/{upload['id']}/parts", {"parts": content.hashes()})
        assert parts.json == {"parts": {}}
        assert user.get(f"/uploads/{upload['id']}").json["percent"] == 100.0
        assert user.complete(upload).json["state"] == "done"

    def test_another_hash_is_a_conflict(self, user: User) -> None:
        content = new()
        upload = user.post("/uploads", body(content)).json
        answer = user.post(f"/uploads/{upload['id']}/parts", {"parts": {"1": "0" * 64}})
        error(answer, 409, "PART_HASH_CONFLICT")

    def test_without_a_digest_it_goes_as_well(self, gateway: Gateway, user: User) -> None:
        content = new()
        upload = user.post("/uploads", {"name": "a", "size": content.size}).json
        assert list(user.post(f"/uploads/{upload['id']}/parts", {"parts": content.hashes()}).json["parts"]) == ["1"]
        put(gateway, upload["id"], content)
        assert user.complete(upload).json["file"]["digest"] == content.digest

    def test_with_its_part_alone_an_unfinished_one_is_not_found_again(self, gateway: Gateway, user: User) -> None:
        content = new()
        given = {"name": "a", "size": content.size, "parts": content.hashes()}
        items = user.post("/uploads/batch", {"uploads": [given, given]}).json["items"]
        assert [item["status"] for item in items] == [201, 201]
        for item in items:
            put(gateway, item["upload"]["id"], content)
        ends = end(user, [item["upload"]["id"] for item in items])
        assert [item["upload"]["file"]["digest"] for item in ends] == [content.digest] * 2
        again = user.post("/uploads", given)
        assert (again.status_code, again.json["state"]) == (201, "done"), "the user has this content now"

    def test_a_digest_that_is_not_of_its_part_fails(self, gateway: Gateway, user: User) -> None:
        content = new()
        upload = user.post("/uploads", body(content, digest="ab" * 32)).json
        key = put(gateway, upload["id"], content)
        error(user.complete(upload), 422, "DIGEST_MISMATCH")
        assert key not in gateway.storage.objects


@pytest.mark.parametrize("named", [True, False], ids=["digest", "part alone"])
def test_no_user_learns_that_others_have_the_content(gateway: Gateway, user: User, named: bool) -> None:
    others = new()
    upload(gateway, gateway.user(), others)
    answers, ran = [], []
    for content in (others, new()):
        given = {**body(content), "digest": content.digest if named else None}
        gateway.statements.clear()
        made = user.post("/uploads", given)
        assert made.status_code == 201
        ran.append([sql for sql, _ in gateway.statements])
        assert made.json["digest"] == content.digest
        answers.append({name for name, value in made.json.items() if value is not None})
    assert answers[0] == answers[1]
    assert ran[0] == ran[1]  # equal work, and so equal time


class TestRaces:
    def test_an_abort_after_the_look(self, gateway: Gateway, user: User) -> None:
        contents = [new(), new()]
        ids = [upload["id"] for upload in begin(user, contents)]
        keys = [put(gateway, *pair) for pair in zip(ids, contents, strict=True)]
        gateway.statements = Watch(
            "UPDATE upload SET state = 'done'", lambda: user.call("DELETE", f"/uploads/{ids[0]}")
        )
        watch(gateway)
        items = end(user, ids)
        assert [item["status"] for item in items] == [409, 200]
        assert keys[0] not in gateway.storage.objects
        assert len(user.get("/files").json["items"]) == 1

    def test_the_same_content_twice_concurrently(self, gateway: Gateway) -> None:
        content, users = new(), [gateway.user() for _ in range(4)]
        uploads = [begin(user, [content])[0] for user in users]
        for upload in uploads:
            put(gateway, upload["id"], content)
        answers = together(*[lambda u=u, i=i: end(u, [i["id"]]) for u, i in zip(users, uploads, strict=True)])
        assert [items[0]["upload"]["state"] for items in answers] == ["done"] * 4
        blobs = gateway.rows("SELECT id FROM `blob` WHERE digest = UNHEX(%s)", content.digest)
        assert len(blobs) == 1
        doomed = [
            gateway.rows("SELECT keep_until FROM doomed WHERE object_key = %s", key_of(gateway, u["id"]))
            for u in uploads
        ]
        assert sum(map(len, doomed)) == 3
        for rows in filter(None, doomed):
            # until its URLs have expired, a deleted object might be stored again
            assert rows[0][0] is not None

    def test_concurrent_completes_make_one_file(self, gateway: Gateway, user: User) -> None:
        content = new()
        upload = begin(user, [content])[0]
        put(gateway, upload["id"], content)
        answers = together(*[lambda: user.complete(upload)] * 6)
        assert len({answer.json["file"]["id"] for answer in answers}) == 1
        assert len(user.get("/files").json["items"]) == 1


def watch(gateway: Gateway) -> None:
    """Records the statements in a list of the test."""
    gateway.db._observe = lambda sql, args: gateway.statements.append((sql, args))


@pytest.fixture
def swept(servers: Servers, environ: dict[str, str], tmp_path: Any) -> Iterator[Gateway]:
    """A separate database: a sweep covers all of it."""
    gateway = Gateway(load(settings(fresh_database(servers), servers, tmp_path)), storage_of())
    gateway.storage._prefix = lambda: str(gateway.rows("SELECT value FROM deployment WHERE name = 'id'")[0][0])
    yield gateway
    gateway.db.close()


class TestWhatIsLeft:
    """A late PUT brings an object back. No row will ever name it, and the sweep deletes it."""

    @pytest.mark.parametrize("how", ["aborted", "expired", "failed"])
    def test_of_one_that_failed_is_deleted_when_its_urls_are_dead(self, swept: Gateway, how: str) -> None:
        user, content = swept.user(), new()
        upload = user.post("/uploads", body(content, **({"digest": "ab" * 32} if how == "failed" else {}))).json
        key = put(swept, upload["id"], content)
        if how == "aborted":
            user.call("DELETE", f"/uploads/{upload['id']}")
            assert key not in swept.storage.objects
        elif how == "failed":
            error(user.complete(upload), 422, "DIGEST_MISMATCH")
            assert key not in swept.storage.objects
        else:
            swept.clock.turn(swept.config.upload_ttl + 1)
            swept.services.sweep.run()
        put(swept, upload["id"], content)  # the token is still valid
        swept.services.sweep.run()
        assert key in swept.storage.objects
        swept.clock.turn(swept.config.part_url_ttl + 301)
        counts = swept.services.sweep.run()
        assert counts["objects_freed"] == 1
        assert key not in swept.storage.objects
        assert "objects_freed" not in swept.services.sweep.run()
        assert swept.rows("SELECT parts_kept FROM upload WHERE id = UNHEX(%s)", upload["id"]) == ((0,),)

    def test_that_comes_later_still_goes_after_the_next_list(self, swept: Gateway) -> None:
        """A body may take hours, after the storage has begun to receive it."""
        user, contents = swept.user(), [new() for _ in range(12)]
        ids = [upload["id"] for upload in begin(user, contents)]
        for upload_id in ids:
            user.call("DELETE", f"/uploads/{upload_id}")
        swept.clock.turn(swept.config.part_url_ttl + 301)
        assert swept.services.sweep.run()["objects_freed"] == 12
        keys = {put(swept, *pair) for pair in zip(ids, contents, strict=True)}
        swept.services.sweep.run()
        assert keys <= swept.storage.objects.keys()
        swept.clock.turn(swept.config.sweep_list_interval + 1)
        swept.services.sweep.run()
        assert not keys & swept.storage.objects.keys()

    def test_waits_for_its_storage(self, swept: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
        user, contents = swept.user(), [new(), new()]
        ids = [upload["id"] for upload in begin(user, contents)]
        for upload_id in ids:
            user.call("DELETE", f"/uploads/{upload_id}")
        keys = [put(swept, *pair) for pair in zip(ids, contents, strict=True)]
        swept.clock.turn(swept.config.part_url_ttl + 301)

        def away(ref: Any) -> None:
            raise StorageUnavailable("away")

        with monkeypatch.context() as patch:
            patch.setattr(swept.storage, "abort", away)
            assert "objects_freed" not in swept.services.sweep.run()
        assert set(keys) <= swept.storage.objects.keys()
        assert swept.services.sweep.run()["objects_freed"] == 2

    def test_of_one_that_is_done_stays(self, swept: Gateway) -> None:
        user, content = swept.user(), new()
        upload = begin(user, [content])[0]
        key = put(swept, upload["id"], content)
        # another client has opened a multipart upload with this key
        swept.storage.uploads[upload["id"]] = {}
        assert end(user, [upload["id"]])[0]["upload"]["state"] == "done"
        for _ in range(3):
            swept.clock.turn(swept.config.part_url_ttl + 301)
            swept.services.sweep.run()
        assert key in swept.storage.objects

    def test_of_one_whose_file_is_gone_is_an_orphan(self, swept: Gateway) -> None:
        """The key of a deleted file is stored again: after the upload's row is deleted, no row names it."""
        user, content = swept.user(), new()
        upload = begin(user, [content])[0]
        key = put(swept, upload["id"], content)
        file = end(user, [upload["id"]])[0]["upload"]["file"]
        assert user.call("DELETE", f"/files/{file['id']}").status_code == 204
        for _ in range(4):
            swept.clock.turn(swept.config.trash_days * 86_400 + 1)
            swept.services.sweep.run()
        assert key not in swept.storage.objects
        swept.storage.objects[key] = content.data
        for _ in range(12):
            swept.clock.turn(100_000)
            swept.services.sweep.run()
        assert key not in swept.storage.objects
