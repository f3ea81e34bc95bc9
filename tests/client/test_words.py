"""Every sub-command: its help; and the behaviour of those that no other file tests."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import signal
import subprocess

import click
import pytest
from sluice import Client, SluiceError, Unauthorized
from sluice.cli.main import SECTIONS, cli

from tests.client.conftest import PASSWORD, PYTHON, ROOT, SLUICE, Command
from tests.client.test_refusals import line_of
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART, Sources
from tests.waiting import await_true

WORDS = [name for section in SECTIONS.values() for name in section]


@pytest.mark.parametrize("name", WORDS)
def test_every_help_has_examples_that_the_command_takes(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    text = command.get_help(click.Context(command, info_name=name))
    _, _, examples = text.partition("Examples:")
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    assert any(f"sluice {name}" in line for line in lines)
    for line in lines:
        (said,) = re.findall(r"sluice ([^|)#]+)", line)[:1]
        words = shlex.split(said)
        if words[0] == name:
            command.make_context(name, words[1:])
        assert words[0] in (*WORDS, "--version"), line


def test_the_help_groups_every_command(command: Command) -> None:
    text = command.run("--help").stdout
    for title, section in SECTIONS.items():
        assert f"\n{title}:\n" in text
        for name in section:
            assert f"  {name} " in text
    nothing = command.run(code=None)
    assert "Files:" in nothing.stdout + nothing.stderr
    assert command.run("--version").stdout == command.run("version").stdout.partition(",")[0] + "\n"


def test_the_documents_name_every_command() -> None:
    text = (ROOT / "docs" / "client.md").read_text()
    for name in WORDS:
        assert f"`sluice {name}" in text, name


def cpu_of(*words: str, **environment: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, env={**os.environ, **environment}, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_start_costs_little() -> None:
    """Takes the least of five times: another program may use the caches during one of them."""
    environment = {"PYTHONPATH": str(ROOT / "client" / "src"), "PYTHONDONTWRITEBYTECODE": ""}
    assert min(cpu_of(*SLUICE, "version", **environment) for _ in range(5)) <= 0.1


def test_a_start_imports_no_more_than_it_needs() -> None:
    code = "import sys; from sluice.__main__ import main; main(); print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "client" / "src")}
    told = subprocess.run([PYTHON, "-c", code, "version"], env=environment, check=True, capture_output=True, text=True)
    assert not {"sluice.client", "ssl", "http.client", "urllib.request", "rich"} & set(told.stdout.split())


def test_restore_and_stat(command: Command, client: Client) -> None:
    for content in (b"first", b"second"):
        client.upload(content, "f")
        command.run("rm", "f")
    command.run("rm", "f", code=4)
    assert "f is back" in command.run("restore", "f").stdout
    assert client.read("f") == b"second", "the last that was put there"
    command.run("restore", "f")
    command.run("restore", "f", code=4)
    assert len(list(client.files())) == 2
    command.run("rm", "*")
    command.run("restore", "[f]*")
    assert len(list(client.files())) == 2
    found = json.loads(command.run("stat", "f", "--json").stdout)
    assert (found["size"], found["digest"]) == (6, client.stat("f").digest)
    assert found["digest"] in command.run("stat", found["id"]).stdout


def test_unlink_withdraws_every_link(command: Command, client: Client) -> None:
    client.upload(b"content", "f")
    urls = [command.run("link", "f").stdout.strip() for _ in range(2)]
    command.run("get", urls[0], "-o", "by link")
    command.run("unlink", "f")

    def is_dead(url: str) -> bool:
        try:
            client.read(url)
        except SluiceError:
            return True
        return False

    await_true(lambda: all(is_dead(url) for url in urls))
    assert client.read(command.run("link", "f").stdout.strip()) == b"content"


def test_cat(command: Command, client: Client) -> None:
    for name in ("a", "b"):
        client.upload(name.encode() * 3, name)
    assert command.run("cat", "a", "b").stdout == "aaabbb"
    assert command.run("cat", client.link("a").url).stdout == "aaa"
    command.run("cat", "c", code=4)


def test_dry_runs_change_nothing(command: Command, client: Client) -> None:
    client.upload(b"x", "a")
    assert "would be put" in command.run("rm", "a", "--dry-run").stdout
    assert "would be downloaded" in command.run("get", "a", "--dry-run").stdout
    assert [file.name for file in client.files()] == ["a"]
    assert list(command.folder.iterdir()) == []


def test_passwd(command: Command) -> None:
    new = "another long password"
    wrong = command.run("passwd", "--password-stdin", stdin=f"not it at all\n{new}\n", code=5)
    assert "PASSWORD_WRONG" in line_of(wrong)
    command.run("passwd", "--password-stdin", stdin=f"{PASSWORD}\n{new}\n")
    command.run("whoami")
    with Client(command.account.url) as client:
        with pytest.raises(Unauthorized):
            client.login(command.account.username, PASSWORD)
        client.login(command.account.username, new)
    assert "--password-stdin" in line_of(command.run("passwd", code=2))


def test_verbose_tells_of_requests_and_of_no_secret(command: Command, sources: Sources) -> None:
    source = sources.make(2 * PART, "verbose")
    told = command.run("put", "-v", str(source.path), "--name", "v").stderr
    url = command.run("link", "v").stdout.strip()
    told += command.run("get", "-v", url, "-o", "x").stderr + command.run("find", "v", "-v").stderr
    (path,) = (command.home / "credentials").glob("*.json")
    secrets = [url.rsplit("/", 2)[1], *json.loads(path.read_text())[command.account.url].values()]
    for secret in secrets:
        assert not isinstance(secret, str) or len(secret) < 20 or secret not in told
    assert "sluice: POST http://127.0.0.1" in told
    assert "/p/… 20" in told
    assert "/d/… 20" in told
    assert " ms (" in told
    for line in told.splitlines():
        assert line.startswith("sluice: ")


def test_uploads_tells_what_is_there(command: Command, gateway: Gateway, sources: Sources) -> None:
    """Right after a kill, not as it was last asked for."""
    source = sources.make(8 * PART, "percent")
    # so slow that some parts are there when the storage is asked a second time, after 5 s
    process = command.start("put", str(source.path), "--name", "half", "--limit-rate", "5M", "--instant", "never")
    with command.account.client() as client:
        await_true(lambda: any(client.upload_status(each).received for each in client.uploads("uploading")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (told,) = command.run("uploads", "--json").stdout.splitlines()
    assert json.loads(told)["percent"] > 0
    assert "  0.0 %" not in command.run("uploads").stdout
    command.run("abort", "--all")


def test_the_packages_version_is_the_commands() -> None:
    from sluice import VERSION

    assert f'version = "{VERSION}"' in (ROOT / "client" / "pyproject.toml").read_text()
