"""Small files together: one call begins them, one ends them, and between the two each is sent by itself.

A group holds only the simple case: new files of one part, on a server that knows the calls. Every other case
(found again, known content, a file that changed, a refusal) is left to `sluice.uploader`, which uploads such files one
by one and finds the uploads that were begun here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sluice.digest import composite, hash_part
from sluice.engine import Engine
from sluice.errors import APIError, FileChanged, LocalError, SluiceError
from sluice.models import File, SignedPart, Upload
from sluice.progress import OnProgress, Reporter
from sluice.results import UploadResult
from sluice.sender import UploadEnded, URLUsedUp, send_part
from sluice.source import FileSource, Source

LARGEST = 1024**2
"""Bytes of a file that is worth it."""
MOST = 16
"""Files of one group."""
_UNFINISHED = 80
"""Most unfinished uploads of all groups together: a user may have 100."""
_BYTES = 4 * 1024**2
"""Bytes of one group: it should not take long."""


@dataclass(frozen=True)
class Small:
    """A file that may go with others.

    Attributes:
        known: files on the server; one of this name and content is not stored again.
        content_type: by default bytes without a type.
    """

    path: Path
    name: str
    size: int
    known: Sequence[File] = ()
    on_progress: OnProgress | None = None
    content_type: str | None = None


@dataclass
class _Open:
    """One of them on its way."""

    source: Source
    sha256: str
    reporter: Reporter
    content_type: str | None = None
    upload: Upload | None = None
    sent: bool = False

    @property
    def is_known(self) -> bool:
        """The server had the content: the file was made by the call that began it."""
        return self.upload is not None and not self.upload.found and self.upload.state == "done"

    @property
    def digest(self) -> str:
        return composite([self.sha256])

    @property
    def signed(self) -> SignedPart | None:
        return (self.upload.parts or {}).get(1) if self.upload is not None else None


class Groups:
    """Puts files into groups as they come: alone at first, so that a few keep all threads busy, then more together."""

    def __init__(self, parallel: int) -> None:
        self._parallel = parallel
        self._most = max(1, min(MOST, _UNFINISHED // parallel))
        self._seen = 0
        self._bytes = 0
        self._files: list[Small] = []

    def add(self, file: Small) -> list[Small] | None:
        """The group that is full now, if one is."""
        self._files.append(file)
        self._bytes += file.size
        self._seen += 1
        wanted = min(self._most, 1 + self._seen // (2 * self._parallel))
        return self.rest() if len(self._files) >= wanted or self._bytes >= _BYTES else None

    def rest(self) -> list[Small] | None:
        """Returns the files that are left, as the last group."""
        files, self._files, self._bytes = self._files, [], 0
        return files or None


def upload_group(engine: Engine, files: Sequence[Small]) -> list[UploadResult | None]:
    """Uploads files together; None for each that has to go by itself.

    Raises:
        NetworkError, SignInNeeded, Cancelled: no file can be uploaded.
    """
    if len(files) < 2 or not engine.takes_groups:
        return [None] * len(files)
    with contextlib.ExitStack() as opened:
        open_files = [_open(engine, file, opened) for file in files]
        going = [each for each in open_files if each is not None]
        if not _create(engine, going):
            return [None] * len(files)
        for each in going:
            _send(engine, each)
        done = _complete(engine, [each for each in going if each.sent])
        done.update(_known(going))
        return [None if each is None else done.get(id(each)) for each in open_files]


def _open(engine: Engine, file: Small, opened: contextlib.ExitStack) -> _Open | None:
    """A file with its hash; None for what is no small file any more, or may be on the server."""
    try:
        source = opened.enter_context(FileSource.open(file.path))
        if not 0 < source.size <= LARGEST:
            return None
        source.name = file.name
        reporter = Reporter(file.name, source.size, file.on_progress)
        sha256 = hash_part(source, 0, source.size, engine.check)
        each = _Open(source, sha256, reporter, file.content_type)
        source.check_unchanged()
    except (LocalError, FileChanged):
        return None
    if any((known.name, known.digest) == (file.name, each.digest) for known in file.known):
        return None
    reporter.hashed(source.size)
    return each


def _create(engine: Engine, going: Sequence[_Open]) -> bool:
    """Begins the uploads of a group; False if the server has no such call, or refuses the group."""
    try:
        uploads = engine.calls.create_many(
            [(each.source.name, each.source.size, each.digest, {1: each.sha256}, each.content_type) for each in going]
        )
    except APIError as ex:
        if ex.status in (404, 405):
            engine.takes_groups = False
            return False
        if ex.status == 400:  # such as a refused name: a separate call per file shows which
            return False
        raise
    for each, upload in zip(going, uploads, strict=True):
        each.upload = upload
    return True


def _send(engine: Engine, each: _Open) -> None:
    """Sends a new file. If this fails, the file is uploaded by itself and meets the error again."""
    if each.upload is None or each.upload.found or each.upload.state != "uploading" or each.signed is None:
        return
    each.reporter.stage("sending")
    try:
        with engine.slots:
            send_part(engine, each.source, (0, each.source.size), each.sha256, each.signed, each.reporter)
        each.source.check_unchanged()
        each.sent = True
    except FileChanged:
        with contextlib.suppress(SluiceError):
            engine.calls.abort(each.upload.id)
    except (URLUsedUp, UploadEnded, APIError):
        return


def _known(going: Iterable[_Open]) -> dict[int, UploadResult]:
    """Returns the results of files whose content the server had, by `id`. Uploading them again would make two files."""
    results = {}
    for each in going:
        if each.is_known and each.upload is not None and each.upload.file is not None:
            each.reporter.stage("done", instant=True)
            results[id(each)] = UploadResult(each.upload.file, instant=True, sent=0, kept=0)
    return results


def _complete(engine: Engine, sent: Iterable[_Open]) -> dict[int, UploadResult]:
    """Ends those that were sent; the results of those that are done, by `id`."""
    ended = {each.upload.id: each for each in sent if each.upload is not None}
    if not ended:
        return {}
    results = {}
    for each, upload in zip(ended.values(), engine.calls.complete_many(list(ended)), strict=True):
        if upload is None or upload.state != "done" or upload.file is None or upload.file.digest != each.digest:
            continue
        moved = each.reporter.now.moved
        each.reporter.stage("done")
        results[id(each)] = UploadResult(upload.file, instant=False, sent=moved, kept=0)
    return results
