"""Instant upload: only a client with the content gets it without sending it; other clients learn nothing."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from api.core.errors import ObjectNotFound, StorageUnavailable
from api.uploads import proof as instant
from tests.api.conftest import Content, Gateway, User, Watch, error, together


@pytest.fixture(scope="module")
def content() -> Content:
    """Content of two parts."""
    return Content.of_parts(2, "instant")


@pytest.fixture
def known(gateway: Gateway, content: Content) -> dict[str, Any]:
    """A file with that content, of another user."""
    gateway.db.execute("DELETE FROM blob_digest WHERE digest = UNHEX(%s)", (content.digest,))  # made by another test
    return gateway.user().upload(content, digest=content.digest)


def proof(user: User, upload: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    answer = user.post(f"/uploads/{upload['id']}/proof", body)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json
    return result


class TestRight:
    def test_a_client_with_the_content_gets_the_file_without_sending_it(
        self, gateway: Gateway, user: User, content: Content, known: dict[str, Any]
    ) -> None:
        upload = user.create(content, "mine.bin", digest=content.digest)
        assert upload["state"] == "proving"
        done = proof(user, upload, content.prove(upload["challenge"]))
        assert (done["state"], done["challenge"], done["percent"]) == ("done", None, 100.0)
        assert (done["file"]["name"], done["file"]["digest"]) == ("mine.bin", content.digest)
        assert done["file"]["id"] != known["id"]
        assert len(gateway.storage.objects) == 1
        assert gateway.storage.uploads == {}
        ids = (known["id"], done["file"]["id"])
        sql = "SELECT blob_id FROM file WHERE id IN (UNHEX(%s), UNHEX(%s)) GROUP BY blob_id"
        assert len(gateway.rows(sql, *ids)) == 1

    def test_content_of_ones_own_needs_no_proof_also_of_one_part(self, user: User, content: Content) -> None:
        for what in (Content(b"small and mine"), Content.of_parts(2, "large and mine")):
            first = user.upload(what, "one")
            second = user.create(what, "two", digest=what.digest)
            assert second["state"] == "done"
            assert second["file"]["id"] != first["id"]

    @pytest.mark.parametrize("end", ["trashed", "another size"])
    def test_ones_own_means_a_live_file_of_that_size(self, user: User, end: str) -> None:
        what = Content.of_parts(2, f"mine {end}")
        first = user.upload(what, "one")
        if end == "trashed":
            user.call("DELETE", f"/files/{first['id']}")
        more = {"size": what.size - 1} if end == "another size" else {}
        assert user.create(what, "two", digest=what.digest, **more)["state"] == "proving"

    def test_two_users_at_the_same_moment_get_two_files_of_one_blob(
        self, gateway: Gateway, content: Content, known: dict[str, Any]
    ) -> None:
        users = [gateway.user() for _ in range(4)]
        uploads = [user.create(content, digest=content.digest) for user in users]
        done = together(
            *[
                lambda u=user, up=upload: proof(u, up, content.prove(up["challenge"]))
                for user, upload in zip(users, uploads, strict=True)
            ]
        )
        assert {upload["state"] for upload in done} == {"done"}
        blobs = gateway.rows(
            f"SELECT DISTINCT blob_id FROM file WHERE id IN ({','.join(['UNHEX(%s)'] * 4)})",  # noqa: S608
            *(upload["file"]["id"] for upload in done),
        )
        assert len(blobs) == 1


class TestChallenge:
    def test_known_and_unknown_digests_are_challenged_alike(
        self, user: User, content: Content, known: dict[str, Any]
    ) -> None:
        there = user.create(content, "a", digest=content.digest)
        not_there = user.create(content, "b", digest="f" * 64)

        def shape(upload: dict[str, Any]) -> dict[str, Any]:
            challenge = upload["challenge"]
            varying = {"id", "name", "digest", "created_at", "expires_at", "challenge"}
            return {key: value for key, value in upload.items() if key not in varying} | {
                "keys": list(upload),
                "nonce": len(challenge["nonce"]),
                "ranges": [length for _, length in challenge["ranges"]],
            }

        assert shape(there) == shape(not_there)
        assert not_there["challenge"]["ranges"] != there["challenge"]["ranges"]

    def test_asking_again_changes_the_nonce_and_never_the_ranges(self, gateway: Gateway, user: User) -> None:
        what = Content.of_parts(2, "again")
        first = user.create(what, digest=what.digest)
        found = user.create(what, digest=what.digest)
        elsewhere = user.create(what, "another name", digest=what.digest)
        user.call("DELETE", f"/uploads/{first['id']}")
        anew = user.create(what, digest=what.digest)
        uploads = [first, found, elsewhere, anew]
        assert len({upload["challenge"]["nonce"] for upload in uploads}) == 4
        assert all(upload["challenge"]["ranges"] == first["challenge"]["ranges"] for upload in uploads)
        other = gateway.user().create(what, digest=what.digest)
        assert other["challenge"]["ranges"] != first["challenge"]["ranges"]
        smaller = user.create(what, digest=what.digest, size=what.size - 1)
        assert smaller["challenge"]["ranges"] != first["challenge"]["ranges"]

    def test_ranges_lie_within_the_claimed_size_and_are_as_many_as_set(self, build: Callable[..., Gateway]) -> None:
        user = build(proof_ranges=64).user()
        for size in (8 * 1024**2 + 1, 5 * 1024**4):
            upload = user.create(Content(b""), f"{size}", size=size, digest="c" * 64)
            ranges = upload["challenge"]["ranges"]
            assert len(ranges) == 64
            assert all(0 <= offset <= size - length and length == 65536 for offset, length in ranges)
            assert max(offset for offset, _ in ranges) > size // 2  # drawn over the whole size

    def test_content_of_one_part_is_never_challenged(self, gateway: Gateway, user: User) -> None:
        what = Content(b"one part that somebody has")
        gateway.user().upload(what, digest=what.digest)
        upload = user.create(what, digest=what.digest)
        assert (upload["state"], upload["challenge"]) == ("uploading", None)
        assert proof(user, upload, {"proof": "0" * 64, "parts": list(what.hashes().values())})["state"] == "uploading"

    def test_a_challenge_is_shown_until_it_expires(self, gateway: Gateway, user: User, content: Content) -> None:
        upload = user.create(content, digest=content.digest)
        gateway.clock.turn(59)
        assert user.get(f"/uploads/{upload['id']}").json["challenge"] == upload["challenge"]
        gateway.clock.turn(1)
        assert user.get(f"/uploads/{upload['id']}").json["challenge"] is None
        assert user.create(content, digest=content.digest)["challenge"] is not None


class TestWrong:
    """Each of these continues as an ordinary upload, without further information."""

    @pytest.fixture
    def upload(self, user: User, content: Content, known: dict[str, Any]) -> dict[str, Any]:
        return user.create(content, digest=content.digest)

    def goes_on(self, user: User, upload: dict[str, Any], content: Content, body: dict[str, Any]) -> None:
        after = proof(user, upload, body)
        assert (after["state"], after["challenge"], after["file"], after["error"]) == ("uploading", None, None, None)
        right = content.prove(upload["challenge"])  # one try per challenge: now the right response is too late
        assert proof(user, upload, right)["state"] == "uploading"
        user.put(upload, content)
        assert user.complete(upload).json["state"] == "done"

    def test_a_wrong_proof(self, user: User, upload: dict[str, Any], content: Content) -> None:
        self.goes_on(user, upload, content, content.prove(upload["challenge"]) | {"proof": "0" * 64})

    def test_a_proof_for_another_nonce(self, user: User, upload: dict[str, Any], content: Content) -> None:
        again = user.create(content, digest=content.digest)
        assert again["id"] == upload["id"]
        self.goes_on(user, again, content, content.prove(upload["challenge"]))

    def test_a_proof_that_comes_after_60_s(
        self, gateway: Gateway, user: User, upload: dict[str, Any], content: Content
    ) -> None:
        gateway.clock.turn(60)
        self.goes_on(user, upload, content, content.prove(upload["challenge"]))

    def test_a_proof_in_its_last_second_is_right(
        self, gateway: Gateway, user: User, upload: dict[str, Any], content: Content
    ) -> None:
        gateway.clock.turn(59)
        assert proof(user, upload, content.prove(upload["challenge"]))["state"] == "done"

    @pytest.mark.parametrize(
        "change",
        [
            lambda parts: parts[::-1],
            lambda parts: parts[:-1],
            lambda parts: [*parts, parts[-1]],
            lambda parts: [parts[0], "0" * 64],
            lambda parts: ["0" * 64] * 10_000,
        ],
        ids=["order", "fewer", "more", "another", "very many"],
    )
    def test_a_wrong_list_never_touches_storage(
        self,
        gateway: Gateway,
        user: User,
        upload: dict[str, Any],
        content: Content,
        monkeypatch: pytest.MonkeyPatch,
        change: Callable[[list[str]], list[str]],
    ) -> None:
        body = content.prove(upload["challenge"])
        body["parts"] = change(body["parts"])
        with monkeypatch.context() as patch:
            patch.setattr(gateway.storage, "open", lambda *_: pytest.fail("storage was touched"))
            gateway.statements.clear()
            assert proof(user, upload, body)["state"] == "uploading"
        assert not [sql for sql, _ in gateway.statements if "blob_digest" in sql]  # the blob is not looked up either
        self.goes_on(user, upload, content, content.prove(upload["challenge"]))

    def test_a_claim_of_another_size(self, user: User, content: Content, known: dict[str, Any]) -> None:
        for size in (content.size - 1, content.size + 1, 8 * 1024**2 + 1):
            upload = user.create(content, digest=content.digest, size=size)
            assert proof(user, upload, content.prove(upload["challenge"]))["state"] == "uploading"

    def test_content_that_is_not_stored(self, user: User) -> None:
        what = Content.of_parts(2, "nobody's")
        upload = user.create(what, digest=what.digest)
        assert proof(user, upload, what.prove(upload["challenge"]))["state"] == "uploading"

    @pytest.mark.parametrize("blob_state", ["unverified", "corrupt", "deleting"])
    def test_a_blob_that_is_not_verified_never_matches(
        self, gateway: Gateway, user: User, upload: dict[str, Any], content: Content, blob_state: str
    ) -> None:
        gateway.db.execute("UPDATE `blob` SET state = %s WHERE digest = UNHEX(%s)", (blob_state, content.digest))
        assert proof(user, upload, content.prove(upload["challenge"]))["state"] == "uploading"

    def test_a_failed_upload_never_matches(self, gateway: Gateway, user: User) -> None:
        """Junk uploaded under another user's digest."""
        victim, junk = Content.of_parts(2, "victim"), Content.of_parts(2, "junk")
        attacker = gateway.user()
        bad = attacker.create(junk, digest=victim.digest)
        attacker.put(bad, junk)
        error(attacker.complete(bad), 422, "DIGEST_MISMATCH")
        upload = user.create(victim, digest=victim.digest)
        assert proof(user, upload, victim.prove(upload["challenge"]))["state"] == "uploading"

    def test_the_victims_hashes_over_other_bytes_never_match(self, gateway: Gateway, user: User) -> None:
        """Parts signed with the victim's hashes, sent as junk: refused when the bytes are read."""
        victim, attacker = Content.of_parts(2, "victim too"), gateway.user()
        bad = attacker.create(victim, digest=victim.digest)
        attacker.put(bad, victim)
        for number in (1, 2):
            gateway.storage.uploads[bad["id"]][number] = b"x" * len(victim.part(number))
        error(attacker.complete(bad), 422, "PART_MISMATCH")
        upload = user.create(victim, digest=victim.digest)
        assert proof(user, upload, victim.prove(upload["challenge"]))["state"] == "uploading"
        assert gateway.rows("SELECT 1 FROM blob_digest WHERE digest = UNHEX(%s)", victim.digest) == ()


class TestOneTry:
    def test_of_concurrent_right_proofs_one_is_judged(
        self, gateway: Gateway, user: User, content: Content, known: dict[str, Any]
    ) -> None:
        upload = user.create(content, digest=content.digest)
        body = content.prove(upload["challenge"])
        answers = together(*[lambda: user.post(f"/uploads/{upload['id']}/proof", body)] * 5)
        assert {answer.status_code for answer in answers} <= {200, 409}
        assert user.get(f"/uploads/{upload['id']}").json["state"] == "done"
        assert len(user.get("/files").json["items"]) == 1

    def test_of_concurrent_wrong_and_right_the_wrong_may_win_but_never_both(
        self, gateway: Gateway, content: Content, known: dict[str, Any]
    ) -> None:
        for _ in range(4):
            user = gateway.user()
            upload = user.create(content, digest=content.digest)
            right = content.prove(upload["challenge"])
            together(
                partial(user.post, f"/uploads/{upload['id']}/proof", right),
                partial(user.post, f"/uploads/{upload['id']}/proof", right | {"proof": "0" * 64}),
            )
            state = user.get(f"/uploads/{upload['id']}").json["state"]
            assert state in ("done", "uploading")
            assert len(user.get("/files").json["items"]) == (state == "done")

    def test_a_challenge_that_was_replaced_meanwhile_is_not_judged(
        self, gateway: Gateway, user: User, content: Content, known: dict[str, Any]
    ) -> None:
        upload = user.create(content, digest=content.digest)
        gateway.statements = Watch(
            "UPDATE upload SET state = 'uploading', nonce = NULL",
            lambda: user.create(content, digest=content.digest),
        )
        after = proof(user, upload, content.prove(upload["challenge"]))
        assert after["state"] == "proving"
        assert proof(user, upload, content.prove(after["challenge"]))["state"] == "done"


class TestStorage:
    @pytest.mark.parametrize("ex", [StorageUnavailable("away"), ObjectNotFound("gone")])
    def test_a_storage_that_fails_counts_as_wrong(
        self,
        gateway: Gateway,
        user: User,
        content: Content,
        known: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
        ex: Exception,
    ) -> None:
        def fail(*_: object) -> None:
            raise ex

        upload = user.create(content, digest=content.digest)
        monkeypatch.setattr(gateway.storage, "open", fail)
        assert proof(user, upload, content.prove(upload["challenge"]))["state"] == "uploading"

    def test_an_object_that_became_short_counts_as_wrong(
        self, gateway: Gateway, user: User, content: Content, known: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload = user.create(content, digest=content.digest)
        monkeypatch.setattr(gateway.storage, "open", lambda *_: io.BytesIO(b""))
        assert proof(user, upload, content.prove(upload["challenge"]))["state"] == "uploading"

    def test_a_storage_slower_than_2_s_counts_as_wrong_and_holds_no_more_than_its_readers(
        self, gateway: Gateway, content: Content, known: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert instant._READ_TIME == 2.0
        monkeypatch.setattr(instant, "_READ_TIME", 0.05)
        hung, waiting, real = threading.Event(), threading.Semaphore(0), gateway.storage.open

        def hang(*args: Any) -> Any:
            waiting.release()
            assert hung.wait(10)
            return real(*args)

        monkeypatch.setattr(gateway.storage, "open", hang)
        users = [gateway.user() for _ in range(instant._READERS + 2)]
        for user in users:
            upload = user.create(content, digest=content.digest)
            assert proof(user, upload, content.prove(upload["challenge"]))["state"] == "uploading"
        held = sum(waiting.acquire(blocking=False) for _ in users)
        assert held == instant._READERS  # the others got "wrong" immediately
        hung.set()
        monkeypatch.undo()
        gateway.services.uploads._instant._pool.shutdown(wait=True)


class TestScope:
    def test_with_scope_user_only_ones_own_content_is_instant(self, build: Callable[..., Gateway]) -> None:
        gateway = build(dedup_scope="user")
        what, one, two = Content.of_parts(2, "scoped"), gateway.user(), gateway.user()
        one.upload(what, "a")
        upload = two.create(what, digest=what.digest)
        assert proof(two, upload, what.prove(upload["challenge"]))["state"] == "uploading"
        two.put(upload, what)
        assert two.complete(upload).json["state"] == "done"
        assert len(gateway.storage.objects) == 2
        assert one.create(what, "b", digest=what.digest)["state"] == "done"
        assert len(gateway.rows("SELECT 1 FROM blob_digest WHERE digest = UNHEX(%s)", what.digest)) == 2


def test_no_answer_ever_gives_the_list_of_part_hashes(
    gateway: Gateway, user: User, content: Content, known: dict[str, Any]
) -> None:
    upload = user.create(content, digest=content.digest)
    texts = [
        user.get(f"/uploads/{upload['id']}").text,
        user.get("/uploads").text,
        user.post(f"/uploads/{upload['id']}/proof", content.prove(upload["challenge"]) | {"proof": "0" * 64}).text,
        user.get("/files").text,
    ]
    assert hashlib.sha256(content.part(1)).hexdigest() == content.hashes()["1"]
    assert not [text for text in texts for sha256 in content.hashes().values() if sha256 in text]
