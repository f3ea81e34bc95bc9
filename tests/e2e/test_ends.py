"""Revocations on a whole gateway: every line of "Revocation" that tests of single calls do not cover."""

import subprocess
from functools import partial

from tests.e2e.client import Client, code
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART, Sources
from tests.e2e.test_tokens import takes_effect


def operate(gateway: Gateway, *words: str) -> str:
    command = [str(gateway.data / "run" / "api"), "user", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_disabled_user_is_out_everywhere_and_old_tokens_stay_dead(gateway: Gateway, sources: Sources) -> None:
    user, source = gateway.user(), sources.make(PART + 3, "disabled")
    phone, other = user.another_machine(), gateway.user()
    file = user.upload(source)
    link, others = user.link(file, expires_in=604_800), other.link(other.upload(source))
    begun = user.create(sources.make(PART + 5, "disabled too"))
    part = user.sign(begun, sources.make(PART + 5, "disabled too"), [2])[2]
    assert "is disabled" in operate(gateway, "disable", user.username)
    takes_effect(lambda: user.call("GET", "/users/me"), (401, "TOKEN_REVOKED"))
    takes_effect(lambda: phone.call("GET", "/users/me"), (401, "TOKEN_REVOKED"))
    takes_effect(lambda: user.fetch(link), (410, "LINK_REVOKED"))
    takes_effect(lambda: user.put(part, b"12345"), (403, "PART_URL_REVOKED"))
    refresh = {"refresh_token": phone.refresh_token}
    assert code(gateway.client().call("POST", "/sessions/refresh", refresh)) == (401, "TOKEN_REVOKED")
    again = {"username": user.username, "password": user.password}
    assert code(gateway.client().call("POST", "/sessions", again)) == (401, "CREDENTIALS_INVALID")
    assert other.fetch(others).status_code == 200
    assert "was disabled" in operate(gateway, "disable", user.username)

    assert "is enabled" in operate(gateway, "enable", user.username)
    back = gateway.client().sign_in(user.username, user.password)
    assert back.holds(file, source), "new links are valid immediately"
    assert code(user.fetch(link)) == (410, "LINK_REVOKED")
    assert code(user.call("GET", "/users/me")) == (401, "TOKEN_REVOKED")
    assert code(gateway.client().call("POST", "/sessions/refresh", refresh)) == (401, "TOKEN_REVOKED")
    back.want(200, "DELETE", f"/uploads/{begun['id']}")


def test_a_files_links_are_withdrawn_and_the_file_stays(user: Client, other: Client, sources: Sources) -> None:
    source = sources.make(PART + 9, "withdrawn")
    file = user.upload(source)
    links = [user.link(file), user.link(file, disposition="inline")]
    assert code(other.call("DELETE", f"/files/{file['id']}/links")) == (404, "FILE_NOT_FOUND")
    assert [user.fetch(link, "HEAD").status_code for link in links] == [200, 200]
    user.want(204, "DELETE", f"/files/{file['id']}/links")
    for link in links:
        takes_effect(partial(user.fetch, link, Range="bytes=0-0"), (410, "LINK_REVOKED"))
    assert user.holds(user.want(200, "GET", f"/files/{file['id']}"), source), "a new link works immediately"


def test_a_redis_that_is_emptied_stopped_or_gone_lets_nothing_revoked_pass(gateway: Gateway, sources: Sources) -> None:
    user = gateway.user()
    file = user.upload(sources.make(400, "redis"))
    link, kept = user.link(file), user.link(user.upload(sources.make(401, "redis kept")))
    phone = user.another_machine()
    phone.want(204, "DELETE", "/sessions/current")
    user.want(204, "DELETE", f"/files/{file['id']}/links")
    takes_effect(lambda: phone.call("GET", "/users/me"), (401, "TOKEN_REVOKED"))
    takes_effect(lambda: user.fetch(link), (410, "LINK_REVOKED"))

    def check() -> None:
        for _ in range(20):
            assert code(phone.call("GET", "/users/me")) == (401, "TOKEN_REVOKED")
            assert code(user.fetch(link)) == (410, "LINK_REVOKED")
            assert user.fetch(kept).status_code == 200
            assert user.call("GET", "/users/me").status_code == 200

    socket = str(gateway.data / "run" / "redis.sock")
    subprocess.run(["redis-cli", "-s", socket, "FLUSHALL"], check=True, capture_output=True)
    check()
    with gateway.frozen("redis"):
        check()
    with gateway.without("redis"):
        check()
        # a revocation during this time ends as fast
        new = user.link(user.upload(sources.make(402, "redis meanwhile")))
        (meanwhile,) = (f for f in user.want(200, "GET", "/files")["items"] if f["size"] == 402)
        user.want(204, "DELETE", f"/files/{meanwhile['id']}/links")
        takes_effect(lambda: user.fetch(new), (410, "LINK_REVOKED"))
    check()


def test_an_edge_that_was_killed_knows_the_revocations_before_it_serves(gateway: Gateway, sources: Sources) -> None:
    user = gateway.user()
    file = user.upload(sources.make(500, "killed"))
    link, kept = user.link(file), user.link(user.upload(sources.make(501, "killed kept")))
    phone = user.another_machine()
    phone.want(204, "DELETE", "/sessions/current")
    user.want(204, "DELETE", f"/files/{file['id']}/links")
    takes_effect(lambda: user.fetch(link), (410, "LINK_REVOKED"))
    await_back = gateway.kill("nginx")
    answers = set()
    while (410, "LINK_REVOKED") not in answers:
        try:
            answers.add(code(user.fetch(link)))
            answers.add(code(phone.call("GET", "/users/me")))
        except Exception as ex:
            assert "onnect" in repr(ex) or "RemoteProtocol" in repr(ex), ex  # noqa: PT017
    assert answers <= {(410, "LINK_REVOKED"), (401, "TOKEN_REVOKED"), (503, "EDGE_STALE")}
    await_back()
    assert user.fetch(kept).status_code == 200
