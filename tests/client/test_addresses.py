"""Where the client goes, through what, and to whom it gives what it knows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sluice import Client, ConfigError, Intercepted, Settings, SluiceError
from sluice.address import origin, server_url, shown
from sluice.config import Config
from sluice.proxies import Proxy, proxy_for

from tests.client.certificates import make_certificate
from tests.client.conftest import PASSWORD, Account, Command
from tests.client.recording import RecordingServer
from tests.servers import free_port

REFUSAL = b'{"error":{"code":"TOKEN_INVALID","message":"The token is not valid.","request_id":"x"}}'


def secrets_of(command: Command) -> list[str]:
    """Every token that the command keeps, and the password."""
    (path,) = (command.home / "credentials").glob("*.json")
    (session,) = json.loads(path.read_text()).values()
    return [session["access_token"], session["refresh_token"], PASSWORD]


# -- a session is for its origin


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "{other}/d/token/x", "report.pdf"),
        ("get", "{other}/d/token/x"),
        ("cat", "{other}/d/token/x"),
        ("ls", "--url", "{other}"),
        ("put", "file", "--url", "{other}"),
        ("whoami", "--url", "{other}"),
        ("logout", "--url", "{other}"),
        ("passwd", "--password-stdin", "--url", "{other}"),
    ],
)
@pytest.mark.parametrize("how", ["session", "password and token beside the address"])
def test_no_other_server_learns_a_secret(command: Command, arguments: tuple[str, ...], how: str) -> None:
    (command.folder / "file").write_text("content")
    secrets = secrets_of(command)
    if how != "session":
        text = f"[default]\nurl = {command.account.url}\nusername = {command.account.username}\n"
        (command.home / "config.ini").write_text(f"{text}password = {PASSWORD}\ntoken = {secrets[0]}\n")
    with RecordingServer(401, body=REFUSAL) as other:
        process = command.start(*(each.format(other=other.url) for each in arguments))
        process.communicate(timeout=60)
        assert process.returncode in (0, 3, 4, 5, 7), process.returncode
        told = "\n".join(other.asked)
        assert "Authorization" not in told
        for secret in (*secrets, command.account.username):
            assert secret not in told


def test_variables_are_for_the_server_beside_them(tmp_path: Path) -> None:
    (tmp_path / "config.ini").write_text("[default]\nurl = http://a\npassword = of a\n")
    home = {"SLUICE_CLIENT_HOME": str(tmp_path)}
    variables = {**home, "SLUICE_CLIENT_URL": "http://b", "SLUICE_CLIENT_TOKEN": "of b"}
    for options, environ, password, token in (
        ({}, home, "of a", None),
        ({"url": "http://A:80/"}, home, "of a", None),
        ({"url": "https://a"}, home, None, None),
        ({"url": "http://a:8080"}, home, None, None),
        ({"url": "http://c"}, home, None, None),
        ({}, variables, None, "of b"),
        ({"url": "http://c"}, variables, None, None),
        ({"url": "http://a"}, variables, "of a", None),
        ({"url": "http://c"}, {"SLUICE_CLIENT_HOME": str(tmp_path / "x"), "SLUICE_CLIENT_PASSWORD": "p"}, "p", None),
    ):
        config = Config(None, options, environ)
        assert (config.get("password"), config.get("token")) == (password, token), (options, environ)


def test_a_session_of_each_server_is_kept(command: Command) -> None:
    other = command.account.url.replace("127.0.0.1", "localhost")
    name = ("-u", command.account.username, "--password-stdin")
    command.run("login", other, *name, stdin=PASSWORD + "\n")
    command.run("whoami")
    command.run("whoami", "--url", command.account.url)
    command.run("logout")
    command.run("whoami", code=3)
    command.run("whoami", "--url", command.account.url)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(account: Account, status: int) -> None:
    with RecordingServer() as thief:
        for place, kind, match in (
            (thief.url.replace("127.0.0.1", "localhost") + "/api/v1/x", Intercepted, "redirects to http://localhost"),
            (thief.url + "/elsewhere", ConfigError, f"redirects to {thief.url}: use that address"),
        ):
            with (
                RecordingServer(status, {"Location": place}) as portal,
                Client(portal.url, "a secret token", settings=Settings(patience=1)) as client,
            ):
                for call in (
                    client.whoami,
                    lambda: client.upload(b"x", "x"),
                    lambda: client.read(f"{client.url}/d/a/b"),
                ):
                    with pytest.raises(kind, match=match):
                        call()
        assert thief.asked == []


def test_http_that_redirects_to_https_is_said_to_be_that(command: Command) -> None:
    with RecordingServer(301, {"Location": "https://127.0.0.1/api/v1/users/me"}) as server:
        there = command.with_settings(URL=server.url, TOKEN="x")
        assert "redirects to https://127.0.0.1: use that address" in there.run("whoami", code=2).stderr


# -- addresses


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (" http://h ", "http://h"),
        ("http://H:80/", "http://h"),
        ("https://h:443", "https://h"),
        ("https://h:8443/base/", "https://h:8443/base"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("HTTP://127.0.0.1", "http://127.0.0.1"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_addresses_in_their_one_form(text: str, url: str) -> None:
    assert server_url(text) == url
    with Client(text) as client:
        assert client.url == url


@pytest.mark.parametrize(
    "text",
    [
        "", "h", "h:8080", "ftp://h", "http://", "http:///x", "http://h:port", "http://h:99999", "http://h:0",
        "http://u:secret@h", "http://u:secret@h:port", "u:secret@h", "http://[::1", "http://h?x", "http://h#x",
        "http://h h", "http://h\n", "http://h\r\nX: y", "file:///etc/passwd", "http://" + "ü" * 70 + ".example",
    ],
)  # fmt: skip
def test_addresses_that_are_none(text: str, command: Command) -> None:
    if text != "http://h\n":  # white space around it is taken off
        with pytest.raises(ConfigError) as raised:
            Client(text)
        assert "secret" not in str(raised.value)
    told = command.run(
        "login",
        text or "x",
        "-u",
        "ann",
        "--password-stdin",
        stdin="secret\n",
        code=6 if text == "http://h\n" else 2,
        environment={"SLUICE_CLIENT_PATIENCE": "0.1"},
    )
    assert "secret" not in told.stderr
    assert "secret" not in (command.home / "config.ini").read_text()


def test_what_a_log_may_hold_of_an_address() -> None:
    assert shown("http://h/d/secret/name.pdf") == "http://h/d/…"
    assert shown("http://u:p@h:1/p/secret?sig=x") == "http://h:1/p/…"
    assert shown("http://h/api/v1/files?q=name") == "http://h/api/v1/files?…"
    assert origin("http://u:p@H:80/x") == "http://h"


# -- certificates


def test_certificates_that_cannot_be_used(command: Command, tmp_path: Path) -> None:
    there = command.with_settings(CA_FILE=str(tmp_path / "nothing"))
    assert "ca_file" in there.run("whoami", code=2).stderr
    (tmp_path / "empty").write_text("no certificate")
    there = command.with_settings(
        CA_FILE=str(tmp_path / "empty"), URL=f"https://127.0.0.1:{free_port()}", TOKEN="x", PATIENCE="0.1"
    )
    make_certificate(tmp_path / "key", tmp_path / "certificate")
    with RecordingServer() as server:
        there = command.with_settings(
            CA_FILE=str(tmp_path / "empty"), URL=f"https://127.0.0.1:{server.port}", TOKEN="x"
        )
        assert "cannot be used" in there.run("whoami", code=2).stderr
        plain = command.with_settings(URL=f"https://127.0.0.1:{server.port}", TOKEN="x")
        assert "no TLS with" in plain.run("whoami", code=8).stderr


# -- proxies


@pytest.mark.parametrize(
    ("proxy", "code", "said"),
    [
        ("http://127.0.0.1:{free}", 6, "nobody answers at the proxy 127.0.0.1:"),
        ("http://u:secret@127.0.0.1:{free}", 6, "nobody answers at the proxy 127.0.0.1:"),
        ("127.0.0.1:{free}", 6, "nobody answers at the proxy 127.0.0.1:"),
        ("http://no-such-proxy.invalid:1", 6, "the proxy no-such-proxy.invalid is not known"),
        ("socks5://127.0.0.1:{free}", 2, "names a proxy of the kind socks5://"),
        ("socks5h://u:secret@127.0.0.1:{free}", 2, "names a proxy of the kind socks5h://"),
        ("https://127.0.0.1:{free}", 2, "names a proxy of the kind https://"),
        ("http://127.0.0.1:port", 2, "is no URL of a proxy"),
        ("http://", 2, "names a proxy"),
    ],
)
@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_proxies_that_cannot_be_used(command: Command, proxy: str, code: int, said: str, variable: str) -> None:
    environment = {
        variable: proxy.format(free=free_port()),
        "no_proxy": "",
        "NO_PROXY": "",
        "SLUICE_CLIENT_PATIENCE": "0.3",
    }
    result = command.run("whoami", code=code, environment=environment)
    assert said in result.stderr
    assert "secret" not in result.stderr


def test_a_proxy_that_wants_a_sign_in(command: Command) -> None:
    with RecordingServer(407) as proxy:
        environment = {"http_proxy": proxy.url, "no_proxy": ""}
        assert "the proxy wants a sign-in" in command.run("whoami", code=7, environment=environment).stderr


@pytest.mark.parametrize(
    ("no_proxy", "host", "is_direct"),
    [
        ("127.0.0.0/8", "127.0.0.1", True),
        ("127.0.0.0/8", "127.255.0.9", True),
        ("127.0.0.0/8", "128.0.0.1", False),
        ("10.0.0.0/8, 192.168.0.0/16", "192.168.3.4", True),
        ("::1/128", "::1", True),
        ("[::1]", "::1", True),
        ("fd00::/8", "fd12::3", True),
        ("*", "files.example", True),
        ("example", "files.example", True),
        (".example", "files.example", True),
        ("other.example", "files.example", False),
        ("files.example:8080", "files.example", True),
        ("files.example:9", "files.example", False),
        ("", "files.example", False),
        ("127.0.0.0/8", "files.example", False),
        ("nonsense/99", "127.0.0.1", False),
    ],
)
def test_hosts_that_go_around_the_proxy(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, host: str, is_direct: bool
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert proxy_for("http", host, 8080) == (None if is_direct else Proxy("proxy.example", 3128))


# -- who never answers


def test_a_server_that_never_answered_is_waited_for_as_long_as_documented(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not 4 seconds: 120, or what the settings say. The clock is the test's."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Client(f"http://127.0.0.1:{free_port()}", "x") as client:
        waits: list[tuple[str, float]] = []
        client.on_wait(lambda text, left: waits.append((text, left)))

        def wait(seconds: float) -> bool:
            now[0] += seconds
            return False

        monkeypatch.setattr(client._engine.transport.stop, "wait", wait)
        with pytest.raises(SluiceError, match="nobody answers"):
            client.whoami()
    assert 100 < now[0] <= 120
    assert waits[0][1] == 120
    assert "nobody answers at 127.0.0.1:" in waits[0][0]


def test_parts_that_go_where_nobody_answers_are_said(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from another machine, when the server believes that it is 127.0.0.1."""
    from dataclasses import replace

    from sluice.calls import Calls
    from sluice.models import Upload

    dead = f"http://127.0.0.1:{free_port()}"
    create: Callable[..., Upload] = Calls.create

    def elsewhere(*arguments: object, **named: object) -> Upload:
        upload = create(*arguments, **named)
        parts = {n: replace(part, url=part.url.replace(account.url, dead)) for n, part in (upload.parts or {}).items()}
        return replace(upload, parts=parts)

    monkeypatch.setattr(Calls, "create", elsewhere)
    waits: list[str] = []
    with account.client(patience=0.5) as client:
        client.on_wait(lambda text, left: waits.append(text))
        with pytest.raises(SluiceError):
            client.upload(b"content", "name")
    assert waits[0] == f"nobody answers at {dead[7:]}"


def test_an_answer_that_does_not_come_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes connections and says nothing."""
    import socket

    from sluice import wire

    monkeypatch.setattr(wire, "_SLOW_SECONDS", 0.05)
    monkeypatch.setattr(wire, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        waits: list[str] = []
        with Client(f"http://127.0.0.1:{port}", "x", settings=Settings(patience=0.1)) as client:
            client.on_wait(lambda text, left: waits.append(text))
            with pytest.raises(SluiceError, match="does not answer"):
                client.whoami()
        assert waits[0] == f"127.0.0.1:{port} is slow to answer"
