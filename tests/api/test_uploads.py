"""The upload protocol from create to its end, in its normal use."""

from __future__ import annotations

import hashlib
from functools import partial

import pytest

from api.core.errors import StorageUnavailable
from tests.api.conftest import Content, Gateway, User, Watch, error, together


class TestWhole:
    def test_a_file_of_one_part_is_stored(self, gateway: Gateway, user: User) -> None:
        content = Content(b"hello")
        file = user.upload(content)
        assert (file["size"], file["digest"], file["state"]) == (5, content.digest, "ready")
        assert file["sha256"] == hashlib.sha256(b"hello").hexdigest()
        assert list(gateway.storage.objects.values()) == [b"hello"]

    def test_a_file_of_many_parts_is_stored(self, gateway: Gateway, user: User) -> None:
        content = Content.of_parts(3, "many")
        file = user.upload(content, digest=content.digest)
        assert file["digest"] == content.digest
        assert content.data in gateway.storage.objects.values()

    def test_an_empty_file_is_done_immediately(self, user: User) -> None:
        made = user.create(Content(b""), "empty")
        assert made["state"] == "done"
        assert made["file"]["digest"] == hashlib.sha256(b"").hexdigest()
        assert (made["part_count"], made["missing"], made["percent"]) == (0, [], 100.0)
        again = user.create(Content(b""), "empty too", digest=hashlib.sha256(b"").hexdigest())
        assert again["file"]["id"] != made["file"]["id"]

    def test_concurrent_empty_files_of_many_users_share_one_blob(self, gateway: Gateway) -> None:
        users = [gateway.user() for _ in range(4)]
        made = together(*[lambda u=u: u.create(Content(b"")) for u in users])
        assert {upload["state"] for upload in made} == {"done"}
        assert len(gateway.rows("SELECT id FROM `blob` WHERE size = 0")) == 1

    def test_the_parts_of_create_save_a_call(self, gateway: Gateway, user: User) -> None:
        content = Content(b"in one go")
        upload = user.create(content, parts=content.hashes())
        assert list(upload["parts"]) == ["1"]
        assert upload["parts"]["1"]["method"] == "PUT"
        gateway.storage.uploads[upload["id"]][1] = content.data
        assert user.complete(upload).json["state"] == "done"

    def test_the_largest_size_the_limits_allow_is_taken(self, user: User) -> None:
        upload = user.create(Content(b""), size=5 * 1024**4)
        assert (upload["part_size"], upload["part_count"]) == (1024**3, 5120)
        assert upload["missing"] == [[1, 5120]]
        last = user.post(f"/uploads/{upload['id']}/parts", {"parts": {"5120": "0" * 64}})
        assert list(last.json["parts"]) == ["5120"]

    def test_ten_thousand_parts_are_signed_a_thousand_at_a_time(self, gateway: Gateway, user: User) -> None:
        upload = user.create(Content(b""), size=10_000 * 8 * 1024**2)
        for first in range(1, 10_001, 1000):
            parts = {str(n): f"{n:064x}" for n in range(first, first + 1000)}
            answer = user.post(f"/uploads/{upload['id']}/parts", {"parts": parts})
            assert len(answer.json["parts"]) == 1000
        stored = gateway.rows("SELECT part_number, sha256 FROM upload_part WHERE upload_id = UNHEX(%s)", upload["id"])
        assert {number: int.from_bytes(sha256) for number, sha256 in stored} == {n: n for n in range(1, 10_001)}


class TestProgress:
    def test_progress_is_the_storages_own_answer(self, gateway: Gateway, user: User) -> None:
        content = Content.of_parts(4, "progress")
        upload = user.create(content)
        user.put(upload, content, [1, 3])
        seen = user.get(f"/uploads/{upload['id']}").json
        assert seen["received"] == [[1, 1], [3, 3]]
        assert seen["missing"] == [[2, 2], [4, 4]]
        assert seen["received_bytes"] == 2 * content.part_size
        user.put(upload, content, [4])
        assert user.get(f"/uploads/{upload['id']}").json["received"] == [[1, 1], [3, 3]]  # asked a moment ago
        gateway.clock.turn(6)
        seen = user.get(f"/uploads/{upload['id']}").json
        assert seen["received"] == [[1, 1], [3, 4]]
        assert seen["received_bytes"] == content.size - content.part_size
        assert seen["percent"] == round(100 * seen["received_bytes"] / content.size, 2)

    def test_a_part_of_another_length_was_not_received(self, gateway: Gateway, user: User) -> None:
        content = Content.of_parts(2, "length")
        upload = user.create(content)
        user.put(upload, content)
        gateway.storage.uploads[upload["id"]][1] = b"short"
        assert user.get(f"/uploads/{upload['id']}").json["missing"] == [[1, 1]]

    def test_a_storage_that_does_not_answer_changes_no_earlier_result(
        self, gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = Content.of_parts(2, "quiet")
        upload = user.create(content)
        user.put(upload, content, [2])
        assert user.get(f"/uploads/{upload['id']}").json["received"] == [[2, 2]]

        def away(ref: object) -> None:
            raise StorageUnavailable("away")

        monkeypatch.setattr(gateway.storage, "list_parts", away)
        gateway.clock.turn(6)
        assert user.get(f"/uploads/{upload['id']}").json["received"] == [[2, 2]]

    def test_lists_never_ask_the_storage(self, gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
        user.create(Content(b"listed"))
        monkeypatch.setattr(gateway.storage, "list_parts", lambda ref: pytest.fail("the storage was asked"))
        (item,) = user.get("/uploads").json["items"]
        assert item["state"] == "uploading"


class TestList:
    def test_uploads_are_listed_newest_first_page_by_page(self, user: User) -> None:
        made = [user.create(Content(b"x"), f"file {n}")["id"] for n in range(7)]
        seen, cursor = [], None
        while True:
            page = user.get("/uploads", limit=3, **({"cursor": cursor} if cursor else {})).json
            seen += [item["id"] for item in page["items"]]
            assert len(page["items"]) <= 3
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == made[::-1]

    def test_a_state_can_be_asked_for(self, user: User) -> None:
        open_one = user.create(Content(b"open"), "open")
        user.upload(Content(b"closed"), "closed")
        assert [item["id"] for item in user.get("/uploads", state="uploading").json["items"]] == [open_one["id"]]
        assert [item["name"] for item in user.get("/uploads", state="done").json["items"]] == ["closed"]
        error(user.get("/uploads", state="lost"), 400, "PARAMETER_INVALID")

    def test_a_cursor_of_another_list_or_user_is_refused(self, gateway: Gateway, user: User) -> None:
        for n in range(3):
            user.create(Content(b"x"), f"file {n}")
        cursor = user.get("/uploads", limit=1).json["next_cursor"]
        error(user.get("/uploads", state="done", cursor=cursor), 400, "CURSOR_INVALID")
        error(user.get("/files", cursor=cursor), 400, "CURSOR_INVALID")
        error(gateway.user().get("/uploads", cursor=cursor), 400, "CURSOR_INVALID")


class TestAbort:
    def test_abort_frees_the_parts_and_can_be_repeated(self, gateway: Gateway, user: User) -> None:
        content = Content(b"never mind")
        upload = user.create(content)
        user.put(upload, content)
        for _ in range(2):
            answer = user.call("DELETE", f"/uploads/{upload['id']}")
            assert (answer.status_code, answer.json["state"]) == (200, "aborted")
        assert upload["id"] not in gateway.storage.uploads

    def test_nothing_continues_after_abort(self, user: User) -> None:
        content = Content.of_parts(2, "aborted")
        upload = user.create(content, digest=content.digest)
        user.call("DELETE", f"/uploads/{upload['id']}")
        path = f"/uploads/{upload['id']}"
        error(user.post(f"{path}/parts", {"parts": content.hashes()}), 409, "UPLOAD_NOT_OPEN")
        error(user.post(f"{path}/proof", content.prove(upload["challenge"])), 409, "UPLOAD_NOT_OPEN")
        assert error(user.complete(upload), 409, "UPLOAD_NOT_OPEN")["state"] == "aborted"

    def test_what_is_done_cannot_be_aborted(self, user: User) -> None:
        file = user.upload(Content(b"kept"))
        (upload,) = user.get("/uploads").json["items"]
        error(user.call("DELETE", f"/uploads/{upload['id']}"), 409, "UPLOAD_NOT_OPEN")
        assert user.get(f"/files/{file['id']}").json["state"] == "ready"

    def test_of_concurrent_abort_and_complete_exactly_one_wins(self, gateway: Gateway, user: User) -> None:
        for n in range(6):
            content = Content(f"race {n}".encode())
            upload = user.create(content)
            user.put(upload, content)
            aborted, completed = together(
                partial(user.call, "DELETE", f"/uploads/{upload['id']}"), partial(user.complete, upload)
            )
            state = user.get(f"/uploads/{upload['id']}").json["state"]
            assert sorted([aborted.status_code, completed.status_code]) == [200, 409]
            assert state == ("aborted" if aborted.status_code == 200 else "done")
            assert upload["id"] not in gateway.storage.uploads

    def test_an_abort_that_a_complete_overtakes_ends_nothing(self, gateway: Gateway, user: User) -> None:
        content = Content(b"overtaken abort")
        upload = user.create(content)
        user.put(upload, content)
        gateway.statements = Watch(
            "UPDATE upload SET state = %s, failure", lambda: together(lambda: user.complete(upload))
        )
        error(user.call("DELETE", f"/uploads/{upload['id']}"), 409, "UPLOAD_NOT_OPEN")
        assert user.get(f"/uploads/{upload['id']}").json["state"] == "done"

    def test_a_complete_that_an_abort_overtakes_makes_nothing(self, gateway: Gateway, user: User) -> None:
        content = Content(b"overtaken complete")
        upload = user.create(content)
        user.put(upload, content)
        gateway.statements = Watch(
            "UPDATE upload SET state = 'finalizing'",
            lambda: together(lambda: user.call("DELETE", f"/uploads/{upload['id']}")),
        )
        assert error(user.complete(upload), 409, "UPLOAD_NOT_OPEN")["state"] == "aborted"
        assert user.get("/files").json["items"] == []
        assert not gateway.storage.objects


def test_another_users_upload_is_not_found_by_any_call(gateway: Gateway, user: User) -> None:
    content = Content.of_parts(2, "mine")
    upload, stranger = user.create(content, digest=content.digest), gateway.user()
    path = f"/uploads/{upload['id']}"
    for answer in (
        stranger.get(path),
        stranger.call("DELETE", path),
        stranger.complete(upload),
        stranger.post(f"{path}/parts", {"parts": content.hashes()}),
        stranger.post(f"{path}/proof", content.prove(upload["challenge"])),
    ):
        error(answer, 404, "UPLOAD_NOT_FOUND")
    assert user.get(path).json["state"] == "proving"
