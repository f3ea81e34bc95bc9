"""Files: listed page by page while others come and go, renamed, trashed, restored."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from api.core.claims import CursorClaims
from tests.api.conftest import Content, Gateway, User, error

EMPTY = Content(b"")


def add(user: User, name: str) -> dict[str, Any]:
    """A file, as cheap as possible: an empty one."""
    file: dict[str, Any] = user.create(EMPTY, name)["file"]
    return file


def pages(user: User, **params: Any) -> list[dict[str, Any]]:
    """Every page of a list."""
    found = [user.get("/files", **params).json]
    while cursor := found[-1]["next_cursor"]:
        found.append(user.get("/files", cursor=cursor, **params).json)
        assert len(found) < 100
    return found


def names(listing: list[dict[str, Any]]) -> list[str]:
    return [item["name"] for page in listing for item in page["items"]]


class TestList:
    def test_newest_first_by_default(self, user: User) -> None:
        for name in ("b", "c", "a"):
            add(user, name)
        assert names(pages(user)) == ["a", "c", "b"]
        assert names(pages(user, order="newest")) == ["a", "c", "b"]

    def test_by_name_in_code_point_order_and_alike_names_by_age(self, user: User) -> None:
        given = ["b", "a", "é", "B", "10", "9", "😀", "a", "a b", "報告"]
        for name in given:
            add(user, name)
        assert names(pages(user, order="name", limit=3)) == sorted(given)

    @pytest.mark.parametrize("order", ["newest", "name"])
    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 1000])
    def test_pages_hold_every_file_once_and_end(self, user: User, order: str, limit: int) -> None:
        for n in range(7):
            add(user, f"{n % 4}")  # some names are equal
        listing = pages(user, order=order, limit=limit)
        seen = [item["id"] for page in listing for item in page["items"]]
        assert len(seen) == len({*seen}) == 7
        assert len(listing) == -(-7 // limit)
        assert [len(page["items"]) for page in listing[:-1]] == [limit] * (len(listing) - 1)

    @pytest.mark.parametrize("order", ["newest", "name"])
    def test_what_comes_and_goes_between_two_pages_moves_nothing_else(self, user: User, order: str) -> None:
        files = {name: add(user, name) for name in ("b", "d", "f", "h")}
        first = user.get("/files", order=order, limit=2).json
        shown = [item["name"] for item in first["items"]]
        assert shown == (["h", "f"] if order == "newest" else ["b", "d"])
        user.call("DELETE", f"/files/{files[shown[-1]]['id']}")  # the entry that the cursor points at
        for name in ("a", "c", "e", "i"):
            add(user, name)
        rest = user.get("/files", order=order, cursor=first["next_cursor"]).json
        assert names([rest]) == (["d", "b"] if order == "newest" else ["e", "f", "h", "i"])

    def test_a_list_is_of_ones_own(self, gateway: Gateway, user: User) -> None:
        add(user, "mine")
        add(gateway.user(), "theirs")
        assert names(pages(user)) == ["mine"]

    def test_nothing_is_an_empty_page(self, user: User) -> None:
        assert user.get("/files").json == {"items": [], "next_cursor": None}

    def test_the_default_is_50(self, user: User) -> None:
        for n in range(51):
            add(user, f"{n}")
        page = user.get("/files").json
        assert len(page["items"]) == 50
        assert page["next_cursor"]
        assert len(user.get("/files", limit=1000).json["items"]) == 51

    def test_the_longest_name_makes_a_cursor_that_is_taken(self, user: User) -> None:
        for name in ('"' * 255, "😀" * 63 + "abc", "\u0080"[:0] + "\x7e" * 255):
            add(user, name)
        assert len(names(pages(user, order="name", limit=1))) == 3


class TestFilters:
    @pytest.mark.parametrize(
        ("q", "found"),
        [
            ("report", ["Report.PDF", "my report"]),
            ("REPORT", ["Report.PDF", "my report"]),
            ("%", ["100%"]),
            ("_", ["a_b"]),
            ("\\", []),
            ("'", ["it's"]),
            ("報", ["報告"]),
            ("zzz", []),
        ],
    )
    def test_names_are_searched_as_they_are(self, user: User, q: str, found: list[str]) -> None:
        for name in ("Report.PDF", "my report", "100%", "a_b", "it's", "報告", "axb"):
            add(user, name)
        assert names(pages(user, order="name", q=q)) == sorted(found)
        assert names(pages(user, order="name", q=q, limit=1)) == sorted(found)

    @pytest.mark.parametrize("order", ["newest", "name"])
    @pytest.mark.parametrize("limit", [1, 2, 50])
    def test_a_search_looks_at_so_many_names_and_goes_on(
        self, user: User, order: str, limit: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("api.files.rows.SEARCHED", 4)
        given = ["x0", "x1", "a2", "a3", "a4", "a5", "a6", "a7", "x8", "a9", "x9", "x9"]  # one page has no match
        for name in given:
            add(user, name)
        listing = pages(user, order=order, limit=limit, q="X")
        wanted = [name for name in given if "x" in name]
        assert names(listing) == (sorted(wanted) if order == "name" else wanted[::-1])
        assert any(not page["items"] for page in listing)

    def test_a_digest_finds_its_files(self, user: User) -> None:
        file = user.upload(Content(b"by digest"), "a")
        add(user, "b")
        assert names(pages(user, digest=file["digest"])) == ["a"]
        assert names(pages(user, digest="0" * 64)) == []

    def test_the_trash_is_a_separate_list(self, user: User) -> None:
        kept, gone = add(user, "kept"), add(user, "gone")
        user.call("DELETE", f"/files/{gone['id']}")
        assert names(pages(user)) == ["kept"]
        assert names(pages(user, trashed="true")) == ["gone"]
        assert user.get(f"/files/{gone['id']}").json["trashed_at"]
        assert user.get(f"/files/{kept['id']}").json["trashed_at"] is None


class TestParameters:
    @pytest.mark.parametrize("limit", ["0", "-1", "1001", "1e2", "", " 1", "１", "9" * 5000, "ten"])
    @pytest.mark.parametrize("path", ["/files", "/uploads"])
    def test_a_limit_is_from_1_to_1000(self, user: User, path: str, limit: str) -> None:
        error(user.get(path, limit=limit), 400, "PARAMETER_INVALID")

    @pytest.mark.parametrize("limit", ["1", "1000", "0001"])
    def test_the_bounds_are_taken(self, user: User, limit: str) -> None:
        assert user.get("/files", limit=limit).status_code == 200

    @pytest.mark.parametrize(
        ("name", "value", "code"),
        [
            ("order", "size", "PARAMETER_INVALID"),
            ("order", "", "PARAMETER_INVALID"),
            ("order", "name; DROP TABLE file", "PARAMETER_INVALID"),
            ("trashed", "maybe", "PARAMETER_INVALID"),
            ("digest", "", "DIGEST_INVALID"),
            ("digest", "A" * 64, "DIGEST_INVALID"),
            ("digest", "a" * 63, "DIGEST_INVALID"),
            ("cursor", "", "CURSOR_INVALID"),
            ("cursor", "a.b.c", "CURSOR_INVALID"),
            ("cursor", "é", "CURSOR_INVALID"),
            ("cursor", "A" * 10_000, "CURSOR_INVALID"),
        ],
    )
    def test_what_a_parameter_does_not_take_is_refused(self, user: User, name: str, value: str, code: str) -> None:
        error(user.get("/files", **{name: value}), 400, code)

    def test_folders_come_later(self, user: User) -> None:
        error(user.get("/files", folder_id="0" * 32), 404, "FOLDER_NOT_FOUND")
        error(user.post("/uploads", {"name": "a", "size": 1, "folder_id": "0" * 32}), 404, "FOLDER_NOT_FOUND")

    def test_a_forged_or_foreign_cursor_is_refused(self, gateway: Gateway, user: User) -> None:
        for n in range(3):
            add(user, f"{n}")
        cursor = user.get("/files", limit=1).json["next_cursor"]
        assert user.get("/files", limit=1, cursor=cursor).status_code == 200
        middle = len(cursor) // 2
        forged = cursor[:middle] + ("A" if cursor[middle] != "A" else "B") + cursor[middle + 1 :]
        other = gateway.services.tokens.sign(CursorClaims(2**40, "0" * 32, "files:newest:false", ["0" * 32]))
        for bad in (forged, cursor + "=", cursor[:-1], other, user.session["access_token"]):
            error(user.get("/files", cursor=bad), 400, "CURSOR_INVALID")
        error(user.get("/files", cursor=cursor, order="name"), 400, "CURSOR_INVALID")
        error(user.get("/files", cursor=cursor, trashed="true"), 400, "CURSOR_INVALID")
        error(gateway.user().get("/files", cursor=cursor), 400, "CURSOR_INVALID")

    def test_a_cursor_is_good_for_a_week(self, gateway: Gateway, user: User) -> None:
        for n in range(2):
            add(user, f"{n}")
        cursor = user.get("/files", limit=1).json["next_cursor"]
        gateway.clock.turn(7 * 86_400)
        body = {"username": user.name, "password": user.password}
        user.session = gateway.http.simulate_post("/api/v1/sessions", json=body).json
        error(user.get("/files", cursor=cursor), 400, "CURSOR_INVALID")


class TestItem:
    def test_a_file_has_its_properties(self, gateway: Gateway, user: User) -> None:
        content = Content(b"described")
        file = user.upload(content, "résumé.pdf", content_type="application/pdf")
        assert user.get(f"/files/{file['id']}").json == file
        assert file == {
            "id": file["id"],
            "name": "résumé.pdf",
            "size": 9,
            "digest": content.digest,
            "content_type": "application/pdf",
            "folder_id": None,
            "state": "ready",
            "created_at": file["created_at"],
            "updated_at": file["created_at"],
            "trashed_at": None,
            "sha256": content.hashes()["1"],
        }
        assert file["created_at"].endswith("Z")

    def test_two_files_may_have_one_name(self, user: User) -> None:
        one, two = user.upload(Content(b"first"), "same"), user.upload(Content(b"second"), "same")
        assert one["id"] != two["id"]
        assert names(pages(user)) == ["same", "same"]

    def test_rename_changes_the_name_alone(self, gateway: Gateway, user: User) -> None:
        file = user.upload(Content(b"renamed"), "before")
        gateway.clock.turn(1)
        renamed = user.call("PATCH", f"/files/{file['id']}", json={"name": "after 📦"}).json
        assert renamed["updated_at"] > file["updated_at"]
        assert renamed | {"name": "before", "updated_at": file["updated_at"]} == file

    @pytest.mark.parametrize("name", ["", "../x", "a" * 300, "a\0", "\u202ex", "a\nb"])
    def test_a_name_that_cannot_be_used_changes_nothing(self, user: User, name: str) -> None:
        file = add(user, "fine")
        error(user.call("PATCH", f"/files/{file['id']}", json={"name": name}), 400, "NAME_INVALID")
        assert user.get(f"/files/{file['id']}").json["name"] == "fine"

    def test_another_users_file_is_not_found_by_any_call(self, gateway: Gateway, user: User) -> None:
        file, stranger = add(user, "mine"), gateway.user()
        path = f"/files/{file['id']}"
        for answer in (
            stranger.get(path),
            stranger.call("PATCH", path, json={"name": "theirs"}),
            stranger.call("DELETE", path),
            stranger.post(f"{path}/restore"),
            stranger.post(f"{path}/links"),
            stranger.get(f"{path}/content"),
        ):
            error(answer, 404, "FILE_NOT_FOUND")
        assert user.get(path).json == file

    @pytest.mark.parametrize("file_id", ["0" * 32, "F" * 32, "x", "0" * 31, "0" * 33, "%00", "..", "é" * 32])
    def test_what_cannot_be_an_id_names_nothing(self, user: User, file_id: str) -> None:
        error(user.get(f"/files/{quote(file_id)}"), 404, "FILE_NOT_FOUND")
        error(user.get(f"/uploads/{quote(file_id)}"), 404, "UPLOAD_NOT_FOUND")


class TestTrash:
    def test_a_trashed_file_is_seen_and_otherwise_not_there(self, user: User) -> None:
        file = add(user, "trashed")
        path = f"/files/{file['id']}"
        assert user.call("DELETE", path).status_code == 204
        assert user.call("DELETE", path).status_code == 204
        assert user.get(path).status_code == 200
        for answer in (
            user.call("PATCH", path, json={"name": "b"}),
            user.post(f"{path}/links"),
            user.get(f"{path}/content"),
        ):
            error(answer, 404, "FILE_NOT_FOUND")

    def test_a_restored_file_is_there_again(self, user: User) -> None:
        file = add(user, "restored")
        path = f"/files/{file['id']}"
        user.call("DELETE", path)
        for _ in range(2):
            restored = user.post(f"{path}/restore").json
            assert restored["trashed_at"] is None
        assert user.post(f"{path}/links").status_code == 201
        assert names(pages(user)) == ["restored"]
