"""ls, find, mv, rm, link, du, digest."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path

import click

from sluice.cli.shared import Answer, amount, client_of, common
from sluice.client import Client
from sluice.config import Config
from sluice.digest import digest_of
from sluice.errors import ConfigError, NotFound
from sluice.models import File
from sluice.settings import Settings
from sluice.source import FileSource

_MAGIC = re.compile(r"[*?\[]")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def is_pattern(text: str) -> bool:
    return bool(_MAGIC.search(text))


def matching(client: Client, pattern: str | None, order: str = "name") -> Iterator[File]:
    """The files whose names fit a pattern; all of them without one."""
    if pattern is None:
        yield from client.files(order=order)
        return
    literal = max(re.split(r"[*?]|\[[^]]*\]", pattern), key=len)
    for file in client.files(literal or None, order=order):
        if fnmatch.fnmatchcase(file.name, pattern):
            yield file


def chosen(client: Client, names: tuple[str, ...]) -> Iterator[File]:
    """The files that arguments name: by id, by name (the newest of it), or by pattern. Raises NotFound."""
    for name in names:
        try:
            yield client.stat(name)
            continue
        except NotFound:
            if not is_pattern(name):  # a file may be called [x]*
                raise
        found = False
        for file in list(matching(client, name)):
            found = True
            yield file
        if not found:
            raise NotFound(404, "FILE_NOT_FOUND", f"No file fits {name!r}")


def _line(file: File, *, long: bool) -> str:
    when = file.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
    note = "" if file.state == "ready" else f"  ({file.state})"
    return f"{file.id + '  ' if long else ''}{amount(file.size):>10}  {when}  {file.name}{note}"


@click.command()
@click.argument("pattern", required=False)
@click.option("--long", "-l", "long", is_flag=True, help="With ids.")
@click.option("--newest", "-t", is_flag=True, help="Newest first, not by name.")
@click.option("--trash", is_flag=True, help="What is in the trash.")
@common
def ls(
    pattern: str | None,
    long: bool,
    newest: bool,
    trash: bool,
    profile: str | None,
    url: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """List files; with PATTERN those whose names fit it ('*.jpg')."""
    answer, order = Answer(as_json=as_json, quiet=quiet), "newest" if newest else "name"
    with client_of(Config(profile, {"url": url}), answer) as client:
        found = client.files(order=order, trashed=True) if trash else matching(client, pattern, order)
        for file in found:
            answer.say(file, _line(file, long=long))


@click.command()
@click.argument("text")
@common
def find(text: str, profile: str | None, url: str | None, quiet: bool, as_json: bool) -> None:
    """List files whose names contain TEXT, in any case, or whose digest is TEXT."""
    answer = Answer(as_json=as_json, quiet=quiet)
    with client_of(Config(profile, {"url": url}), answer) as client:
        is_digest = re.fullmatch(r"[0-9a-f]{64}", text)
        for file in client.by_digest(text) if is_digest else client.files(text):
            answer.say(file, _line(file, long=True))


@click.command()
@click.argument("file")
@click.argument("name")
@common
def mv(file: str, name: str, profile: str | None, url: str | None, quiet: bool, as_json: bool) -> None:
    """Give FILE another NAME."""
    answer = Answer(as_json=as_json, quiet=quiet)
    with client_of(Config(profile, {"url": url}), answer) as client:
        renamed = client.rename(file, name)
    answer.say(renamed, f"{file} → {renamed.name}")


@click.command()
@click.argument("names", nargs=-1, required=True)
@common
def rm(names: tuple[str, ...], profile: str | None, url: str | None, quiet: bool, as_json: bool) -> None:
    """Put files into the trash, by name, id or pattern; their links end."""
    answer = Answer(as_json=as_json, quiet=quiet)
    with client_of(Config(profile, {"url": url}), answer) as client:
        for file in list(chosen(client, names)):
            client.delete(file)
            answer.say({"deleted": file}, f"{file.name} is in the trash")


def seconds(text: str) -> int:
    """``2d`` → 172800. Raises ConfigError."""
    match = re.fullmatch(r"(\d+)([smhd]?)", text)
    if not match:
        raise ConfigError(f"{text!r} is no time: 30m, 12h, 7d")
    return int(match[1]) * _SECONDS[match[2] or "s"]


@click.command()
@click.argument("file")
@click.option("--expires", metavar="TIME", help="How long it is good: 30m, 12h, 7d at most (1h).")
@click.option("--inline", is_flag=True, help="For showing in a browser, where the type allows it.")
@common
def link(
    file: str, expires: str | None, inline: bool, profile: str | None, url: str | None, quiet: bool, as_json: bool
) -> None:
    """Print a download URL of FILE that needs no sign-in."""
    answer = Answer(as_json=as_json, quiet=quiet)
    with client_of(Config(profile, {"url": url}), answer) as client:
        made = client.link(
            file, expires_in=seconds(expires) if expires else None, disposition="inline" if inline else None
        )
    answer.say(made, made.url)


@click.command()
@click.argument("pattern", required=False)
@common
def du(pattern: str | None, profile: str | None, url: str | None, quiet: bool, as_json: bool) -> None:
    """Say how many files there are, and how large they are together."""
    answer, count, total = Answer(as_json=as_json, quiet=quiet), 0, 0
    contents: dict[str, int] = {}
    with client_of(Config(profile, {"url": url}), answer) as client:
        for file in matching(client, pattern):
            count, total = count + 1, total + file.size
            contents[file.digest] = file.size
    stored = sum(contents.values())
    text = f"{amount(total)} in {count} files; {amount(stored)} without doubles"
    answer.say({"files": count, "bytes": total, "distinct_bytes": stored}, text)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@common
def digest(paths: tuple[Path, ...], profile: str | None, url: str | None, quiet: bool, as_json: bool) -> None:
    """Print the digest of local files, as the server knows content by."""
    answer = Answer(as_json=as_json, quiet=quiet)
    for path in paths:
        with FileSource.open(path) as source:
            found = digest_of(source, Settings().hashers)
        answer.say({"path": str(path), "digest": found}, f"{found}  {path}")
