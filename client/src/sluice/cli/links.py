"""link, unlink."""

from __future__ import annotations

import re

import click

from sluice.cli.select import chosen
from sluice.cli.shared import Run, common, examples
from sluice.errors import ConfigError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(text: str) -> int:
    """``2d`` → 172800. Raises ConfigError."""
    match = re.fullmatch(r"([0-9]+)([smhd]?)", text)
    if not match:
        raise ConfigError(f"{text!r} is no time: 30m, 12h, 7d")
    return int(match[1]) * _SECONDS[match[2] or "s"]


@click.command(epilog=examples("sluice link film.mp4", "sluice link film.mp4 --expires 12h --inline"))
@click.argument("file")
@click.option("--expires", metavar="TIME", help="How long it is good: 30m, 12h, 7d at most (1h).")
@click.option("--inline", is_flag=True, help="For showing in a browser, where the type allows it.")
@common
def link(run: Run, file: str, expires: str | None, inline: bool) -> None:
    """Print a download URL of FILE that needs no sign-in."""
    with run.client() as client:
        made = client.link(
            file, expires_in=seconds(expires) if expires else None, disposition="inline" if inline else None
        )
    run.answer.say(made, made.url)


@click.command(epilog=examples("sluice unlink film.mp4"))
@click.argument("names", nargs=-1, required=True)
@common
def unlink(run: Run, names: tuple[str, ...]) -> None:
    """Withdraw every link of files that was made so far, by name, id or pattern."""
    with run.client() as client:
        for file in list(chosen(client, names)):
            client.unlink(file)
            run.answer.say({"unlinked": file}, f"{file.name}: its links are dead")
