"""Errors of the command: each gives one clear line, and the exit code that docs/client.md names."""

from __future__ import annotations

import base64
import http.server
import json
import re
import resource
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sluice import Client, Settings, errors

from tests.client.certificates import make_certificate, server_context
from tests.client.conftest import ROOT, SLUICE, Account, Command
from tests.client.rough import ConnectProxy, RoughProxy
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART, Sources
from tests.servers import free_port

HOSTILE = [
    "-rf",
    "--help",
    " leading and trailing ",
    "名前 ü €.txt",
    "$(touch owned)`id`;&|",
    "'\"<script>",
    "%2e%2e%2fetc%2fpasswd",
    "..;",
    ".hidden",
    "con.txt",
    "a:b",
    "[x]*?",
    "e\u0301 against \u00e9",
    "0123456789abcdef0123456789abcdef",
    "x" * 255,
]


def line_of(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed run says."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("sluice: ")
    return lines[0]


def test_hostile_names_go_up_and_come_back(command: Command) -> None:
    (command.folder / "names").mkdir()
    for number, name in enumerate(HOSTILE):
        (command.folder / "names" / name).write_text(f"{number}")
    command.run("put", "-q", *(f"names/{name}" for name in HOSTILE))
    listed = [json.loads(line)["name"] for line in command.run("ls", "--json").stdout.splitlines()]
    assert sorted(listed) == sorted(HOSTILE)
    (command.folder / "back").mkdir()
    command.run("get", "-q", "-o", "back/", "*")
    found = {path.name: path.read_text() for path in (command.folder / "back").iterdir()}
    assert found == {name: str(number) for number, name in enumerate(HOSTILE)}
    assert sorted(path.name for path in command.folder.iterdir()) == ["back", "names"]
    for name in HOSTILE:
        command.run("rm", "-q", "--", name)
    assert command.run("ls").stdout == ""


def test_names_that_the_server_refuses_are_said_and_the_others_go_on(command: Command) -> None:
    folder = command.folder / "names"
    folder.mkdir()
    (folder / "good").write_text("good")
    (folder / "evil\u202etxt.exe").write_text("evil")
    (folder / "line\nbreak").write_text("break")
    (command.folder / b"names/\xff\xfe".decode(errors="surrogateescape")).write_text("no UTF-8")
    result = command.run("put", "-r", "names", code=15)
    assert result.stderr.splitlines()[-1] == "sluice: 3 of 4 files failed"
    assert "\u202e" not in result.stderr
    assert "NAME_INVALID" in result.stderr
    assert "names:good" in command.run("ls").stdout


def test_a_name_that_is_no_path_stays_in_its_folder(command: Command, client: Client) -> None:
    client.upload(b"x", "..:..:escaped")
    assert "folder" in line_of(command.run("get", "-r", "..:..:escaped", code=13))
    assert list(command.folder.iterdir()) == []


def test_wrong_words_and_settings(command: Command) -> None:
    assert "No such option" in command.run("ls", "--colour", code=2).stderr
    assert "is a folder" in line_of(command.run("put", ".", code=2))
    assert "is no size" in line_of(command.run("put", "x", "--limit-rate", "fast", code=2))
    assert "there is no file" in line_of(command.run("put", "nothing", code=1))
    (command.home / "config.ini").write_text("[default]\nurl = http://x\ncolour = red\n")
    assert "colour is not a setting" in line_of(command.run("ls", code=2))


def test_sign_in(command: Command, account: Account, tmp_path: Path) -> None:
    wrong = command.run("login", account.url, "-u", account.username, "--password-stdin", stdin="not it\n", code=3)
    assert "CREDENTIALS_INVALID" in line_of(wrong)
    stranger = Command(account, tmp_path / "nowhere", command.folder)
    assert "sluice login" in line_of(stranger.run("ls", code=2))
    assert "sluice login" in line_of(stranger.run("ls", "--url", account.url, code=3))
    assert "--password-stdin" in line_of(stranger.run("login", account.url, "-u", "ann", code=2))


def test_what_is_not_there(command: Command) -> None:
    assert "nothing" in line_of(command.run("get", "nothing", code=4))
    assert "fits" in line_of(command.run("rm", "nothing*", code=4))
    assert "nothing" in line_of(command.run("abort", "nothing", code=4))
    error = json.loads(command.run("link", "nothing", "--json", code=4).stderr)["error"]
    assert error["exit_code"] == 4


def test_a_server_that_is_away(command: Command) -> None:
    for url, what in ((f"http://127.0.0.1:{free_port()}", "nobody answers at"), ("http://no.invalid", "not known")):
        hasty = command.with_settings(PATIENCE="0.5", TOKEN="x", URL=url)
        waits, end = hasty.run("ls", code=6).stderr.splitlines()
        assert what in waits
        assert "waiting, for 1 s at most" in waits, "it is said whom it waits for"
        assert what in end
        assert what in line_of(hasty.run("ls", "-q", code=6))


def test_a_full_disk(command: Command, client: Client, sources: Sources) -> None:
    source = sources.make(PART + 5, "full")
    client.upload(source.path, "full")
    process = command.start(
        "get", "full", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (PART - 5, PART - 5))
    )
    _, told = process.communicate(timeout=30)
    assert process.returncode == 11, told
    assert "the disk is full" in told
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [*SLUICE, "get", "full", "-o", "-"],
            env=command.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (result.returncode, "the disk is full" in result.stderr) == (11, True)


def test_no_permission(command: Command, client: Client) -> None:
    client.upload(b"content", "name")
    # even root makes no file there (sysfs)
    assert "cannot be written" in line_of(command.run("get", "name", "-o", "/sys/kernel/name", code=12))


@contextmanager
def answering(status: int, body: bytes, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Something else than Sluice."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"{'https' if context else 'http'}://localhost:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("status", "code"), [(200, 7), (403, 7), (502, 6)])
def test_something_else_answers(command: Command, status: int, code: int) -> None:
    with answering(status, b"<html>please sign in</html>") as url:
        hasty = command.with_settings(PATIENCE="0.2", TOKEN="x", URL=url)
        assert "not Sluice but BaseHTTP" in line_of(hasty.run("ls", "-q", code=code))


def test_a_clock_that_is_wrong_and_a_certificate_that_is_not_trusted(command: Command, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    make_certificate(key, certificate, expired=True)
    with answering(200, b"", server_context(key, certificate)) as url:
        there = command.with_settings(TOKEN="x", URL=url)
        assert "not trusted" in line_of(there.run("ls", code=8))
        (command.home / "config.ini").write_text(f"[default]\nurl = {url}\nca_file = {certificate}\n")
        assert "by this machine's clock it is" in line_of(there.run("ls", code=8))


def test_a_proxy_is_gone_through(account: Account, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """nginx accepts a request in the form for a proxy (RFC 9112 section 3.2.2), so it can act as one."""
    monkeypatch.setenv("http_proxy", f"http://ann:secret@127.0.0.1:{gateway.stack.port}")
    monkeypatch.setenv("no_proxy", "")
    with Client("http://files.invalid", username=account.username, password=account.password) as client:
        assert client.whoami().username == account.username
    monkeypatch.setenv("no_proxy", "files.invalid")
    hasty = Settings(patience=0.2)
    with Client("http://files.invalid", settings=hasty) as client, pytest.raises(errors.ServerAway, match="not known"):
        client.login("ann", "a long password")


def test_https_goes_through_a_proxy_by_connect(
    account: Account, gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_certificate(tmp_path / "key", tmp_path / "certificate")
    server = RoughProxy(context=server_context(tmp_path / "key", tmp_path / "certificate"))
    server.target = gateway.stack.port
    proxy = ConnectProxy("Basic " + base64.b64encode(b"ann:s/cret").decode())
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("https_proxy", f"http://ann:s%2Fcret@127.0.0.1:{proxy.port}")
    url, settings = f"https://localhost:{server.port}", Settings(ca_file=tmp_path / "certificate", patience=0.2)
    with Client(url, username=account.username, password=account.password, settings=settings) as client:
        assert client.upload(b"through it", "through").file.name == "through"
        assert {head.splitlines()[0] for head in proxy.asked} == {f"CONNECT localhost:{server.port} HTTP/1.1"}
        # the token is for the server alone: the proxy sees the target and the proxy's credentials
        assert not any("Bearer" in head or "User-Agent: sluice" in head for head in proxy.asked)
    monkeypatch.setenv("https_proxy", f"http://ann:wrong@127.0.0.1:{proxy.port}")
    with (
        Client(url, settings=settings) as client,
        pytest.raises(errors.ServerAway, match=r"the proxy .* refuses .* 407"),
    ):
        client.login(account.username, account.password)
    proxy.close()
    server.close()


def test_the_exit_codes_are_those_of_the_table() -> None:
    text = (ROOT / "docs" / "client.md").read_text()
    rows = {int(code) for cell in re.findall(r"^\| ([\d, ]+) \|", text, re.M) for code in cell.split(", ")}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.SluiceError)]
    assert {kind.exit_code for kind in kinds} <= rows
    assert {0, 2, 130, 141, 143} <= rows
    for kind in kinds:
        assert kind.__name__ in (errors.__doc__ or ""), "the tree is complete"
