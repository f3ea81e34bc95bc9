"""Files on the server by what a person calls them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sluice.errors import NotFound
from sluice.models import File

if TYPE_CHECKING:
    from sluice.client import Client

_MAGIC = re.compile(r"[*?\[]")


def is_pattern(text: str) -> bool:
    """Returns True if the text is a pattern for several names."""
    return bool(_MAGIC.search(text))


def matching(client: Client, pattern: str | None, order: str = "name", *, trashed: bool = False) -> Iterator[File]:
    """The files whose names fit a pattern; all of them without one."""
    if pattern is None:
        yield from client.files(order=order, trashed=trashed)
        return
    literal = max(re.split(r"[*?]|\[[^]]*\]", pattern), key=len)
    for file in client.files(literal or None, order=order, trashed=trashed):
        if fnmatch.fnmatchcase(file.name, pattern):
            yield file


def within(client: Client, prefix: str) -> Iterator[File]:
    """The files whose names begin with exactly this. Raises NotFound if there is none."""
    found = False
    for file in client.files(prefix):
        if file.name.startswith(prefix):
            found = True
            yield file
    if not found:
        raise NotFound(404, "FILE_NOT_FOUND", f"There is no folder {prefix!r}")


def chosen(client: Client, names: Sequence[str]) -> Iterator[File]:
    """The files that arguments name: by id, by name (the newest of it), or by pattern. Raises NotFound."""
    for name in names:
        try:
            yield client.stat(name)
            continue
        except NotFound:
            if not is_pattern(name):  # a file may be called [x]*
                raise
        yield from _some(matching(client, name), name)


def trashed(client: Client, names: Sequence[str]) -> Iterator[File]:
    """Yields the files in the trash that arguments name."""
    for name in names:
        found = [file for file in client.files(name, trashed=True) if name in (file.name, file.id)]
        found = found or [file for file in client.files(trashed=True) if file.id == name]
        if found:
            yield max(found, key=lambda file: (file.trashed_at is not None, file.trashed_at, file.id))
        elif is_pattern(name):
            yield from _some(matching(client, name, trashed=True), name)
        else:
            raise NotFound(404, "FILE_NOT_FOUND", f"There is no file {name!r} in the trash")


def _some(files: Iterator[File], pattern: str) -> Iterator[File]:
    listed = list(files)
    if not listed:
        raise NotFound(404, "FILE_NOT_FOUND", f"No file fits {pattern!r}")
    yield from listed
