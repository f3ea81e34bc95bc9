"""The size of an upload whose size was not known at its beginning."""

from __future__ import annotations

from typing import Any

import pytest

from api.core.errors import StorageFull
from tests.api.conftest import Content, Gateway, User, error

PART = 8 * 1024**2


def resize(user: User, upload: Any, size: int) -> Any:
    return user.call("PATCH", f"/uploads/{upload['id']}", json={"size": size})


@pytest.mark.parametrize("count", [2, 3, 5], ids=["shrunk", "as said", "grown"])
def test_a_stream_is_sent_while_nobody_knows_its_end(gateway: Gateway, user: User, count: int) -> None:
    content = Content.of_parts(count, f"stream {count}")
    upload = user.post("/uploads", {"name": "stream", "size": 3 * PART}).json
    for number in range(1, count + 1):
        if number == count:
            upload = resize(user, upload, content.size).json
        elif number > upload["part_count"]:
            upload = resize(user, upload, 2 * upload["size"]).json
        user.put(upload, content, [number])
    assert (upload["size"], upload["part_count"], upload["missing"][-1][-1]) == (content.size, count, count)
    file = user.complete(upload).json["file"]
    assert (file["size"], file["digest"]) == (content.size, content.digest)


@pytest.mark.parametrize(
    "size", [-1, 0, 1, PART, 10_000 * PART + 1, 2**62, 2 * PART - 1, 2 * PART - PART // 2, 3 * PART + 1]
)
def test_sizes_that_would_change_a_part(user: User, size: int) -> None:
    """Two parts of three are signed; the third is short."""
    content = Content.of_parts(3, "sizes")
    upload = user.post("/uploads", {"name": "a", "size": content.size}).json
    signed = [1, 2] if size != 3 * PART + 1 else [3]
    user.post(f"/uploads/{upload['id']}/parts", {"parts": content.hashes(signed)})
    error(resize(user, upload, size), 400, "SIZE_INVALID")
    assert user.get(f"/uploads/{upload['id']}").json["size"] == content.size


@pytest.mark.parametrize("size", [2 * PART, 3 * PART, 3 * PART - 7, 10_000 * PART])
def test_sizes_that_change_none(user: User, size: int) -> None:
    content = Content.of_parts(3, "good sizes")
    upload = user.post("/uploads", {"name": "a", "size": content.size}).json
    user.post(f"/uploads/{upload['id']}/parts", {"parts": content.hashes([1, 2])})
    assert resize(user, upload, size).json["size"] == size


def test_uploads_whose_size_is_final(gateway: Gateway, user: User) -> None:
    content = Content.of_parts(2, "final")
    known = user.create(content, digest=content.digest)
    named = user.post("/uploads", {"name": "a", "size": content.size, "resume_key": "k"}).json
    done = user.post("/uploads", {"name": "d", "size": content.size}).json
    user.put(done, content)
    user.complete(done)
    error(resize(user, known, 3 * PART), 409, "UPLOAD_NOT_OPEN")
    error(resize(user, named, 3 * PART), 400, "SIZE_INVALID")
    error(resize(user, done, 3 * PART), 409, "UPLOAD_NOT_OPEN")
    theirs = user.post("/uploads", {"name": "b", "size": content.size}).json
    error(resize(gateway.user(), theirs, 3 * PART), 404, "UPLOAD_NOT_FOUND")


def test_more_parts_and_bytes_are_within_the_limits(
    gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = user.post("/uploads", {"name": "a", "size": 2 * PART}).json
    monkeypatch.setattr(type(gateway.config), "user_parts", 4)
    assert resize(user, upload, 4 * PART).json["part_count"] == 4
    error(resize(user, upload, 4 * PART + 1), 429, "PARTS_LIMITED")

    def full(size: int, count: int) -> None:
        raise StorageFull(f"no room for {size}")

    monkeypatch.setattr(gateway.storage, "check_room", full)
    assert resize(user, upload, 3 * PART).status_code == 200
    error(resize(user, upload, 4 * PART), 507, "STORAGE_FULL")
