"""put."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sluice.cli.batch import Batch, Task
from sluice.cli.display import Display
from sluice.cli.kinds import type_of
from sluice.cli.known import Known
from sluice.cli.shared import Answer, Run, amount, examples, transfer
from sluice.cli.stopping import Stopped
from sluice.cli.streams import complain
from sluice.cli.walk import Found, Walk
from sluice.digest import SMALLEST_PART
from sluice.errors import ConfigError, LocalError, NameRefused, SomeFailed
from sluice.group import LARGEST, Groups, Small
from sluice.models import File
from sluice.progress import OnProgress, Progress
from sluice.results import UploadResult

if TYPE_CHECKING:
    from sluice.client import Client

_FEW = 20


@click.command(
    epilog=examples(
        "sluice put holiday.mp4",
        "sluice put -r photos --exclude '*.tmp' --exclude .git",
        "sluice put -r photos --dry-run",
        "tar c photos | sluice put - --name photos.tar",
        "sluice put report.pdf --name 'report 2026.pdf' --content-type application/pdf",
    )
)
@click.argument("paths", nargs=-1, required=True)
@click.option(
    "--recursive", "-r", is_flag=True, help="Folders, with all that is in them: a/b/c.txt is called a:b:c.txt."
)
@click.option("--name", "-n", help="What one file is called on the server; needed for - (standard input).")
@click.option("--content-type", metavar="TYPE", help="Such as video/mp4; by default what the name's ending says.")
@click.option("--exclude", "-x", multiple=True, metavar="PATTERN", help="Leave out names, or paths in the folder.")
@click.option("--follow-links", "-L", is_flag=True, help="With -r: what is in linked folders, too.")
@click.option("--dry-run", is_flag=True, help="Only say what would be uploaded.")
@click.option("--instant", help="auto, always, never, or a size from which on files are hashed before they are sent.")
@click.option("--again", is_flag=True, help="Store files once more that are there already, name and content.")
@transfer
def put(
    run: Run,
    paths: tuple[str, ...],
    recursive: bool,
    name: str | None,
    content_type: str | None,
    exclude: tuple[str, ...],
    follow_links: bool,
    dry_run: bool,
    again: bool,
) -> None:
    """Upload files; what was interrupted goes on, from this machine or another.

    Pipes, devices and - (standard input) are read to their end, and sent in parts as they come.
    """
    if "-" in paths and name is None:
        raise ConfigError("standard input has no name: --name NAME")
    found = Walk(recursive, follow_links, exclude).of(paths)
    if name is not None:
        if recursive or len(paths) != 1:
            raise ConfigError("--name is for one file")
        found = (replace(each, name=name) for each in found)
    many = recursive or len(paths) > 1
    with run.client() as client:
        known = None if again else Known(client, whole=recursive or len(paths) > _FEW)
        task = _Put(client, run.answer, known, content_type, many=many)
        task.tell(found) if dry_run else task.run(found)


class _Put:
    """One run.

    Args:
        many: whether several files are asked for: then one that fails does not end the others.
    """

    def __init__(
        self, client: Client, answer: Answer, known: Known | None, content_type: str | None, *, many: bool
    ) -> None:
        self._client = client
        self._known = known
        self._answer = answer
        self._content_type = content_type
        self._many = many
        self._display = Display(off=answer.quiet or answer.as_json, many=many)
        self._keys = itertools.count()
        self._moved = False

    def run(self, found: Iterator[Found]) -> None:
        """Uploads one after another, or side by side."""
        batch = Batch(self._client.settings.parallel, self._answer.failed)
        try:
            with self._display:
                if self._many:
                    batch.run(self._tasks(batch, found))
                else:
                    for each in found:
                        self._one(each)
        except Stopped:
            self._client.close()
            if self._moved:
                complain("sluice: interrupted; run the same command again to go on")
            raise
        batch.end()

    def tell(self, found: Iterator[Found]) -> None:
        """Says what a run would do."""
        failures = 0
        for each in found:
            if each.left:
                failures += 1
                self._answer.failed(_shown(each), LocalError(each.left))
                continue
            size = _size_of(each.path)
            there = self._is_there(each)
            value = {"path": _path(each.path), "name": each.name, "size": size, "existing": there}
            text = f"{each.name}  ({amount(size)}, {'is there already' if there else 'would be uploaded'})"
            self._answer.say(value, text)
        if failures:
            raise SomeFailed(f"{failures} files cannot be uploaded")

    def _is_there(self, each: Found) -> bool:
        if each.path is None or not each.path.is_file():
            return False
        known = self._of(each.name)
        return bool(known) and self._client.digest(each.path) in {file.digest for file in known}

    def _tasks(self, batch: Batch, found: Iterable[Found]) -> Iterator[Task]:
        """A task for each file, or for several small ones together."""
        groups = Groups(self._client.settings.parallel)
        for each in found:
            if each.left:
                batch.fail(_shown(each), LocalError(each.left))
                continue
            size = _size_of(each.path)
            self._display.expect(size)
            if each.path is None or not 0 < size <= LARGEST:
                yield self._task(each, size)
            elif full := groups.add(Small(each.path, each.name, size, content_type=self._type(each.name))):
                yield self._group(batch, full)
        if rest := groups.rest():
            yield self._group(batch, rest)

    def _task(self, each: Found, size: int) -> Task:
        return Task(_shown(each), size > SMALLEST_PART, lambda: self._one(each))

    def _group(self, batch: Batch, files: Sequence[Small]) -> Task:
        if len(files) == 1:
            return self._task(Found(files[0].path, files[0].name), files[0].size)
        return Task(files[0].name, False, lambda: self._several(batch, files), counted=False)

    def _several(self, batch: Batch, files: Sequence[Small]) -> None:
        """Uploads small files together. If a file fails in the group, it is uploaded by itself."""
        fit = [file for file in files if _is_utf8(file.name)]
        group = [replace(file, known=self._of(file.name), on_progress=self._progress()) for file in fit]
        results = dict(zip(map(id, fit), self._client.upload_group(group), strict=True))
        for file in files:
            result = results.get(id(file))
            if result is not None:
                batch.went_well()
                self._answer.say(_value(file.path, result), _line(file.name, result))
            else:
                batch.attempt(self._task(Found(file.path, file.name), file.size))

    def _of(self, name: str) -> Sequence[File]:
        """Returns the files that the server has under a name."""
        return self._known.of(name) if self._known else ()

    def _type(self, name: str) -> str | None:
        return self._content_type or type_of(name)

    def _progress(self) -> OnProgress:
        """Tells the display of one more file."""
        key = next(self._keys)

        def told(progress: Progress) -> None:
            self._moved = self._moved or progress.moved > 0
            self._display.on_progress(key, progress)

        return told

    def _one(self, each: Found) -> None:
        check_utf8(each.name)
        result = self._client.upload(
            each.path if each.path is not None else sys.stdin.buffer,
            each.name,
            content_type=self._type(each.name),
            known=self._of(each.name),
            on_progress=self._progress(),
        )
        self._answer.say(_value(each.path, result), _line(each.name, result))


def _shown(each: Found) -> str:
    """Returns the name for error messages: the path if a folder was walked."""
    return str(each.path) if each.left and each.path is not None else each.name


def _path(path: Path | None) -> str:
    return "-" if path is None else str(path)


def _value(path: Path | None, result: UploadResult) -> dict[str, object]:
    return {
        "path": _path(path),
        "file": result.file,
        "instant": result.instant,
        "existing": result.existing,
        "sent": result.sent,
        "kept": result.kept,
    }


def _line(name: str, result: UploadResult) -> str:
    notes = [amount(result.file.size)]
    if result.existing:
        notes.append("is there already")
    elif result.instant:
        notes.append("instant")
    elif result.kept:
        notes.append(f"{amount(result.kept)} of it were there")
    return f"{name}  ({', '.join(notes)})"


def check_utf8(name: str) -> None:
    """Raises NameRefused for a name whose bytes are no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise NameRefused(f"{name} is not UTF-8; choose a name with --name") from None


def _size_of(path: Path | None) -> int:
    """Returns a file's size; 0 if the size is unknown or the file no longer exists."""
    try:
        return 0 if path is None else os.stat(path).st_size
    except OSError:
        return 0


def _is_utf8(name: str) -> bool:
    try:
        check_utf8(name)
    except NameRefused:
        return False
    return True
