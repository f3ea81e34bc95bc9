"""The upload protocol, from create to done, and every way it can be bent."""

from __future__ import annotations

import hashlib

import pytest

from tests.api.conftest import Content, Gateway, User


def code(answer: object) -> str:
    """An answer's error code."""
    return str(answer.json["error"]["code"])  # type: ignore[attr-defined]


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

    def test_an_empty_file_is_done_at_once(self, user: User) -> None:
        made = user.create(Content(b""), "empty")
        assert made["state"] == "done"
        assert made["file"]["digest"] == hashlib.sha256(b"").hexdigest()
        assert (made["part_count"], made["missing"], made["percent"]) == (0, [], 100.0)
        again = user.create(Content(b""), "empty too")
        assert again["file"]["id"] != made["file"]["id"]

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
