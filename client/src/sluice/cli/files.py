"""ls, find, stat, mv, rm, restore, du, digest."""

from __future__ import annotations

import re
from pathlib import Path

import click

from sluice.cli.select import chosen, matching, trashed
from sluice.cli.shared import Run, amount, common, examples
from sluice.models import File


def _line(file: File, *, long: bool) -> str:
    when = file.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
    note = "" if file.state == "ready" else f"  ({file.state})"
    return f"{file.id + '  ' if long else ''}{amount(file.size):>10}  {when}  {file.name}{note}"


@click.command(epilog=examples("sluice ls", "sluice ls -t '*.jpg'", "sluice ls --trash --json"))
@click.argument("pattern", required=False)
@click.option("--long", "-l", "long", is_flag=True, help="With ids.")
@click.option("--newest", "-t", is_flag=True, help="Newest first, not by name.")
@click.option("--trash", is_flag=True, help="What is in the trash.")
@common
def ls(run: Run, pattern: str | None, long: bool, newest: bool, trash: bool) -> None:
    """List files; with PATTERN those whose names fit it ('*.jpg')."""
    with run.client() as client:
        for file in matching(client, pattern, "newest" if newest else "name", trashed=trash):
            run.answer.say(file, _line(file, long=long))


@click.command(epilog=examples("sluice find holiday", "sluice find 9f86d081…      # a whole digest"))
@click.argument("text")
@common
def find(run: Run, text: str) -> None:
    """List files whose names contain TEXT, in any case, or whose digest is TEXT."""
    with run.client() as client:
        is_digest = re.fullmatch(r"[0-9a-f]{64}", text)
        for file in client.by_digest(text) if is_digest else client.files(text):
            run.answer.say(file, _line(file, long=True))


@click.command(epilog=examples("sluice stat holiday.mp4", "sluice stat --json holiday.mp4"))
@click.argument("names", nargs=-1, required=True)
@common
def stat(run: Run, names: tuple[str, ...]) -> None:
    """Say all about files, by name, id or pattern."""
    with run.client() as client:
        for file in chosen(client, names):
            sha256 = file.sha256 or "not known yet"
            rows = {
                "name": file.name,
                "id": file.id,
                "size": f"{file.size} ({amount(file.size)})",
                "type": file.content_type,
                "state": file.state,
                "created": file.created_at.astimezone().isoformat(" ", "seconds"),
                "digest": file.digest,
                "sha256": sha256,
            }
            run.answer.say(file, "\n".join(f"{key:>8}  {value}" for key, value in rows.items()))


@click.command(epilog=examples("sluice mv film.mp4 'summer 2026.mp4'"))
@click.argument("file")
@click.argument("name")
@common
def mv(run: Run, file: str, name: str) -> None:
    """Give FILE another NAME."""
    with run.client() as client:
        renamed = client.rename(file, name)
    run.answer.say(renamed, f"{file} → {renamed.name}")


@click.command(epilog=examples("sluice rm film.mp4", "sluice rm '*.tmp' --dry-run", "sluice rm -- -odd-name"))
@click.argument("names", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Only say what would be put into the trash.")
@common
def rm(run: Run, names: tuple[str, ...], dry_run: bool) -> None:
    """Put files into the trash, by name, id or pattern; their links end."""
    with run.client() as client:
        for file in list(chosen(client, names)):
            if dry_run:
                run.answer.say({"would_delete": file}, f"{file.name} would be put into the trash")
                continue
            client.delete(file)
            run.answer.say({"deleted": file}, f"{file.name} is in the trash")


@click.command(epilog=examples("sluice ls --trash", "sluice restore film.mp4"))
@click.argument("names", nargs=-1, required=True)
@common
def restore(run: Run, names: tuple[str, ...]) -> None:
    """Take files out of the trash, by name (the last of it), id or pattern; their links stay dead."""
    with run.client() as client:
        for file in list(trashed(client, names)):
            found = client.restore(file)
            run.answer.say(found, f"{found.name} is back")


@click.command(epilog=examples("sluice du", "sluice du 'photos:*'"))
@click.argument("pattern", required=False)
@common
def du(run: Run, pattern: str | None) -> None:
    """Say how many files there are, and how large they are together."""
    count, total = 0, 0
    contents: dict[str, int] = {}
    with run.client() as client:
        for file in matching(client, pattern):
            count, total = count + 1, total + file.size
            contents[file.digest] = file.size
    stored = sum(contents.values())
    text = f"{amount(total)} in {count} files; {amount(stored)} without doubles"
    run.answer.say({"files": count, "bytes": total, "distinct_bytes": stored}, text)


@click.command(epilog=examples("sluice digest film.mp4", "sluice digest --json *.mp4"))
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@common
def digest(run: Run, paths: tuple[Path, ...]) -> None:
    """Print the digest of local files, as the server knows content by."""
    from sluice.content import digest_of_path
    from sluice.settings import Settings

    for path in paths:
        found = digest_of_path(path, Settings().hashers)
        run.answer.say({"path": str(path), "digest": found}, f"{found}  {path}")
