"""check."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from sluice.cli.known import Known
from sluice.cli.shared import Run, common, examples
from sluice.cli.walk import SEPARATOR, Walk
from sluice.errors import SluiceError, SomeFailed


@click.command(epilog=examples("sluice check photos", "sluice check photos --exclude .git --json"))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--exclude", "-x", multiple=True, metavar="PATTERN", help="Leave out names, or paths in the folder.")
@click.option("--follow-links", "-L", is_flag=True, help="What is in linked folders, too.")
@common
def check(run: Run, folder: Path, exclude: tuple[str, ...], follow_links: bool) -> None:
    """Compare a local FOLDER with what put -r has put of it, by digest; FOLDER may be a file.

    Says what differs, what is missing on the server, and what is only there. Unless all is the same, it exits with 15.
    """
    walk, counts = Walk(recursive=True, follow_links=follow_links, exclude=exclude), Counter[str]()
    names = set()

    def tell(state: str, name: str, why: str = "") -> None:
        counts[state] += 1
        if state != "same" or run.answer.as_json:
            value = {"name": name, "state": state} | ({"error": why} if why else {})
            run.answer.say(value, f"{state:>10}  {name}{': ' + why if why else ''}")

    with run.client() as client:
        known = Known(client, whole=True)
        for found in walk.of([str(folder)]):
            names.add(found.name)
            if found.left or found.path is None:
                tell("unreadable", found.name, found.left)
                continue
            there = known.of(found.name)
            try:
                digest = client.digest(found.path)
            except SluiceError as ex:
                tell("unreadable", found.name, str(ex))
                continue
            is_same = digest in {file.digest for file in there if file.state != "corrupt"}
            tell("same" if is_same else "different" if there else "missing", found.name)
        if folder.is_dir():
            for name in sorted({file.name for file in client.files(folder.resolve().name + SEPARATOR)} - names):
                if name.startswith(folder.resolve().name + SEPARATOR):
                    tell("only there", name)
    if set(counts) - {"same"}:
        raise SomeFailed(", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    if not run.answer.as_json:
        run.answer.say(None, f"{counts['same']} files are the same")
