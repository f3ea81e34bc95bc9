"""get."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from sluice.cli.batch import Batch, Task
from sluice.cli.display import Display
from sluice.cli.files import chosen
from sluice.cli.put import SEPARATOR
from sluice.cli.shared import Answer, amount, client_of, output_errors, printable, transfer
from sluice.client import Client
from sluice.config import Config
from sluice.digest import SMALLEST_PART
from sluice.errors import SluiceError, SomeFailed
from sluice.models import File
from sluice.names import check_local_name
from sluice.partial import local_errors


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--output", "-o", help="A file, a folder, or - for standard output.")
@click.option("--force", "-f", is_flag=True, help="Replace files that are there.")
@click.option(
    "--recursive", "-r", is_flag=True, help="Make folders again of what put -r has put: a:b:c.txt is a/b/c.txt."
)
@transfer
def get(
    names: tuple[str, ...],
    output: str | None,
    force: bool,
    recursive: bool,
    parallel: int | None,
    limit_rate: str | None,
    profile: str | None,
    url: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Download files by name, id, pattern or link, and check their digests; what was interrupted goes on."""
    answer = Answer(as_json=as_json, quiet=quiet)
    if any("://" in name for name in names):
        url = url or names[0]  # a link needs no server of ours
    config = Config(profile, {"url": url, "parallel": parallel, "limit_rate": limit_rate})
    with client_of(config, answer) as client:
        if output == "-":
            _to_stdout(client, names)
            return
        found = list(_wanted(client, names))
        folder, path = Path(), None
        if output is not None and (Path(output).is_dir() or output.endswith("/") or recursive or len(found) > 1):
            folder = Path(output)
            with local_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
        elif output is not None:
            path = Path(output)
        _Get(client, answer, folder, path, force=force, tree=recursive).run(found)


def _wanted(client: Client, names: tuple[str, ...]) -> Iterator[File | str]:
    """What arguments name; of several files of one name that a pattern fits, the newest."""
    for name in names:
        if "://" in name:
            yield name
            continue
        newest: dict[str, File] = {}
        for file in chosen(client, (name,)):
            if file.name not in newest or newest[file.name].created_at < file.created_at:
                newest[file.name] = file
        yield from newest.values()


def _to_stdout(client: Client, names: tuple[str, ...]) -> None:
    for file in _wanted(client, names):
        for piece in client.stream(file):
            with output_errors():
                sys.stdout.buffer.write(piece)
    with output_errors():
        sys.stdout.buffer.flush()


class _Get:
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

    def run(self, found: list[File | str]) -> None:
        many = len(found) > 1
        self._display = Display(off=self._answer.quiet or self._answer.as_json, many=many)
        batch = Batch(self._client.settings.parallel, self._failed)
        try:
            with self._display:
                if many:
                    batch.run(self._task(file) for file in found)
                else:
                    for file in found:
                        self._one(file)
        except KeyboardInterrupt:
            self._client.close()
            print("sluice: interrupted; run the same command again to go on", file=sys.stderr)
            raise
        if batch.failures:
            raise SomeFailed(f"{len(batch.failures)} of {len(batch.failures) + batch.done} files failed")

    def _task(self, file: File | str) -> Task:
        size = file.size if isinstance(file, File) else 0
        self._display.expect(size)
        return Task(file.name if isinstance(file, File) else file, size > SMALLEST_PART, lambda: self._one(file))

    def _one(self, file: File | str) -> None:
        key = next(self._keys)
        path = self._client.download(
            file,
            self._target(file),
            overwrite=self._force,
            on_progress=lambda progress: self._display.on_progress(key, progress),
        )
        size = path.stat().st_size
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

    def _failed(self, name: str, ex: SluiceError) -> None:
        if self._answer.as_json:
            self._answer.say({"name": name, "error": str(ex), "exit_code": ex.exit_code}, "")
        else:
            print(f"sluice: {printable(name)}: {ex}", file=sys.stderr)
