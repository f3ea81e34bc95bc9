"""login, logout, whoami, version."""

from __future__ import annotations

import sys

import click

from sluice.cli.shared import Answer, client_of, common
from sluice.client import Client
from sluice.config import Config
from sluice.errors import ConfigError
from sluice.version import VERSION


@click.command()
@click.argument("server", required=False)
@click.option("--username", "-u", help="Who signs in; asked for where it is not given.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--sign-up", is_flag=True, help="Make the account first.")
@click.option("--code", help="The invitation's code, for --sign-up.")
@common
def login(
    server: str | None,
    username: str | None,
    password_stdin: bool,
    sign_up: bool,
    code: str | None,
    profile: str | None,
    url: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Sign in to SERVER, such as https://files.example, and keep the session."""
    answer = Answer(as_json=as_json, quiet=quiet)
    config = Config(profile, {"url": server or url})
    address = config.url
    name = username or config.get("username") or _ask("Username", hide=False)
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else config.get("password")
    password = password or _ask("Password", hide=True)
    with Client(address, store=config.store(), settings=config.settings()) as client:
        if sign_up:
            client.sign_up(name, password, code)
        client.login(name, password)
        config.remember(url=address, username=name)
        user = client.whoami()
    answer.say(user, f"signed in as {user.username} at {address}")


def _ask(what: str, *, hide: bool) -> str:
    if not sys.stdin.isatty():
        option = "--password-stdin" if hide else "--username"
        raise ConfigError(f"{what.lower()}: nobody is there to be asked; use {option}")
    found: str = click.prompt(what, hide_input=hide, err=True)
    return found


@click.command()
@common
def logout(profile: str | None, url: str | None, quiet: bool, as_json: bool) -> None:
    """End the session, on the server and here."""
    answer = Answer(as_json=as_json, quiet=quiet)
    config = Config(profile, {"url": url})
    with client_of(config, answer) as client:
        client.logout()
    answer.say({"signed_out": True}, "signed out")


@click.command()
@common
def whoami(profile: str | None, url: str | None, quiet: bool, as_json: bool) -> None:
    """Say who is signed in, and where."""
    answer = Answer(as_json=as_json, quiet=quiet)
    config = Config(profile, {"url": url})
    with client_of(config, answer) as client:
        user = client.whoami()
    answer.say(user, f"{user.username} at {config.url}")


@click.command()
@common
def version(profile: str | None, url: str | None, quiet: bool, as_json: bool) -> None:
    """Say the version of this command."""
    python = ".".join(map(str, sys.version_info[:3]))
    Answer(as_json=as_json, quiet=quiet).say(
        {"version": VERSION, "python": python}, f"sluice {VERSION}, Python {python}"
    )
