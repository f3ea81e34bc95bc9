"""The local files that arguments of put name, and what each is called on the server."""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sluice.errors import ConfigError, LocalError

SEPARATOR = ":"
"""Between the folders of a name: a name on the server is no path."""


@dataclass(frozen=True)
class Found:
    """One thing to upload.

    Attributes:
        path: None for standard input.
        name: on the server.
        left: why it cannot be, if it cannot.
    """

    path: Path | None
    name: str
    left: str = ""


@dataclass
class Walk:
    """How arguments are followed.

    Attributes:
        recursive: folders, with all that is in them.
        follow_links: links to folders, too.
        exclude: patterns of names, or of paths below the folder, that are left out without a word.
    """

    recursive: bool = False
    follow_links: bool = False
    exclude: Sequence[str] = ()
    _above: list[tuple[int, int]] = field(default_factory=list)

    def of(self, arguments: Sequence[str]) -> Iterator[Found]:
        """Every file that arguments name.

        Raises:
            LocalError: an argument names nothing.
            ConfigError: a folder, without -r.
        """
        for text in arguments:
            if text == "-":
                yield Found(None, "")
                continue
            found = [text]
            if not os.path.lexists(text) and glob.has_magic(text):
                found = sorted(glob.glob(text, recursive=True))  # if no shell expanded the pattern
            if not found or not os.path.exists(found[0]):
                raise LocalError(f"there is no file {text}")
            for each in found:
                path = Path(each)
                if not path.is_dir():
                    yield Found(path, path.name)
                elif self.recursive:
                    yield from self._within(path, [path.resolve().name], [])
                else:
                    raise ConfigError(f"{each} is a folder: put -r takes it with all that is in it")

    def _within(self, folder: Path, steps: list[str], below: list[str]) -> Iterator[Found]:
        """Yields the entries of a folder. An entry that cannot be uploaded carries the reason."""
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            state = folder.stat()
        except OSError as ex:
            yield Found(folder, _join(steps), f"cannot be read: {ex.strerror}")
            return
        self._above.append((state.st_dev, state.st_ino))
        folders = []
        for entry in found:
            if self._is_excluded(entry.name, "/".join([*below, entry.name])):
                continue
            if _is_folder(entry):
                folders.append(entry)
            else:
                path = Path(entry.path)
                yield Found(path, _join([*steps, entry.name]), _reason(path))
        for entry in folders:
            yield from self._folder(entry, steps, below)
        self._above.pop()

    def _folder(self, entry: os.DirEntry[str], steps: list[str], below: list[str]) -> Iterator[Found]:
        path, name = Path(entry.path), _join([*steps, entry.name])
        if entry.is_symlink():
            if not self.follow_links:
                yield Found(path, name, "is a link to a folder (--follow-links takes what is in it)")
                return
            try:
                state = path.stat()
            except OSError as ex:
                yield Found(path, name, f"cannot be read: {ex.strerror}")
                return
            if (state.st_dev, state.st_ino) in self._above:
                yield Found(path, name, "is a link to a folder that it lies in")
                return
        yield from self._within(path, [*steps, entry.name], [*below, entry.name])

    def _is_excluded(self, name: str, path: str) -> bool:
        return any(fnmatch.fnmatchcase(name, each) or fnmatch.fnmatchcase(path, each) for each in self.exclude)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, say
        return False


def _reason(path: Path) -> str:
    """Why an entry of a folder is no file that can be uploaded; nothing if it is one."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a link to nothing" if path.is_symlink() else "is not there any more"
    except OSError as ex:
        return f"cannot be read: {ex.strerror}"
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    kind = kinds.get(stat.S_IFMT(mode))
    return f"is {kind}, and no file" if kind else ""


def _join(steps: Sequence[str]) -> str:
    return SEPARATOR.join(filter(None, steps))
