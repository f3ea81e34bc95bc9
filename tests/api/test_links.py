"""Links: what their claims say, and what ends them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from api.core.errors import Problem
from api.core.tokens import MAX_LENGTH
from tests.api.conftest import Content, Gateway, User, error

EMPTY = Content(b"")


def claims_of(gateway: Gateway, url: str) -> dict[str, Any]:
    """A link's claims; its URL must have the form that the edge takes."""
    parts = urlsplit(url)
    assert f"{parts.scheme}://{parts.netloc}" == gateway.config.public_url
    _, d, token, _ = parts.path.split("/")
    assert d == "d"
    return gateway.services.tokens.verify("link", token, now=gateway.clock.now.timestamp())


def make(user: User, file: dict[str, Any], **body: Any) -> str:
    answer = user.post(f"/files/{file['id']}/links", body)
    assert answer.status_code == 201, answer.text
    url: str = answer.json["url"]
    return url


class TestClaims:
    def test_a_link_says_all_that_the_edge_needs(self, gateway: Gateway, user: User) -> None:
        file = user.upload(Content(b"linked"), "résumé 📦.pdf", content_type="application/pdf")
        ((blob,),) = gateway.rows("SELECT LOWER(HEX(blob_id)) FROM file WHERE id = UNHEX(%s)", file["id"])
        url = make(user, file)
        claims = claims_of(gateway, url)
        assert len(claims.pop("jti")) == 32
        assert claims == {
            "file": file["id"],
            "fgen": 1,
            "blob": blob,
            "size": 6,
            "sub": user.id,
            "gen": 0,
            "tier": "default",
            "disp": "attachment",
            "name": "résumé 📦.pdf",
            "type": "application/pdf",
            "exp": int(gateway.clock.now.timestamp()) + 3600,
        }
        assert unquote(url.rpartition("/")[2]) == "résumé 📦.pdf"

    def test_each_link_has_an_id_of_its_own(self, gateway: Gateway, user: User) -> None:
        file = user.create(EMPTY)["file"]
        assert len({claims_of(gateway, make(user, file))["jti"] for _ in range(3)}) == 3

    @pytest.mark.parametrize("seconds", [1, 60, 604_800])
    def test_its_life_is_as_long_as_asked(self, gateway: Gateway, user: User, seconds: int) -> None:
        file = user.create(EMPTY)["file"]
        answer = user.post(f"/files/{file['id']}/links", {"expires_in": seconds})
        exp = claims_of(gateway, answer.json["url"])["exp"]
        assert exp == int(gateway.clock.now.timestamp()) + seconds
        assert datetime.fromisoformat(answer.json["expires_at"]).timestamp() == exp

    @pytest.mark.parametrize("seconds", [0, -1, 604_801, 2**63, "60", 1.5, True])
    def test_a_life_out_of_bounds_is_refused(self, user: User, seconds: Any) -> None:
        file = user.create(EMPTY)["file"]
        error(user.post(f"/files/{file['id']}/links", {"expires_in": seconds}), 400, "BODY_INVALID")

    @pytest.mark.parametrize(
        ("content_type", "inline"),
        [
            ("image/png", True),
            ("IMAGE/PNG", True),
            ("text/plain; charset=utf-8", True),
            ("application/pdf", True),
            ("text/html", False),
            ("image/svg+xml", False),
            ("application/xhtml+xml", False),
            ("text/xml", False),
            ("application/javascript", False),
            ("text/html; x=image/png", False),
            (None, False),
        ],
    )
    def test_inline_is_for_what_cannot_run_script_and_attachment_for_the_rest(
        self, gateway: Gateway, user: User, content_type: str | None, inline: bool
    ) -> None:
        file = user.create(EMPTY, content_type=content_type)["file"]
        asked = claims_of(gateway, make(user, file, disposition="inline"))
        assert asked["disp"] == ("inline" if inline else "attachment")
        assert claims_of(gateway, make(user, file, disposition="attachment"))["disp"] == "attachment"
        assert claims_of(gateway, make(user, file))["disp"] == "attachment"

    def test_another_disposition_is_refused(self, user: User) -> None:
        file = user.create(EMPTY)["file"]
        error(user.post(f"/files/{file['id']}/links", {"disposition": "form-data"}), 400, "BODY_INVALID")
        error(user.get(f"/files/{file['id']}/content", disposition="form-data"), 400, "PARAMETER_INVALID")

    @pytest.mark.parametrize("name", ['"' * 255, "😀" * 63 + "abc", "a" * 255, "%" * 255])
    def test_the_longest_name_and_type_still_fit_a_token_and_a_url(
        self, gateway: Gateway, user: User, name: str
    ) -> None:
        content_type = f"application/{'x' * 127}; charset={'y' * 100}"
        file = user.create(EMPTY, name, content_type=content_type)["file"]
        assert file["content_type"] == content_type
        url = make(user, file)
        assert claims_of(gateway, url)["name"] == name
        assert len(urlsplit(url).path.split("/")[2]) <= MAX_LENGTH
        assert len(url) < 8000

    def test_a_name_never_leaves_its_place_in_the_url(self, gateway: Gateway, user: User) -> None:
        for name in ("a?b#c", "a%2fb", "a b;c", "..."):
            url = make(user, user.create(EMPTY, name)["file"])
            parts = urlsplit(url)
            assert (parts.query, parts.fragment) == ("", "")
            assert unquote(parts.path.rpartition("/")[2]) == name


class TestContent:
    def test_the_owner_is_sent_to_nginx_with_a_link_of_a_minute(self, gateway: Gateway, user: User) -> None:
        file = user.create(EMPTY, "a.png", content_type="image/png")["file"]
        for method in ("GET", "HEAD"):
            answer = user.call(method, f"/files/{file['id']}/content")
            assert (answer.status_code, answer.content) == (200, b"")
            _, location, token, _ = answer.headers["x-accel-redirect"].split("/")
            claims = gateway.services.tokens.verify("link", token, now=gateway.clock.now.timestamp())
            assert location == "_link"
            assert (claims["file"], claims["disp"]) == (file["id"], "attachment")
            assert claims["exp"] == int(gateway.clock.now.timestamp()) + 60
        inline = user.get(f"/files/{file['id']}/content", disposition="inline").headers["x-accel-redirect"]
        assert gateway.services.tokens.verify("link", inline.split("/")[2])["disp"] == "inline"

    def test_where_the_bytes_lie_comes_along(self, gateway: Gateway, user: User) -> None:
        file = user.upload(Content(b"along"))
        told = json.loads(user.get(f"/files/{file['id']}/content").headers["x-sluice-target"])
        edge = {"X-Sluice-Edge": "e" * 64}
        assert told == gateway.http.simulate_get(f"/internal/targets/{told['blob']}", headers=edge).json
        assert (told["digest"], told["size"], told["name"]) == (file["digest"], 5, "local")

    def test_a_name_is_never_part_of_the_redirect(self, user: User) -> None:
        file = user.create(EMPTY, 'x"; é 😀 %0d%0a')["file"]
        redirect = user.get(f"/files/{file['id']}/content").headers["x-accel-redirect"]
        assert redirect.isascii()
        assert redirect.endswith("/content")

    def test_damaged_content_is_said_to_be_so(self, gateway: Gateway, user: User) -> None:
        file = user.upload(Content(b"damaged"))
        gateway.db.execute(
            "UPDATE `blob` b JOIN file f ON f.blob_id = b.id SET b.state = 'corrupt' WHERE f.id = UNHEX(%s)",
            (file["id"],),
        )
        assert user.get(f"/files/{file['id']}").json["state"] == "corrupt"
        error(user.post(f"/files/{file['id']}/links"), 410, "FILE_CORRUPT")
        error(user.get(f"/files/{file['id']}/content"), 410, "FILE_CORRUPT")


class TestEnd:
    def revocations(self, gateway: Gateway, file: dict[str, Any]) -> list[int]:
        rows = gateway.rows(
            "SELECT generation FROM revocation WHERE kind = 'file' AND subject = UNHEX(%s) ORDER BY id", file["id"]
        )
        return [generation for (generation,) in rows]

    def test_trash_ends_the_generation_and_restore_does_not_bring_it_back(self, gateway: Gateway, user: User) -> None:
        file = user.create(EMPTY)["file"]
        path, seen = f"/files/{file['id']}", []
        for _ in range(3):
            seen.append(claims_of(gateway, make(user, file))["fgen"])
            user.call("DELETE", path)
            user.call("DELETE", path)  # again: nothing more is written
            user.post(f"{path}/restore")
        assert seen == [1, 2, 3]
        assert self.revocations(gateway, file) == [1, 2, 3]

    def test_a_revocation_outlives_every_link_that_it_ends(self, gateway: Gateway, user: User) -> None:
        file = user.create(EMPTY)["file"]
        exp = claims_of(gateway, make(user, file, expires_in=604_800))["exp"]
        user.call("DELETE", f"/files/{file['id']}")
        ((expires_at,),) = gateway.rows(
            "SELECT UNIX_TIMESTAMP(expires_at) FROM revocation WHERE subject = UNHEX(%s)", file["id"]
        )
        assert expires_at > exp

    def test_the_session_that_made_it_may_end(self, gateway: Gateway, user: User) -> None:
        file = user.create(EMPTY)["file"]
        claims = claims_of(gateway, make(user, file))
        user.call("DELETE", "/sessions/current")
        assert "sid" not in claims
        assert self.revocations(gateway, file) == []


class TestWithdrawn:
    def test_links_that_were_made_before_end_and_later_ones_do_not(self, gateway: Gateway, user: User) -> None:
        file = user.create(EMPTY)["file"]
        before = claims_of(gateway, make(user, file))
        assert user.call("DELETE", f"/files/{file['id']}/links").status_code == 204
        after = claims_of(gateway, make(user, file))
        rows = gateway.rows("SELECT generation FROM revocation WHERE kind = 'file' AND subject = UNHEX(%s)", file["id"])
        assert [row[0] for row in rows] == [before["fgen"]]
        assert after["fgen"] > before["fgen"]
        assert user.get(f"/files/{file['id']}").json["trashed_at"] is None

    def test_nobody_elses_and_none_of_the_trash(self, gateway: Gateway, user: User) -> None:
        file = user.create(EMPTY)["file"]
        error(gateway.user().call("DELETE", f"/files/{file['id']}/links"), 404, "FILE_NOT_FOUND")
        user.call("DELETE", f"/files/{file['id']}")
        error(user.call("DELETE", f"/files/{file['id']}/links"), 404, "FILE_NOT_FOUND")


class TestDisabled:
    def test_every_token_of_the_account_is_revoked_for_as_long_as_it_could_live(
        self, gateway: Gateway, user: User
    ) -> None:
        link = claims_of(gateway, make(user, user.create(EMPTY)["file"], expires_in=604_800))
        assert gateway.services.accounts.disable(user.name.upper())
        assert not gateway.services.accounts.disable(user.name)
        rows = gateway.rows(
            "SELECT generation, expires_at > %s FROM revocation WHERE kind = 'user' AND subject = UNHEX(%s)",
            datetime.fromtimestamp(link["exp"], UTC).replace(tzinfo=None),
            user.id,
        )
        assert rows == ((link["gen"], 1),)
        error(user.get("/users/me"), 401, "TOKEN_REVOKED")
        assert gateway.services.accounts.enable(user.name)
        assert not gateway.services.accounts.enable(user.name)
        body = {"username": user.name, "password": user.password}
        session = gateway.http.simulate_post("/api/v1/sessions", json=body).json
        claims = gateway.services.tokens.verify("access", session["access_token"], now=0)
        assert claims["gen"] == link["gen"] + 1

    def test_an_account_that_is_not_there(self, gateway: Gateway) -> None:
        with pytest.raises(Problem, match="ACCOUNT_NOT_FOUND"):
            gateway.services.accounts.disable("nobody at all")
