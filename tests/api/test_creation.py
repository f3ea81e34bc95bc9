"""When a create finds an unfinished upload again, and what a new one may not be."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from api.core.errors import StorageFull, StorageUnavailable
from api.storage.base import MultipartRef, SignedPart
from tests.api.conftest import Content, Gateway, User, Watch, error, together

DIGEST = "d" * 64
SAME: dict[str, Any] = {"name": "a.bin", "size": 10, "digest": DIGEST}


class TestFoundAgain:
    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (SAME, SAME),
            (SAME, SAME | {"content_type": "image/png"}),
            (SAME | {"size": 2**30}, SAME | {"size": 2**30}),  # proving
            ({"name": "a", "size": 1, "resume_key": "k"}, {"name": "a", "size": 1, "resume_key": "k"}),
            ({"name": "a", "size": 1, "resume_key": "k"}, SAME | {"name": "a", "size": 1, "resume_key": "k"}),
            ({"name": "a", "size": 1, "resume_key": "k" * 1024}, {"name": "a", "size": 1, "resume_key": "k" * 1024}),
        ],
    )
    def test_the_same_upload_is_answered(self, user: User, first: dict[str, Any], second: dict[str, Any]) -> None:
        made, found = user.post("/uploads", first), user.post("/uploads", second)
        assert (made.status_code, found.status_code) == (201, 200)
        assert made.json["id"] == found.json["id"]

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (SAME, SAME | {"name": "b.bin"}),
            (SAME, SAME | {"name": "A.bin"}),
            (SAME, SAME | {"name": "a.bin "}),
            (SAME, SAME | {"size": 11}),
            (SAME, SAME | {"digest": "e" * 64}),
            (SAME, SAME | {"resume_key": "k"}),
            (SAME, SAME | {"resume_key": DIGEST}),
            (SAME | {"resume_key": "k"}, SAME | {"resume_key": "K"}),
            (SAME | {"resume_key": "k"}, SAME | {"resume_key": "k "}),
            (SAME | {"resume_key": "k"}, SAME | {"resume_key": "k", "name": "b.bin"}),
            (SAME | {"resume_key": "k"}, SAME | {"resume_key": "k", "size": 11}),
            (SAME | {"digest": b"k".hex() * 32}, {"name": "a.bin", "size": 10, "resume_key": "k" * 32}),
            ({"name": "a", "size": 1}, {"name": "a", "size": 1}),  # nothing shows that it is the same content
        ],
    )
    def test_any_other_is_a_new_one(self, user: User, first: dict[str, Any], second: dict[str, Any]) -> None:
        made, other = user.post("/uploads", first), user.post("/uploads", second)
        assert (made.status_code, other.status_code) == (201, 201)
        assert made.json["id"] != other.json["id"]

    def test_another_users_upload_is_never_found(self, gateway: Gateway, user: User) -> None:
        assert user.post("/uploads", SAME).json["id"] != gateway.user().post("/uploads", SAME).json["id"]

    def test_two_concurrent_calls_that_open_it_name_one_place_for_its_parts(
        self, gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = Content.of_parts(2, "opened twice")
        made: list[str] = []
        signed: list[str] = []
        parts: list[int] = []

        def create(_: Any) -> str:
            made.append("lost")
            if len(made) == 1:
                raise StorageUnavailable("not yet")
            if len(made) == 2:  # another call arrives at this moment
                parts.append(user.post(f"/uploads/{upload}/parts", {"parts": content.hashes([2])}).status_code)
                return "slow"
            return "fast"

        real = gateway.storage.presign_part

        def sign(ref: MultipartRef, *more: Any) -> SignedPart:
            signed.append(ref.multipart_id)
            return real(ref, *more)

        monkeypatch.setattr(gateway.storage, "create", create)
        monkeypatch.setattr(gateway.storage, "presign_part", sign)
        assert user.post("/uploads", {"name": "a", "size": content.size, "resume_key": "k"}).status_code == 503
        (upload,) = (item["id"] for item in user.get("/uploads").json["items"])
        parts.append(user.post(f"/uploads/{upload}/parts", {"parts": content.hashes([1])}).status_code)
        assert (parts, signed) == ([200, 200], ["fast", "fast"])

    def test_one_that_was_interrupted_says_what_is_missing(self, gateway: Gateway, user: User) -> None:
        content = Content.of_parts(3, "interrupted")
        upload = user.create(content, resume_key="laptop:/a.bin")
        user.put(upload, content, [2])
        again = user.create(content, resume_key="laptop:/a.bin")
        assert again["missing"] == [[1, 1], [3, 3]]

    def test_one_that_ended_is_not_found(self, user: User) -> None:
        content = Content(b"ended")
        done = user.create(content, "done.bin", resume_key="k")
        user.put(done, content)
        user.complete(done)
        aborted = user.create(content, "aborted.bin", resume_key="k")
        user.call("DELETE", f"/uploads/{aborted['id']}")
        for name, ended in (("done.bin", done), ("aborted.bin", aborted)):
            assert user.create(content, name, resume_key="k")["id"] != ended["id"]

    def test_one_whose_time_is_over_is_not_found_though_no_sweep_came_by(self, gateway: Gateway, user: User) -> None:
        late = user.create(Content(b"late"), resume_key="k")
        gateway.clock.turn(604_800 - 1)
        fresh = sign_in_again(user)
        assert fresh.create(Content(b"late"), resume_key="k")["id"] == late["id"]
        gateway.clock.turn(1)
        new = fresh.create(Content(b"late"), resume_key="k")
        assert new["id"] != late["id"]
        assert fresh.get(f"/uploads/{late['id']}").json["state"] == "expired"
        user.put(new, Content(b"late"))

    def test_many_concurrent_creates_give_one_upload(self, gateway: Gateway, user: User) -> None:
        for n in range(3):
            body = SAME | {"name": f"race {n}"}
            answers = together(*[lambda b=body: user.post("/uploads", b)] * 8)
            assert len({answer.json["id"] for answer in answers}) == 1
            assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
        assert len(gateway.rows("SELECT id FROM upload WHERE user_id = UNHEX(%s)", user.id)) == 3
        assert len(gateway.storage.uploads) == 3


def sign_in_again(user: User) -> User:
    """The account with a new session: the old token has expired."""
    body = {"username": user.name, "password": user.password}
    user.session = user.gateway.http.simulate_post("/api/v1/sessions", json=body).json
    return user


class TestLimits:
    def test_the_limit_of_unfinished_uploads_is_per_user(self, build: Callable[..., Gateway]) -> None:
        gateway = build(user_uploads=3)
        user, other = gateway.user(), gateway.user()
        made = [user.create(Content(b"x"), f"{n}") for n in range(3)]
        refused = user.post("/uploads", {"name": "4", "size": 1})
        error(refused, 429, "UPLOADS_LIMITED")
        other.create(Content(b"x"))
        assert user.create(Content(b""))["state"] == "done"  # this is not unfinished
        user.call("DELETE", f"/uploads/{made[0]['id']}")
        user.create(Content(b"x"), "4")

    def test_the_limit_of_100_holds_for_concurrent_creates(self, gateway: Gateway, user: User) -> None:
        assert gateway.config.user_uploads == 100
        gateway.db.execute(
            "INSERT INTO upload (id, user_id, state, name, folder_id, content_type, size, part_size, part_count, "
            "storage, object_key, binds_hash, created_at, updated_at, expires_at) "
            "SELECT UNHEX(REPLACE(UUID(), '-', '')), UNHEX(%s), 'uploading', seq, REPEAT('\\0', 16), 'a/b', 1, "
            "8388608, 1, 'local', UUID(), 0, NOW(6), NOW(6), NOW(6) FROM seq_1_to_92",
            (user.id,),
        )
        calls = [lambda n=n: user.post("/uploads", {"name": f"{n}", "size": 1}) for n in range(14)]
        assert sorted(answer.status_code for answer in together(*calls)) == [201] * 8 + [429] * 6
        open_ones = gateway.rows("SELECT 1 FROM upload WHERE user_id = UNHEX(%s) AND state = 'uploading'", user.id)
        assert len(open_ones) == 100

    def test_two_creates_side_by_side_do_not_both_take_the_last_place(self, build: Callable[..., Gateway]) -> None:
        gateway = build(user_uploads=1)
        user = gateway.user()
        abreast = threading.Barrier(2, timeout=0.3)  # without the lock, the calls would meet here

        def meet() -> None:
            with contextlib.suppress(threading.BrokenBarrierError):
                abreast.wait()

        gateway.statements = Watch(("INSERT INTO upload", "COMMIT"), meet, once=False)
        answers = together(*[lambda n=n: user.post("/uploads", {"name": f"{n}", "size": 1}) for n in range(2)])
        assert sorted(answer.status_code for answer in answers) == [201, 429]

    def test_a_storage_without_room_refuses_before_anything_is_made(
        self, gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(size: int, part_count: int) -> None:
            raise StorageFull("full")

        monkeypatch.setattr(gateway.storage, "check_room", full)
        error(user.post("/uploads", SAME), 507, "STORAGE_FULL")
        assert user.get("/uploads").json["items"] == []
        assert user.create(Content(b""))["state"] == "done"  # an empty file needs no space

    def test_a_limit_of_the_deployment_on_sizes_holds(self, build: Callable[..., Gateway]) -> None:
        user = build(max_file_size=100).user()
        user.create(Content(b""), size=100)
        assert "100" in error(user.post("/uploads", {"name": "a", "size": 101}), 400, "SIZE_INVALID")["message"]

    def test_a_disabled_user_makes_no_upload(self, gateway: Gateway, user: User) -> None:
        gateway.db.execute("UPDATE user SET disabled_at = NOW(6) WHERE id = UNHEX(%s)", (user.id,))
        error(user.post("/uploads", SAME), 401, "TOKEN_REVOKED")
        assert gateway.rows("SELECT id FROM upload WHERE user_id = UNHEX(%s)", user.id) == ()


class TestParts:
    def test_wrong_part_numbers_leave_no_upload_behind(self, gateway: Gateway, user: User) -> None:
        for numbers in (["2"], ["1", "2"]):
            answer = user.post("/uploads", {"name": "a", "size": 5, "parts": dict.fromkeys(numbers, "0" * 64)})
            error(answer, 400, "PART_NUMBER_INVALID")
        assert user.get("/uploads").json["items"] == []

    def test_a_proving_upload_is_not_signed_for(self, user: User) -> None:
        content = Content.of_parts(2, "proving parts")
        upload = user.create(content, digest=content.digest, parts=content.hashes())
        assert upload["state"] == "proving"
        assert "parts" not in upload


def test_object_keys_begin_with_the_deployments_id_and_are_never_alike(gateway: Gateway, user: User) -> None:
    for n in range(5):
        user.create(Content(b"x"), f"{n}")
    (deployment,) = gateway.rows("SELECT value FROM deployment WHERE name = 'id'")[0]
    keys = [key for (key,) in gateway.rows("SELECT object_key FROM upload WHERE user_id = UNHEX(%s)", user.id)]
    assert len({*keys}) == 5
    for key in keys:
        prefix, folder, name = key.split("/")
        assert (prefix, folder) == (deployment, name[-2:])
        assert len(name) == 32


def test_a_late_create_of_a_storage_is_freed_by_the_sweep(gateway: Gateway, user: User) -> None:
    """A create finds an upload again, and opens the storage after another request has ended the upload."""
    upload = user.create(Content(b"x"), resume_key="k")
    user.call("DELETE", f"/uploads/{upload['id']}")
    gateway.storage.uploads[upload["id"]] = {}
    began = time.monotonic()
    gateway.services.sweep.run()
    assert upload["id"] not in gateway.storage.uploads
    assert time.monotonic() - began < 5
