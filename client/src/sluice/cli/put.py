"""put."""

from __future__ import annotations

import glob
import itertools
import os
import stat
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click

from sluice.cli.batch import Batch, Task
from sluice.cli.display import Display
from sluice.cli.shared import Answer, amount, client_of, printable, transfer
from sluice.client import Client
from sluice.config import Config
from sluice.digest import SMALLEST_PART
from sluice.errors import ConfigError, LocalError, NameRefused, SluiceError, SomeFailed
from sluice.group import LARGEST, Groups, Small
from sluice.models import File
from sluice.progress import OnProgress
from sluice.uploader import UploadResult

_FEW = 20
SEPARATOR = ":"
"""Between the folders of a name: a name on the server is no path."""


@click.command()
@click.argument("paths", nargs=-1, required=True)
@click.option(
    "--recursive", "-r", is_flag=True, help="Folders, with all that is in them: a/b/c.txt is called a:b:c.txt."
)
@click.option("--name", "-n", help="What one file is called on the server; needed for - (standard input).")
@click.option("--instant", help="auto, always, never, or a size from which on files are hashed before they are sent.")
@click.option("--again", is_flag=True, help="Store files once more that are there already, name and content.")
@transfer
def put(
    paths: tuple[str, ...],
    recursive: bool,
    name: str | None,
    instant: str | None,
    again: bool,
    parallel: int | None,
    limit_rate: str | None,
    profile: str | None,
    url: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Upload files; what was interrupted goes on, from this machine or another."""
    answer = Answer(as_json=as_json, quiet=quiet)
    options = {"url": url, "parallel": parallel, "limit_rate": limit_rate, "instant": instant}
    config = Config(profile, options)
    if "-" in paths and name is None:
        raise ConfigError("standard input has no name: --name NAME")
    found = wanted(paths, recursive, answer)
    if name is not None:
        if recursive or len(paths) != 1:
            raise ConfigError("--name is for one file")
        found = ((path, name) for path, _ in found)
    with client_of(config, answer) as client:
        known = None if again else Known(client, whole=recursive or len(paths) > _FEW)
        _Put(client, answer, known, many=recursive or len(paths) > 1).run(found)


class Known:
    """What the server has by now, so that a second `put` of a folder stores nothing twice.

    Args:
        whole: all files are listed once, at the first question; else each name is asked for.
    """

    def __init__(self, client: Client, *, whole: bool) -> None:
        self._client = client
        self._whole = whole
        self._listed: dict[str, list[File]] | None = None
        self._lock = threading.Lock()

    def of(self, name: str) -> list[File]:
        """The files of a name."""
        if not self._whole:
            return [file for file in self._client.files(name) if file.name == name]
        with self._lock:
            if self._listed is None:
                self._listed = {}
                for file in self._client.files():
                    self._listed.setdefault(file.name, []).append(file)
        return self._listed.get(name, [])


class _Put:
    def __init__(self, client: Client, answer: Answer, known: Known | None, *, many: bool) -> None:
        self._client = client
        self._known = known
        self._answer = answer
        self._many = many
        self._display = Display(off=answer.quiet or answer.as_json, many=many)
        self._keys = itertools.count()

    def run(self, found: Iterator[tuple[Path | None, str]]) -> None:
        """Uploads (path, name) after (path, name); a path that is None is standard input."""
        batch = Batch(self._client.settings.parallel, self._failed)
        try:
            with self._display:
                if self._many:
                    batch.run(self._tasks(batch, found))
                else:
                    for path, name in found:
                        self._one(path, name)
        except KeyboardInterrupt:
            self._client.close()
            print("sluice: interrupted; run the same command again to go on", file=sys.stderr)
            raise
        if batch.failures:
            raise SomeFailed(f"{len(batch.failures)} of {len(batch.failures) + batch.done} files failed")

    def _tasks(self, batch: Batch, found: Iterable[tuple[Path | None, str]]) -> Iterator[Task]:
        """A task for each file, or for several small ones together."""
        groups = Groups(self._client.settings.parallel)
        for path, name in found:
            size = _size_of(path)
            self._display.expect(size)
            if path is None or not 0 < size <= LARGEST:
                yield self._task(path, name, size)
            elif full := groups.add(Small(path, name, size)):
                yield self._group(batch, full)
        if rest := groups.rest():
            yield self._group(batch, rest)

    def _task(self, path: Path | None, name: str, size: int) -> Task:
        return Task(name, size > SMALLEST_PART, lambda: self._one(path, name))

    def _group(self, batch: Batch, files: Sequence[Small]) -> Task:
        if len(files) == 1:
            return self._task(files[0].path, files[0].name, files[0].size)
        return Task(files[0].name, False, lambda: self._several(batch, files), counted=False)

    def _several(self, batch: Batch, files: Sequence[Small]) -> None:
        """Small files together; what does not go smoothly goes by itself."""
        fit = [file for file in files if _is_utf8(file.name)]
        group = [replace(file, known=self._of(file.name), on_progress=self._progress()) for file in fit]
        results = dict(zip(map(id, fit), self._client.upload_group(group), strict=True))
        for file in files:
            result = results.get(id(file))
            if result is not None:
                batch.went_well()
                self._answer.say(_value(file.path, result), _line(file.name, result))
            else:
                batch.attempt(self._task(file.path, file.name, file.size))

    def _of(self, name: str) -> Sequence[File]:
        """What the server has of a name."""
        return self._known.of(name) if self._known else ()

    def _progress(self) -> OnProgress:
        """Tells the display of one more file."""
        key = next(self._keys)
        return lambda progress: self._display.on_progress(key, progress)

    def _one(self, path: Path | None, name: str) -> None:
        check_utf8(name)
        content = path if path is not None else sys.stdin.buffer
        result = self._client.upload(
            content,
            name,
            known=self._of(name),
            on_progress=self._progress(),
        )
        self._answer.say(_value(path, result), _line(name, result))

    def _failed(self, name: str, ex: SluiceError) -> None:
        if self._answer.as_json:
            self._answer.say({"name": name, "error": str(ex), "exit_code": ex.exit_code}, "")
        else:
            print(f"sluice: {printable(name)}: {ex}", file=sys.stderr)


def _value(path: Path | None, result: UploadResult) -> dict[str, object]:
    return {
        "path": "-" if path is None else str(path),
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
        raise NameRefused(f"{printable(name)} is not UTF-8; choose a name with --name") from None


def _size_of(path: Path | None) -> int:
    """A file's size; 0 where it is not known, or not there any more."""
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


def wanted(paths: tuple[str, ...], recursive: bool, answer: Answer) -> Iterator[tuple[Path | None, str]]:
    """The files that arguments name, and what each is called on the server.

    Raises:
        LocalError: there is no such file.
        ConfigError: a folder, without -r.
    """
    for text in paths:
        if text == "-":
            yield None, ""
            continue
        found = [text]
        if not os.path.lexists(text) and glob.has_magic(text):
            found = sorted(glob.glob(text, recursive=True))  # where no shell did it
        if not found or not os.path.exists(found[0]):
            raise LocalError(f"there is no file {printable(text)}")
        for each in found:
            path = Path(each)
            if not path.is_dir():
                yield path, path.name
            elif recursive:
                yield from _within(path, answer)
            else:
                raise ConfigError(f"{printable(each)} is a folder: put -r takes it with all that is in it")


def _within(folder: Path, answer: Answer) -> Iterator[tuple[Path, str]]:
    """The regular files below a folder. Links to folders are not followed: they may lead in circles."""
    above = folder.resolve().name
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders.sort()
        steps = [above, *Path(place).relative_to(folder).parts]
        for name in sorted(names):
            path = Path(place) / name
            try:
                regular = stat.S_ISREG(path.stat().st_mode)
            except OSError:
                regular = False
            if not regular:
                answer.note(f"{path} is no file and is left out")
                continue
            yield path, SEPARATOR.join(filter(None, [*steps, name]))


def _raise(ex: OSError) -> None:
    raise LocalError(f"{ex.filename} cannot be read: {ex.strerror}")
