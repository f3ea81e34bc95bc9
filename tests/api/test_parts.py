"""Part URLs: a hash is written once, and a URL is for exactly one part."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from api.storage.base import MultipartRef
from tests.api.conftest import KEY, Content, Gateway, User, error, together

SIZE = 5 * 8 * 1024**2
HASH, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def upload(user: User) -> dict[str, Any]:
    """An upload of five parts."""
    return user.create(Content(b""), size=SIZE)


def sign(user: User, upload: dict[str, Any], parts: dict[str, str]) -> Any:
    return user.post(f"/uploads/{upload['id']}/parts", {"parts": parts})


def recorded(gateway: Gateway, upload: dict[str, Any]) -> dict[int, str]:
    sql = "SELECT part_number, LOWER(HEX(sha256)) FROM upload_part WHERE upload_id = UNHEX(%s)"
    return dict(gateway.rows(sql, upload["id"]))


class TestWrittenOnce:
    def test_the_same_hash_may_be_named_again(self, gateway: Gateway, user: User, upload: dict[str, Any]) -> None:
        for _ in range(3):
            assert sign(user, upload, {"1": HASH, "2": HASH}).status_code == 200
        assert recorded(gateway, upload) == {1: HASH, 2: HASH}

    def test_another_hash_is_a_conflict_that_names_the_parts_and_changes_none(
        self, gateway: Gateway, user: User, upload: dict[str, Any]
    ) -> None:
        sign(user, upload, {"1": HASH, "2": HASH, "4": HASH})
        answer = sign(user, upload, {"1": HASH, "2": OTHER, "3": HASH, "4": OTHER, "5": HASH})
        assert error(answer, 409, "PART_HASH_CONFLICT")["parts"] == [2, 4]
        assert recorded(gateway, upload) == {1: HASH, 2: HASH, 4: HASH}

    def test_of_two_concurrent_hashes_one_is_written_and_the_other_refused(
        self, gateway: Gateway, user: User, upload: dict[str, Any]
    ) -> None:
        for number in "12345":
            answers = together(
                partial(sign, user, upload, {number: HASH}), partial(sign, user, upload, {number: OTHER})
            )
            assert sorted(answer.status_code for answer in answers) == [200, 409]
            won = HASH if answers[0].status_code == 200 else OTHER
            assert recorded(gateway, upload)[int(number)] == won

    def test_many_machines_may_sign_concurrently(self, gateway: Gateway, user: User, upload: dict[str, Any]) -> None:
        every = {str(n): HASH for n in range(1, 6)}
        answers = together(*[lambda: sign(user, upload, every)] * 6)
        assert [answer.status_code for answer in answers] == [200] * 6
        assert recorded(gateway, upload) == dict.fromkeys(range(1, 6), HASH)


class TestNumbers:
    @pytest.mark.parametrize(
        "number", ["0", "6", "99999", "-1", "1.0", "01", "+1", " 1", "1 ", "one", "", "¹", "１", "100000", "1" * 5000]
    )
    def test_what_is_no_part_is_refused(
        self, gateway: Gateway, user: User, upload: dict[str, Any], number: str
    ) -> None:
        error(sign(user, upload, {"1": HASH, number: HASH}), 400, "PART_NUMBER_INVALID")
        assert recorded(gateway, upload) == {}

    def test_a_thousand_are_taken_and_no_more(self, user: User) -> None:
        upload = user.create(Content(b""), size=1001 * 8 * 1024**2)
        assert sign(user, upload, {str(n): HASH for n in range(1, 1001)}).status_code == 200
        error(sign(user, upload, {str(n): HASH for n in range(1, 1002)}), 400, "BODY_INVALID")
        error(sign(user, upload, {}), 400, "BODY_INVALID")

    @pytest.mark.parametrize(
        "sha256", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 63 + "\n", HASH + "\n", None, 1]
    )
    def test_what_is_no_hash_is_refused(
        self, gateway: Gateway, user: User, upload: dict[str, Any], sha256: Any
    ) -> None:
        error(sign(user, upload, {"1": sha256}), 400, "BODY_INVALID")
        assert recorded(gateway, upload) == {}


class TestURLs:
    def test_a_url_dies_with_its_15_minutes_or_with_the_upload(
        self, gateway: Gateway, user: User, upload: dict[str, Any]
    ) -> None:
        now = int(gateway.clock.now.timestamp())
        assert f"exp={now + 900}" in sign(user, upload, {"1": HASH}).json["parts"]["1"]["url"]
        gateway.clock.turn(604_800 - 60)
        body = {"username": user.name, "password": user.password}
        user.session = gateway.http.simulate_post("/api/v1/sessions", json=body).json
        assert f"exp={now + 604_800}" in sign(user, upload, {"1": HASH}).json["parts"]["1"]["url"]
        gateway.clock.turn(60)
        error(sign(user, upload, {"1": HASH}), 409, "UPLOAD_NOT_OPEN")

    def test_the_edges_url_is_a_token_over_part_and_length(self, gateway: Gateway) -> None:
        from api.core.claims import PartClaims
        from api.core.tokens import Tokens
        from api.storage.base import MultipartRef
        from api.uploads import part_urls

        ref = MultipartRef("1" * 32, "k", "local", SIZE, 8 * 1024**2, 5, "2" * 32, 7, session_id="3" * 32)
        url = part_urls.at_edge(Tokens([KEY]), "https://files.example")(ref, 3, 8388608, 4_000_000_000)
        place, _, token = url.rpartition("/")
        assert place == "https://files.example/p"
        claims = PartClaims(
            exp=4_000_000_000,
            upload_id="1" * 32,
            number=3,
            size=8388608,
            user_id="2" * 32,
            session_id="3" * 32,
            generation=7,
            tier="default",
        )
        assert Tokens([KEY]).unseal(token) == claims


class TestLimit:
    def test_parts_of_one_users_unfinished_uploads_are_limited(self, build: Callable[..., Gateway]) -> None:
        gateway = build(user_parts=10_000)
        user, large = gateway.user(), {"name": "a", "size": 6000 * 8 * 1024**2}
        one = user.post("/uploads", large | {"resume_key": "a"}).json
        error(user.post("/uploads", large | {"resume_key": "b"}), 429, "PARTS_LIMITED")
        assert user.post("/uploads", large | {"resume_key": "a"}).json["id"] == one["id"]
        assert user.post("/uploads", {"name": "b", "size": 4000 * 8 * 1024**2}).status_code == 201
        error(user.post("/uploads", {"name": "c", "size": 1}), 429, "PARTS_LIMITED")
        assert user.post("/uploads", {"name": "empty", "size": 0}).status_code == 201
        assert gateway.user().post("/uploads", large | {"parts": {"1": HASH}}).status_code == 201
        user.call("DELETE", f"/uploads/{one['id']}")
        assert user.post("/uploads", large | {"resume_key": "b"}).status_code == 201


def test_signing_instead_of_proving_gives_the_challenge_up(gateway: Gateway, user: User) -> None:
    content = Content.of_parts(2, "no proof")
    upload = user.create(content, digest=content.digest)
    assert upload["state"] == "proving"
    assert sign(user, upload, content.hashes([1])).status_code == 200
    seen = user.get(f"/uploads/{upload['id']}").json
    assert (seen["state"], seen["challenge"]) == ("uploading", None)


class TestAStorageThatLeaksWhatIsSentAgain:
    """RGW 16 never frees the first copy of a part that is sent twice."""

    @pytest.fixture
    def gateway(self, gateway: Gateway) -> Gateway:
        gateway.storage.leaks_resent_parts = True
        return gateway

    def store(self, gateway: Gateway, upload: dict[str, Any], number: int, length: int = 8 * 1024**2) -> None:
        gateway.storage.uploads[upload["id"]][number] = bytes(length)
        gateway.clock.turn(6)  # the storage is asked at most once in 5 s

    def test_what_the_storage_has_gets_no_url(self, gateway: Gateway, user: User, upload: dict[str, Any]) -> None:
        every = {str(n): HASH for n in range(1, 6)}
        assert set(sign(user, upload, every).json["parts"]) == set("12345")
        for number in (1, 3, 5):
            self.store(gateway, upload, number)
        answer = sign(user, upload, every)
        assert (answer.status_code, set(answer.json["parts"])) == (200, {"2", "4"})
        answer = sign(user, upload, {"1": HASH})
        assert (answer.status_code, answer.json) == (200, {"parts": {}})
        error(sign(user, upload, {"1": OTHER}), 409, "PART_HASH_CONFLICT")

    def test_nor_when_the_upload_is_found_again(self, gateway: Gateway, user: User) -> None:
        new = {"name": "a", "size": SIZE, "resume_key": "k", "parts": {"1": HASH, "2": HASH}}
        upload = user.post("/uploads", new).json
        self.store(gateway, upload, 2)
        again = user.post("/uploads", new)
        assert (again.status_code, set(again.json["parts"])) == (200, {"1"})
        assert again.json["received"] == [[2, 2]]

    def test_a_part_of_another_length_is_to_be_sent_again(
        self, gateway: Gateway, user: User, upload: dict[str, Any]
    ) -> None:
        sign(user, upload, {"1": HASH})
        self.store(gateway, upload, 1, length=7)
        assert set(sign(user, upload, {"1": HASH}).json["parts"]) == {"1"}

    def test_the_storage_is_asked_only_for_parts_that_were_signed_before(
        self, gateway: Gateway, user: User, upload: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []
        list_parts = gateway.storage.list_parts

        def ask(ref: MultipartRef) -> dict[int, int]:
            asked.append("")
            return list_parts(ref)

        monkeypatch.setattr(gateway.storage, "list_parts", ask)
        for number in "12345":
            sign(user, upload, {number: HASH})
        assert not asked
        for _ in range(3):
            sign(user, upload, {"1": HASH, "2": HASH})
        assert len(asked) == 1  # once in 5 s

    def test_a_part_gets_five_urls(self, gateway: Gateway, user: User, upload: dict[str, Any]) -> None:
        for _ in range(5):
            assert sign(user, upload, {"1": HASH, "2": HASH}).status_code == 200
        sign(user, upload, {"2": HASH})
        answer = sign(user, upload, {"1": HASH, "2": HASH, "3": HASH})
        assert error(answer, 409, "PART_TRIES_EXHAUSTED")["parts"] == [1, 2]
        assert recorded(gateway, upload) == {1: HASH, 2: HASH}
        assert sign(user, upload, {"3": HASH}).status_code == 200
        # Stored parts do not count towards the limit.
        self.store(gateway, upload, 1)
        self.store(gateway, upload, 2)
        assert set(sign(user, upload, {"1": HASH, "2": HASH, "3": HASH}).json["parts"]) == {"3"}

    def test_calls_at_the_same_moment_get_one_url(self, gateway: Gateway, user: User, upload: dict[str, Any]) -> None:
        answers = together(*[lambda: sign(user, upload, {"1": HASH})] * 12)
        urls = {answer.json["parts"]["1"]["url"] for answer in answers if answer.status_code == 200}
        assert len(urls) == 1
        error(sign(user, upload, {"1": HASH}), 409, "PART_TRIES_EXHAUSTED")

    def test_a_thousand_parts_take_four_statements(self, gateway: Gateway, user: User) -> None:
        upload = user.create(Content(b""), size=1000 * 8 * 1024**2)
        thousand = {str(n): HASH for n in range(1, 1001)}
        for _ in range(2):
            gateway.statements.clear()
            assert sign(user, upload, thousand).status_code == 200
            assert len([sql for sql, _ in gateway.statements if "session" not in sql]) <= 4

    def test_other_storages_sign_as_often_as_they_are_asked(
        self, gateway: Gateway, user: User, upload: dict[str, Any]
    ) -> None:
        gateway.storage.leaks_resent_parts = False
        sign(user, upload, {"1": HASH})
        self.store(gateway, upload, 1)
        for _ in range(7):
            assert set(sign(user, upload, {"1": HASH}).json["parts"]) == {"1"}
