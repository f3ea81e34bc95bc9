"""Links: their claims, and what ends them."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import falcon.testing
import pytest

from api.core.claims import AccessClaims, LinkClaims
from api.core.errors import Problem
from tests.api.conftest import EDGE_KEY, Content, Gateway, User, error, together

EMPTY = Content(b"")


def claims_of(gateway: Gateway, url: str) -> LinkClaims:
    """A link's claims. Its URL must have the form that the edge accepts."""
    parts = urlsplit(url)
    assert f"{parts.scheme}://{parts.netloc}" == gateway.config.public_url
    _, d, token, _ = parts.path.split("/")
    assert d == "d"
    return gateway.services.tokens.verify_link(token, now=gateway.clock.now.timestamp())


def target(gateway: Gateway, file: dict[str, Any]) -> falcon.testing.Result:
    return gateway.http.simulate_get(f"/internal/targets/{file['id']}", headers={"X-Sluice-Edge": EDGE_KEY})


def holds(gateway: Gateway, file: dict[str, Any], url: str) -> bool:
    """Whether an edge would send the file by a link."""
    answer = target(gateway, file)
    if answer.status_code != 200:
        error(answer, 410, "LINK_REVOKED")
        return False
    return bool(answer.json["generation"] == claims_of(gateway, url).generation)


def make(user: User, file: dict[str, Any], **body: Any) -> str:
    answer = user.post(f"/files/{file['id']}/links", body)
    assert answer.status_code == 201, answer.text
    url: str = answer.json["url"]
    return url


class TestClaims:
    def test_a_link_names_its_file_and_nothing_about_its_owner_or_content(self, gateway: Gateway, user: User) -> None:
        gateway.user().upload(Content(b"linked"))  # the first uploader and the time must not show
        file = user.upload(Content(b"linked"), "résumé 📦.pdf", content_type="application/pdf")
        ((blob,),) = gateway.rows("SELECT blob_id FROM file WHERE id = UNHEX(%s)", file["id"])
        url = make(user, file)
        claims = claims_of(gateway, url)
        exp = int(gateway.clock.now.timestamp()) + 3600
        assert claims == LinkClaims(claims.link_id, bytes.fromhex(file["id"]), 1, "attachment", exp)
        assert unquote(url.rpartition("/")[2]) == "résumé 📦.pdf"
        token = url.split("/")[4]
        seen = token.encode() + b"".join(urlsafe_b64decode(piece + "==") for piece in token.split("."))
        for secret in (blob, blob[:6], bytes.fromhex(user.id), b"default", bytes.fromhex(file["digest"])):
            assert secret not in seen
            assert secret.hex().encode() not in seen

    def test_each_link_has_another_id(self, gateway: Gateway, user: User) -> None:
        file = user.create(EMPTY)["file"]
        assert len({claims_of(gateway, make(user, file)).link_id for _ in range(3)}) == 3

    @pytest.mark.parametrize("seconds", [1, 60, 604_800])
    def test_its_life_is_as_long_as_asked(self, gateway: Gateway, user: User, seconds: int) -> None:
        file = user.create(EMPTY)["file"]
        answer = user.post(f"/files/{file['id']}/links", {"expires_in": seconds})
        exp = claims_of(gateway, answer.json["url"]).exp
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
        assert asked.disposition == ("inline" if inline else "attachment")
        assert claims_of(gateway, make(user, file, disposition="attachment")).disposition == "attachment"
        assert claims_of(gateway, make(user, file)).disposition == "attachment"

    def test_another_disposition_is_refused(self, user: User) -> None:
        file = user.create(EMPTY)["file"]
        error(user.post(f"/files/{file['id']}/links", {"disposition": "form-data"}), 400, "BODY_INVALID")
        error(user.get(f"/files/{file['id']}/content", disposition="form-data"), 400, "PARAMETER_INVALID")

    @pytest.mark.parametrize(
        ("name", "most"),
        [("a" * 20, 260), ("文" * 50, 998), ('"' * 255, 998), ("😀" * 63 + "abc", 998), ("a" * 255, 998)],
    )
    def test_a_link_is_short_whatever_the_name(self, gateway: Gateway, user: User, name: str, most: int) -> None:
        url = make(user, user.create(EMPTY, name)["file"])
        assert len(url.split("/")[4]) < 100
        assert len(url) < most
        assert unquote(url.rpartition("/")[2]) == name

    def test_a_name_that_is_too_long_for_a_line_is_cut_between_two_characters(
        self, build: Callable[..., Gateway]
    ) -> None:
        gateway = build(public_url=f"https://{'files.' * 30}example")
        user = gateway.user()
        url = make(user, user.create(EMPTY, "😀" * 61 + ".tar.gz")["file"])
        assert 985 < len(url) < 998
        name = unquote(url.rpartition("/")[2])
        assert name.endswith("😀.gz")
        assert set(name.removesuffix(".gz")) == {"😀"}

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
            claims = gateway.services.tokens.verify_link(token, now=gateway.clock.now.timestamp())
            assert location == "_link"
            assert (claims.file_id.hex(), claims.disposition) == (file["id"], "attachment")
            assert claims.exp == int(gateway.clock.now.timestamp()) + 60
        inline = user.get(f"/files/{file['id']}/content", disposition="inline").headers["x-accel-redirect"]
        assert gateway.services.tokens.verify_link(inline.split("/")[2]).disposition == "inline"

    def test_where_the_bytes_lie_comes_along(self, gateway: Gateway, user: User) -> None:
        file = user.upload(Content(b"along"), "汉字 🎉.txt")
        header = user.get(f"/files/{file['id']}/content").headers["x-sluice-target"]
        assert header.isascii()
        told = json.loads(header)
        assert told == target(gateway, file).json
        assert (told["digest"], told["size"], told["name"]) == (file["digest"], 5, "local")

    def test_a_name_is_never_part_of_the_redirect(self, user: User) -> None:
        file = user.create(EMPTY, 'x"; é 😀 %0d%0a')["file"]
        redirect = user.get(f"/files/{file['id']}/content").headers["x-accel-redirect"]
        assert redirect.isascii()
        assert redirect.endswith("/content")

    def test_damaged_content_is_reported(self, gateway: Gateway, user: User) -> None:
        file = user.upload(Content(b"damaged"))
        gateway.db.execute(
            "UPDATE `blob` b JOIN file f ON f.blob_id = b.id SET b.state = 'corrupt' WHERE f.id = UNHEX(%s)",
            (file["id"],),
        )
        assert user.get(f"/files/{file['id']}").json["state"] == "corrupt"
        error(user.post(f"/files/{file['id']}/links"), 410, "FILE_CORRUPT")
        error(user.get(f"/files/{file['id']}/content"), 410, "FILE_CORRUPT")


def user_rows(gateway: Gateway, user: User) -> list[tuple[int, datetime, datetime]]:
    """The rows of an account in the feed: generation, moment, end."""
    sql = "SELECT generation, noted_at, expires_at FROM revocation WHERE kind = 'user' AND subject = UNHEX(%s)"
    return [(generation, noted, ends) for generation, noted, ends in gateway.rows(sql, user.id)]


class TestEnd:
    def test_trash_ends_the_generation_and_restore_does_not_bring_it_back(self, gateway: Gateway, user: User) -> None:
        file = user.create(EMPTY)["file"]
        path, links = f"/files/{file['id']}", []
        for _ in range(3):
            links.append(make(user, file))
            assert [holds(gateway, file, url) for url in links] == [False] * (len(links) - 1) + [True]
            user.call("DELETE", path)
            assert not any(holds(gateway, file, url) for url in links)
            user.call("DELETE", path)
            user.post(f"{path}/restore")
            assert not any(holds(gateway, file, url) for url in links)

    def test_all_that_an_account_trashes_is_one_row_that_is_written_again(self, gateway: Gateway, user: User) -> None:
        files, seen = [user.create(EMPTY, f"{n}")["file"] for n in range(5)], []
        for file in files:
            user.call("DELETE", f"/files/{file['id']}")
            ((generation, noted, ends),) = user_rows(gateway, user)
            assert generation == 0
            assert 100 < (ends - noted).total_seconds() < 180
            seen.append(noted)
        assert seen == sorted(set(seen)), "an edge recognizes new rows by their moment"
        user.call("DELETE", f"/files/{files[0]['id']}")  # repeated: nothing more is written
        assert user_rows(gateway, user)[0][1] == seen[-1]

    def test_the_session_that_made_it_may_end(self, gateway: Gateway, user: User) -> None:
        file = user.create(EMPTY)["file"]
        url = make(user, file)
        user.call("DELETE", "/sessions/current")
        assert holds(gateway, file, url)

    def test_by_many_threads_concurrently_none_fails(self, gateway: Gateway, user: User) -> None:
        files = [user.create(EMPTY, f"{n}")["file"] for n in range(40)]
        answers = together(*[lambda f=file: user.call("DELETE", f"/files/{f['id']}") for file in files])
        assert {answer.status_code for answer in answers} == {204}
        assert len(user_rows(gateway, user)) == 1


class TestWithdrawn:
    def test_links_that_were_made_before_end_and_later_ones_do_not(self, gateway: Gateway, user: User) -> None:
        file = user.create(EMPTY)["file"]
        before = make(user, file)
        assert user.call("DELETE", f"/files/{file['id']}/links").status_code == 204
        assert len(user_rows(gateway, user)) == 1
        after = make(user, file)
        assert (holds(gateway, file, before), holds(gateway, file, after)) == (False, True)
        assert user.get(f"/files/{file['id']}").json["trashed_at"] is None

    def test_no_other_users_and_none_of_the_trash(self, gateway: Gateway, user: User) -> None:
        file = user.create(EMPTY)["file"]
        error(gateway.user().call("DELETE", f"/files/{file['id']}/links"), 404, "FILE_NOT_FOUND")
        user.call("DELETE", f"/files/{file['id']}")
        error(user.call("DELETE", f"/files/{file['id']}/links"), 404, "FILE_NOT_FOUND")


class TestDisabled:
    def test_every_token_of_the_account_ends_and_every_link_stays_dead(self, gateway: Gateway, user: User) -> None:
        file = user.create(EMPTY)["file"]
        url = make(user, file, expires_in=604_800)
        assert gateway.services.accounts.disable(user.name.upper())
        assert not gateway.services.accounts.disable(user.name)
        ((generation, noted, ends),) = user_rows(gateway, user)
        assert (generation, (ends - noted).total_seconds()) == (1, 900 + 300)
        error(user.get("/users/me"), 401, "TOKEN_REVOKED")
        assert not holds(gateway, file, url)
        assert gateway.services.accounts.enable(user.name)
        assert not gateway.services.accounts.enable(user.name)
        assert not holds(gateway, file, url)
        body = {"username": user.name, "password": user.password}
        user.session = gateway.http.simulate_post("/api/v1/sessions", json=body).json
        claims = gateway.services.tokens.verify(AccessClaims, user.session["access_token"], now=0)
        assert claims.generation == 1
        assert holds(gateway, file, make(user, file))

    def test_an_account_that_is_not_there(self, gateway: Gateway) -> None:
        with pytest.raises(Problem, match="ACCOUNT_NOT_FOUND"):
            gateway.services.accounts.disable("nobody at all")
