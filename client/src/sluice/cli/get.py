"""get, cat."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sluice.address import origin
from sluice.cli import streams
from sluice.cli.batch import Batch, Task
from sluice.cli.display import Display
from sluice.cli.select import chosen, within
from sluice.cli.shared import Answer, Run, amount, common, examples, transfer
from sluice.cli.stopping import Stopped
from sluice.cli.walk import SEPARATOR
from sluice.digest import SMALLEST_PART
from sluice.models import File
from sluice.names import check_local_name
from sluice.partial import local_errors
from sluice.progress import Progress

if TYPE_CHECKING:
    from sluice.client import Client


@click.command(
    epilog=examples(
        "sluice get holiday.mp4",
        "sluice get '*.jpg' -o pictures/",
        "sluice get -r photos: -o backup       # all of the folder photos",
        "sluice get https://files.example/d/…/report.pdf",
        "sluice get photos.tar -o - | tar x",
    )
)
@click.argument("names", nargs=-1, required=True)
@click.option("--output", "-o", help="A file, a folder, a device, or - for standard output.")
@click.option("--force", "-f", is_flag=True, help="Replace files that are there.")
@click.option(
    "--recursive", "-r", is_flag=True, help="Make folders again of what put -r has put: a:b:c.txt is a/b/c.txt."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be downloaded.")
@transfer
def get(run: Run, names: tuple[str, ...], output: str | None, force: bool, recursive: bool, dry_run: bool) -> None:
    """Download files by name, id, pattern or link, and check their digests; what was interrupted goes on.

    With -r, a name that ends with ":" is a folder, exactly. A link needs no sign-in, and gets no credentials.
    """
    with _client_for(run, names) as client:
        if output == "-" and not dry_run:
            _to_stdout(client, names)
            return
        found = list(_wanted(client, names, recursive))
        folder, path = Path(), None
        if output is not None and (Path(output).is_dir() or output.endswith("/") or recursive or len(found) > 1):
            folder = Path(output)
        elif output is not None:
            path = Path(output)
        task = _Get(client, run.answer, folder, path, force=force, tree=recursive)
        task.tell(found) if dry_run else task.run(found)


@click.command(epilog=examples("sluice cat notes.txt", "sluice cat log.gz | zcat | less"))
@click.argument("names", nargs=-1, required=True)
@common
def cat(run: Run, names: tuple[str, ...]) -> None:
    """Write files to standard output, by name, id, pattern or link; their digests are checked at the end."""
    with _client_for(run, names) as client:
        _to_stdout(client, names)


def _client_for(run: Run, names: Sequence[str]) -> AbstractContextManager[Client]:
    """Returns a client. If all names are links, the client neither creates nor uses a session."""
    links = [name for name in names if "://" in name]
    return run.client(origin(links[0]) if links and len(links) == len(names) else None)


def _wanted(client: Client, names: Sequence[str], recursive: bool = False) -> Iterator[File | str]:
    """Yields the files that the arguments name. If a pattern fits several files of one name, the newest is taken."""
    for name in names:
        if "://" in name:
            yield name
            continue
        newest: dict[str, File] = {}
        is_folder = recursive and name.endswith(SEPARATOR)
        for file in within(client, name) if is_folder else chosen(client, (name,)):
            if file.name not in newest or newest[file.name].created_at < file.created_at:
                newest[file.name] = file
        yield from newest.values()


def _to_stdout(client: Client, names: Sequence[str]) -> None:
    for file in _wanted(client, names):
        for piece in client.stream(file):
            streams.write(piece)
    streams.flush()


class _Get:
    """One run."""

    def __init__(
        self, client: Client, answer: Answer, folder: Path, path: Path | None, *, force: bool, tree: bool
    ) -> None:
        self._client = client
        self._answer = answer
        self._folder = folder
        self._path = path
        self._force = force
        self._tree = tree
        self._keys = itertools.count()
        self._moved = False

    def run(self, found: list[File | str]) -> None:
        """Downloads one after another, or side by side."""
        many = len(found) > 1
        if self._path is None:
            with local_errors(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
        self._display = Display(off=self._answer.quiet or self._answer.as_json, many=many)
        batch = Batch(self._client.settings.parallel, self._answer.failed)
        try:
            with self._display:
                if many:
                    batch.run(self._task(file) for file in found)
                else:
                    for file in found:
                        self._one(file)
        except Stopped:
            self._client.close()
            if self._moved:
                streams.complain("sluice: interrupted; run the same command again to go on")
            raise
        batch.end()

    def tell(self, found: list[File | str]) -> None:
        """Says what a run would do."""
        for file in found:
            name = file.name if isinstance(file, File) else file
            size = f" ({amount(file.size)})" if isinstance(file, File) else ""
            self._answer.say({"file": file}, f"{name}{size} would be downloaded")

    def _task(self, file: File | str) -> Task:
        size = file.size if isinstance(file, File) else 0
        self._display.expect(size)
        return Task(file.name if isinstance(file, File) else file, size > SMALLEST_PART, lambda: self._one(file))

    def _one(self, file: File | str) -> None:
        key = next(self._keys)

        def told(progress: Progress) -> None:
            self._moved = self._moved or progress.moved > 0
            self._display.on_progress(key, progress)

        path = self._client.download(file, self._target(file), overwrite=self._force, on_progress=told)
        size = file.size if isinstance(file, File) else path.stat().st_size
        self._answer.say({"path": str(path), "file": file, "bytes": size}, f"{path}  ({amount(size)})")

    def _target(self, file: File | str) -> Path:
        if self._path is not None:
            return self._path
        if not self._tree or not isinstance(file, File) or SEPARATOR not in file.name:
            return self._folder
        *folders, name = (check_local_name(step) for step in file.name.split(SEPARATOR))
        place = self._folder.joinpath(*folders)
        with local_errors(place):
            place.mkdir(parents=True, exist_ok=True)
        return place / name
