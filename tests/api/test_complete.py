"""Complete: errors, results, and that it can be repeated."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from api.core.errors import StorageFull, StorageUnavailable
from api.jobs.rows import LEASE
from tests.api.conftest import Content, Gateway, User, Watch, error, together

LEASE_OVER = LEASE.total_seconds() + 1


def state(user: User, upload: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = user.get(f"/uploads/{upload['id']}").json
    return found


def ready(user: User, content: Content, **more: Any) -> dict[str, Any]:
    """An upload with all of its parts."""
    upload = user.create(content, **more)
    user.put(upload, content)
    return upload


def live_rows(gateway: Gateway, user: User) -> tuple[int, int]:
    """The number of a user's files, and of the blobs they are on."""
    sql = "SELECT COUNT(*), COUNT(DISTINCT blob_id) FROM file WHERE user_id = UNHEX(%s)"
    files, blobs = gateway.rows(sql, user.id)[0]
    return files, blobs


class TestMissing:
    def test_missing_parts_are_named_whether_signed_or_not(self, user: User) -> None:
        content = Content.of_parts(5, "missing")
        upload = user.create(content)
        assert error(user.complete(upload), 409, "PARTS_MISSING")["missing"] == [[1, 5]]
        user.put(upload, content, [2, 5])
        user.post(f"/uploads/{upload['id']}/parts", {"parts": content.hashes([1])})  # signed and not sent
        assert error(user.complete(upload), 409, "PARTS_MISSING")["missing"] == [[1, 1], [3, 4]]
        user.put(upload, content, [1, 3, 4])
        assert user.complete(upload).json["state"] == "done"

    def test_a_stored_part_without_a_hash_is_missing(self, gateway: Gateway, user: User) -> None:
        content = Content.of_parts(2, "no hash")
        upload = user.create(content)
        user.put(upload, content, [1])
        gateway.storage.uploads[upload["id"]][2] = content.part(2)
        assert error(user.complete(upload), 409, "PARTS_MISSING")["missing"] == [[2, 2]]

    def test_a_part_of_another_length_is_missing(self, gateway: Gateway, user: User) -> None:
        content = Content.of_parts(2, "cut")
        upload = ready(user, content)
        gateway.storage.uploads[upload["id"]][2] += b"x"
        assert error(user.complete(upload), 409, "PARTS_MISSING")["missing"] == [[2, 2]]

    def test_complete_asks_the_storage_though_progress_was_asked_a_moment_ago(self, user: User) -> None:
        content = Content.of_parts(2, "at once")
        upload = user.create(content)
        user.put(upload, content, [1])
        assert state(user, upload)["missing"] == [[2, 2]]
        user.put(upload, content, [2])
        assert user.complete(upload).json["state"] == "done"

    def test_a_proving_upload_misses_everything(self, user: User) -> None:
        content = Content.of_parts(2, "still proving")
        upload = user.create(content, digest=content.digest)
        assert error(user.complete(upload), 409, "PARTS_MISSING")["missing"] == [[1, 2]]
        assert state(user, upload)["state"] == "proving"


class TestTwice:
    def test_a_repeated_complete_answers_the_same_file(self, gateway: Gateway, user: User) -> None:
        upload = ready(user, Content(b"twice"))
        first, second = user.complete(upload), user.complete(upload)
        assert (first.status_code, second.status_code) == (200, 200)
        assert first.json["file"] == second.json["file"]
        assert first.json == state(user, upload)
        assert live_rows(gateway, user) == (1, 1)

    def test_concurrent_completes_make_one_file(self, gateway: Gateway, user: User) -> None:
        for n in range(4):
            upload = ready(user, Content(f"at once {n}".encode()))
            answers = together(*[lambda u=upload: user.complete(u)] * 5)
            assert {answer.status_code for answer in answers} <= {200, 202}
            assert {answer.json["state"] for answer in answers} <= {"finalizing", "done"}
            assert state(user, upload)["state"] == "done"
            assert live_rows(gateway, user) == (n + 1, n + 1)

    def test_a_second_complete_while_the_first_runs_says_finalizing(
        self, gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload = ready(user, Content(b"slow"))
        real, entered, go_on = gateway.storage.complete, threading.Event(), threading.Event()

        def slow(*args: Any) -> Any:
            entered.set()
            assert go_on.wait(10)
            return real(*args)

        monkeypatch.setattr(gateway.storage, "complete", slow)
        first = threading.Thread(target=lambda: user.complete(upload))
        first.start()
        assert entered.wait(10)
        second = user.complete(upload)
        error(user.call("DELETE", f"/uploads/{upload['id']}"), 409, "UPLOAD_NOT_OPEN")
        error(user.post(f"/uploads/{upload['id']}/parts", {"parts": {"1": "0" * 64}}), 409, "UPLOAD_NOT_OPEN")
        go_on.set()
        first.join()
        assert (second.status_code, second.json["state"]) == (202, "finalizing")
        assert state(user, upload)["state"] == "done"


class TestDigest:
    def test_parts_that_do_not_match_the_digest_end_the_upload(self, gateway: Gateway, user: User) -> None:
        content = Content(b"not what was said")
        claim = Content(b"what was said").digest
        upload = ready(user, content, digest=claim)
        for _ in range(2):
            error(user.complete(upload), 422, "DIGEST_MISMATCH")
        seen = state(user, upload)
        assert (seen["state"], seen["error"], seen["file"]) == ("failed", "DIGEST_MISMATCH", None)
        assert upload["id"] not in gateway.storage.uploads
        assert not gateway.storage.objects
        assert user.create(content, digest=claim)["id"] != upload["id"]

    def test_a_digest_left_out_is_what_the_rows_give(self, user: User) -> None:
        content = Content.of_parts(2, "left out")
        upload = ready(user, content)
        assert upload["digest"] is None
        assert user.complete(upload).json["digest"] == content.digest

    def test_an_empty_file_of_another_digest_is_refused(self, user: User) -> None:
        error(user.post("/uploads", {"name": "empty", "size": 0, "digest": "e" * 64}), 422, "DIGEST_MISMATCH")
        assert user.get("/uploads").json["items"] == []


class TestMismatch:
    def spoil(self, gateway: Gateway, upload: dict[str, Any], content: Content, *numbers: int) -> None:
        for number in numbers:
            gateway.storage.uploads[upload["id"]][number] = b"x" * len(content.part(number))

    def test_wrong_parts_are_named_and_the_upload_takes_them_again(self, gateway: Gateway, user: User) -> None:
        content = Content.of_parts(4, "mismatch")
        upload = ready(user, content)
        self.spoil(gateway, upload, content, 2, 4)
        assert error(user.complete(upload), 422, "PART_MISMATCH")["parts"] == [2, 4]
        seen = state(user, upload)
        assert (seen["state"], seen["error"], seen["missing"]) == ("uploading", "PART_MISMATCH", [[2, 2], [4, 4]])
        user.put(upload, content, [2, 4])
        done = user.complete(upload).json
        assert (done["state"], done["error"]) == ("done", None)
        assert done == state(user, upload)
        assert content.data in gateway.storage.objects.values()

    def test_the_fifth_wrong_complete_ends_the_upload_and_frees_it(self, gateway: Gateway, user: User) -> None:
        content = Content(b"wrong again")
        upload = user.create(content)
        for _ in range(5):
            user.put(upload, content)
            self.spoil(gateway, upload, content, 1)
            assert error(user.complete(upload), 422, "PART_MISMATCH")["parts"] == [1]
        seen = state(user, upload)
        assert (seen["state"], seen["error"]) == ("failed", "PART_MISMATCH")
        assert upload["id"] not in gateway.storage.uploads
        error(user.complete(upload), 409, "UPLOAD_NOT_OPEN")

    def test_four_wrong_ones_and_a_right_one_are_done(self, gateway: Gateway, user: User) -> None:
        content = Content(b"at last")
        upload = user.create(content)
        for attempt in range(5):
            user.put(upload, content)
            if attempt < 4:
                self.spoil(gateway, upload, content, 1)
            answer = user.complete(upload)
        assert answer.json["state"] == "done"


class TestStorage:
    def fail(self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, ex: Exception) -> None:
        def complete(*_: object) -> None:
            raise ex

        monkeypatch.setattr(gateway.storage, "complete", complete)

    def test_a_full_storage_keeps_the_upload_open_however_often(self, gateway: Gateway, user: User) -> None:
        content = Content(b"full")
        upload = ready(user, content)
        with pytest.MonkeyPatch.context() as patch:
            self.fail(gateway, patch, StorageFull("full"))
            for _ in range(300):  # the count of completes is one byte
                error(user.complete(upload), 507, "STORAGE_FULL")
        assert state(user, upload)["error"] == "STORAGE_FULL"
        assert user.complete(upload).json["state"] == "done"

    def test_a_storage_that_is_away_leaves_it_finalizing_for_the_next_process(
        self, gateway: Gateway, user: User
    ) -> None:
        upload = ready(user, Content(b"away"))
        with pytest.MonkeyPatch.context() as patch:
            self.fail(gateway, patch, StorageUnavailable("away"))
            error(user.complete(upload), 503, "STORAGE_UNAVAILABLE")
        assert user.complete(upload).status_code == 202
        assert gateway.due("finalize") == []  # the lease says that a process is working on it
        gateway.clock.turn(LEASE_OVER)
        assert gateway.due("finalize") == [bytes.fromhex(upload["id"])]
        assert gateway.take("finalize", bytes.fromhex(upload["id"]))
        assert state(user, upload)["state"] == "done"

    def test_parts_that_are_gone_end_the_upload(self, gateway: Gateway, user: User) -> None:
        upload = ready(user, Content(b"gone"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gateway.storage, "list_parts", lambda ref: {1: 4})
            gateway.storage.uploads.clear()
            error(user.complete(upload), 410, "UPLOAD_GONE")
        assert state(user, upload)["error"] == "UPLOAD_GONE"

    def test_a_storage_that_cannot_be_asked_changes_nothing(self, gateway: Gateway, user: User) -> None:
        upload = ready(user, Content(b"silent"))

        def away(ref: object) -> None:
            raise StorageUnavailable("away")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gateway.storage, "list_parts", away)
            error(user.complete(upload), 503, "STORAGE_UNAVAILABLE")
        assert user.complete(upload).json["state"] == "done"


class TestBackground:
    @pytest.fixture
    def gateway(self, build: Callable[..., Gateway]) -> Gateway:
        return build(finalize_inline=0)

    def test_a_large_one_is_finalized_by_a_worker(self, gateway: Gateway, user: User) -> None:
        upload = ready(user, Content(b"large"))
        answer = user.complete(upload)
        assert (answer.status_code, answer.json["state"], answer.json["file"]) == (202, "finalizing", None)
        assert user.complete(upload).status_code == 202
        assert gateway.take("finalize", bytes.fromhex(upload["id"]))
        done = state(user, upload)
        assert (done["state"], done["file"]["state"]) == ("done", "ready")
        assert user.complete(upload).json == done

    def test_a_storage_that_reads_nothing_to_complete_answers_immediately(
        self, gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(type(gateway.storage), "reads_to_complete", False)
        assert user.complete(ready(user, Content.of_parts(2, "joined"))).status_code == 200
        monkeypatch.setattr("api.uploads.complete.PARTS_JOINED_QUICKLY", 1)
        assert user.complete(ready(user, Content.of_parts(2, "many parts"))).status_code == 202

    def test_it_is_enqueued_with_its_row(self, gateway: Gateway, user: User) -> None:
        upload = ready(user, Content(b"enqueued"))
        gateway.queue.kept.clear()
        user.complete(upload)
        assert gateway.queue.kept == [("finalize", bytes.fromhex(upload["id"]))]
        assert gateway.take(*gateway.queue.kept[0])
        assert gateway.rows("SELECT COUNT(*) FROM job WHERE subject = UNHEX(%s)", upload["id"]) == ((0,),)

    def test_a_worker_told_to_stop_gives_it_to_the_next_immediately(self, gateway: Gateway, user: User) -> None:
        upload, real = ready(user, Content(b"stopped")), gateway.storage.complete
        user.complete(upload)

        def stopped(ref: Any, hashes: bytes, keep_alive: Callable[[], None]) -> Any:
            gateway.services.runner.stop()
            keep_alive()
            return real(ref, hashes, keep_alive)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gateway.storage, "complete", stopped)
            assert gateway.take("finalize", bytes.fromhex(upload["id"]))
        assert state(user, upload)["state"] == "finalizing"
        patch = pytest.MonkeyPatch()
        patch.setattr(gateway.services.runner, "_stop", threading.Event())  # the next worker's
        assert gateway.take("finalize", bytes.fromhex(upload["id"]))
        patch.undo()
        assert state(user, upload)["state"] == "done"

    def test_a_storage_that_is_away_is_tried_again_after_a_while(self, gateway: Gateway, user: User) -> None:
        upload = ready(user, Content(b"away in the background"))
        user.complete(upload)

        def away(*_: Any) -> Any:
            raise StorageUnavailable("away")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gateway.storage, "complete", away)
            assert gateway.take("finalize", bytes.fromhex(upload["id"]))
        assert not gateway.take("finalize", bytes.fromhex(upload["id"]))
        gateway.clock.turn(5)
        assert gateway.take("finalize", bytes.fromhex(upload["id"]))
        assert state(user, upload)["state"] == "done"

    def test_two_workers_never_take_the_same_one(self, gateway: Gateway, user: User) -> None:
        for n in range(3):
            upload = ready(user, Content(f"workers {n}".encode()))
            user.complete(upload)
            row = bytes.fromhex(upload["id"])
            assert sorted(together(*[lambda r=row: gateway.take("finalize", r)] * 4)) == [False] * 3 + [True]
            assert live_rows(gateway, user) == (n + 1, n + 1)

    def test_wrong_parts_open_it_again_and_its_row_says_why(self, gateway: Gateway, user: User) -> None:

        content = Content.of_parts(2, "background mismatch")
        upload = ready(user, content)
        gateway.storage.uploads[upload["id"]][2] = b"x" * len(content.part(2))
        user.complete(upload)
        assert gateway.take("finalize", bytes.fromhex(upload["id"]))
        seen = state(user, upload)
        assert (seen["state"], seen["error"], seen["missing"]) == ("uploading", "PART_MISMATCH", [[2, 2]])
        user.put(upload, content, [2])
        answer = user.complete(upload)
        assert (answer.status_code, answer.json["error"], answer.json["missing"]) == (202, None, [])
        assert state(user, upload)["error"] is None
        assert gateway.take("finalize", bytes.fromhex(upload["id"]))

    def test_a_worker_that_lost_its_lease_writes_nothing(self, gateway: Gateway, user: User) -> None:
        upload = ready(user, Content(b"lost lease"))
        user.complete(upload)
        row, real = bytes.fromhex(upload["id"]), gateway.storage.complete

        def overtaken(*args: Any) -> Any:
            patch.undo()
            gateway.clock.turn(LEASE_OVER)
            assert gateway.take("finalize", row)
            return real(*args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gateway.storage, "complete", overtaken)
            assert gateway.take("finalize", row)
        assert state(user, upload)["state"] == "done"
        assert live_rows(gateway, user) == (1, 1)

    @pytest.mark.parametrize("step", ["INSERT INTO `blob` ", "INSERT INTO blob_digest", "INSERT INTO blob_parts"])
    def test_a_worker_killed_between_storage_and_rows_is_followed_by_another(
        self, gateway: Gateway, user: User, step: str
    ) -> None:
        class Killed(BaseException):
            pass

        content = Content(f"killed at {step}".encode())
        upload = ready(user, content)
        user.complete(upload)
        row = bytes.fromhex(upload["id"])

        def kill() -> None:
            raise Killed

        gateway.statements = Watch(step, kill)
        with pytest.raises(Killed):
            gateway.take("finalize", row)
        assert content.data in gateway.storage.objects.values()
        assert live_rows(gateway, user) == (0, 0)
        gateway.clock.turn(LEASE_OVER)
        assert gateway.take("finalize", row)
        assert live_rows(gateway, user) == (1, 1)
        assert gateway.rows("SELECT COUNT(*) FROM `blob` WHERE digest = UNHEX(%s)", content.digest)[0][0] == 1


class TestAnUploadThatItsStorageDropped:
    """Deletes the upload, as a lifecycle rule of the bucket could do."""

    def test_progress_says_that_it_failed(self, gateway: Gateway, user: User) -> None:
        content = Content.of_parts(2, "dropped")
        upload = user.create(content, resume_key="k")
        user.put(upload, content, [1])
        gateway.storage.uploads.clear()
        seen = user.get(f"/uploads/{upload['id']}").json
        assert (seen["state"], seen["error"]) == ("failed", "UPLOAD_GONE")
        assert user.create(content, resume_key="k")["id"] != upload["id"]

    def test_complete_says_to_create_it_anew_however_often(self, gateway: Gateway, user: User) -> None:
        upload = user.create(Content(b"dropped too"))
        user.put(upload, Content(b"dropped too"))
        gateway.storage.uploads.clear()
        for _ in range(2):
            error(user.complete(upload), 410, "UPLOAD_GONE")
