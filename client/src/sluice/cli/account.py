"""login, logout, passwd, whoami, version."""

from __future__ import annotations

import sys

import click

from sluice.cli.shared import Run, common, examples
from sluice.errors import ConfigError
from sluice.version import VERSION


@click.command(
    epilog=examples(
        "sluice login https://files.example",
        "sluice login https://files.example -u ann --sign-up",
        "sluice login https://other.example --profile work",
        'echo "$PASSWORD" | sluice login https://files.example -u ann --password-stdin',
    )
)
@click.argument("server", required=False)
@click.option("--username", "-u", help="Who signs in; asked for where it is not given.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--sign-up", is_flag=True, help="Make the account first.")
@click.option("--code", help="The invitation's code, for --sign-up.")
@common
def login(
    run: Run, server: str | None, username: str | None, password_stdin: bool, sign_up: bool, code: str | None
) -> None:
    """Sign in to SERVER, such as https://files.example, and keep the session: for this server, and for no other."""
    from sluice.client import Client

    if server is not None:
        run.options["url"] = server
    config = run.config
    address = config.url
    name = username or config.get("username") or _ask("Username", hide=False)
    password = _line() if password_stdin else config.get("password")
    password = password or _ask("Password", hide=True)
    with Client(address, store=config.store(), settings=config.settings()) as client:
        run.attend(client)
        if sign_up:
            client.sign_up(name, password, code)
        client.login(name, password)
        config.remember(url=address, username=name)
        user = client.whoami()
    run.answer.say(user, f"signed in as {user.username} at {address}")


def _line() -> str:
    return sys.stdin.readline().rstrip("\r\n")


def _ask(what: str, *, hide: bool, twice: bool = False) -> str:
    if not sys.stdin.isatty():
        option = "--password-stdin" if hide else "--username"
        raise ConfigError(f"{what.lower()}: nobody is there to be asked; use {option}")
    found: str = click.prompt(what, hide_input=hide, confirmation_prompt=twice, err=True)
    return found


@click.command(epilog=examples("sluice logout", "sluice logout --profile work"))
@common
def logout(run: Run) -> None:
    """End the session, on the server and here."""
    with run.client() as client:
        client.logout()
    run.answer.say({"signed_out": True}, "signed out")


@click.command(epilog=examples("sluice passwd", 'printf \'%s\\n\' "$OLD" "$NEW" | sluice passwd --password-stdin'))
@click.option(
    "--password-stdin", is_flag=True, help="Read the old and the new password from standard input, a line each."
)
@common
def passwd(run: Run, password_stdin: bool) -> None:
    """Change the password. Every session ends, on other machines too; this one is opened anew."""
    with run.client() as client:
        username = client.whoami().username
        old = _line() if password_stdin else _ask(f"Password of {username}", hide=True)
        new = _line() if password_stdin else _ask("New password", hide=True, twice=True)
        client.change_password(old, new)
        client.login(username, new)
    run.answer.say({"username": username}, f"{username} has a new password")


@click.command(epilog=examples("sluice whoami", "sluice whoami --json"))
@common
def whoami(run: Run) -> None:
    """Say who is signed in, and where."""
    with run.client() as client:
        user = client.whoami()
        url = client.url
    run.answer.say(user, f"{user.username} at {url}")


@click.command(epilog=examples("sluice version", "sluice --version"))
@common
def version(run: Run) -> None:
    """Say the version of this command, and of Python."""
    python = ".".join(map(str, sys.version_info[:3]))
    run.answer.say({"version": VERSION, "python": python}, f"sluice {VERSION}, Python {python}")
