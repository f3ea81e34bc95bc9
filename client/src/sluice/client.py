"""The SDK's front door."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from sluice import downloader, source
from sluice.calls import Calls
from sluice.credentials import CredentialStore, MemoryStore
from sluice.digest import digest_of
from sluice.downloader import Address, Downloader
from sluice.engine import Engine
from sluice.errors import APIError, ConfigError, LocalError, NetworkError, NotFound, SluiceError
from sluice.group import Small, upload_group
from sluice.limiter import Limiter
from sluice.models import File, Link, Upload, User
from sluice.names import check_local_name
from sluice.progress import OnProgress, Reporter
from sluice.session import Session
from sluice.settings import Settings
from sluice.transport import Transport, refusal
from sluice.uploader import Uploader, UploadResult
from sluice.version import VERSION
from sluice.wire import Connections

_ID = re.compile(r"[0-9a-f]{32}")
Content = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


class Client:
    """One user of one server; for use by many threads. A context manager: at its end every connection is closed.

    Sign in by ``token`` (used as it is, until it ends), by ``username`` and ``password`` (a session is opened when it
    is needed, and opened anew when it has ended), or by ``store``, where a session is kept.

    Example::

        with Client("https://files.example", username="ann", password="…") as client:
            result = client.upload("holiday.mp4", on_progress=print)
            print(client.link(result.file).url)

    Every method raises the errors of `sluice.errors`: APIError where the server says no, NetworkError where it cannot
    be reached for `Settings.patience` seconds, SignInNeeded where there is no session and no password.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        username: str | None = None,
        password: str | None = None,
        store: CredentialStore | None = None,
        settings: Settings | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is no server's URL: http://… or https://…")
        settings = settings or Settings()
        ca_file = str(settings.ca_file) if settings.ca_file else None
        connections = Connections(ca_file)
        transport = Transport(url, connections, settings.patience, f"sluice/{VERSION}")
        pair = (username, password) if username is not None and password is not None else None
        self.session = Session(transport, store or MemoryStore(), lambda: pair, token)
        self._calls = Calls(transport, self.session)
        self._engine = Engine(
            self._calls,
            transport,
            connections,
            settings,
            Limiter(settings.limit_rate, transport.stop),
            threading.BoundedSemaphore(settings.parallel),
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends whatever goes on in other threads, and closes every connection."""
        self._engine.transport.stop.set()
        self._engine.connections.close()

    @property
    def url(self) -> str:
        """The server's."""
        return self._engine.transport.url

    @property
    def settings(self) -> Settings:
        return self._engine.settings

    @property
    def clock_offset(self) -> float:
        """Seconds that the server's clock is ahead of this machine's, as of its last answer."""
        return self._engine.transport.clock_offset

    @property
    def network_speed(self) -> float | None:
        """Bytes a second that uploads reached; may be set from what an earlier run has seen."""
        return self._engine.network_speed

    @network_speed.setter
    def network_speed(self, speed: float | None) -> None:
        self._engine.network_speed = speed

    # -- accounts

    def sign_up(self, username: str, password: str, code: str | None = None) -> User:
        """A new account, as far as the server takes any; it is not signed in by that."""
        return self._calls.sign_up(username, password, code)

    def login(self, username: str, password: str) -> None:
        """Opens a session, which the store keeps."""
        self.session.sign_in(username, password)

    def logout(self) -> None:
        """Ends the session, on the server and in the store."""
        self.session.sign_out()

    def whoami(self) -> User:
        return self._calls.me()

    # -- content

    def upload(
        self,
        content: Content,
        name: str | None = None,
        *,
        content_type: str | None = None,
        known: Iterable[File] = (),
        on_progress: OnProgress | None = None,
    ) -> UploadResult:
        """Uploads a file by its path, a file object, or bytes.

        An upload that was interrupted is gone on with, by whatever machine has the same content under the same name.

        Args:
            name: what it is called on the server; by default the file's own.
            known: files that are there; one of the same name and content is answered, and not stored again.

        Raises:
            FileChanged: the file was written to meanwhile; nothing was stored.
        """
        try:
            opened = source.source_of(content, name)
        except ValueError as ex:
            raise ConfigError(str(ex)) from ex
        with opened:
            reporter = Reporter(opened.name, opened.size, on_progress)
            return Uploader(self._engine, opened, opened.name, content_type, reporter, known).run()

    def upload_group(self, files: Sequence[Small]) -> list[UploadResult | None]:
        """Uploads small files together, in few calls; None for each that is left to `upload`, whatever the reason.

        At most `group.MOST` files of `group.LARGEST` bytes; `group.Groups` makes such groups.
        """
        return upload_group(self._engine, files)

    def download(
        self,
        file: File | str,
        path: str | os.PathLike[str] | None = None,
        *,
        overwrite: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Path:
        """Downloads to a file, whose path is answered. Its digest is compared before it gets its name.

        Args:
            file: a file, its id, or a link to one.
            path: where to; a folder, or nothing for the working folder: there under the file's own name.
            overwrite: whether a file that is there may be replaced; the same content is left alone anyway.

        Raises:
            DigestMismatch, DiskFull, PermissionRefused, NameRefused.
        """
        found, address = self._found(file)
        target = Path(path) if path is not None else Path()
        if target.is_dir():
            target = target / check_local_name(found.name)
        reporter = Reporter(found.name, found.size, on_progress)
        if target.exists() and not overwrite:
            if target.stat().st_size != found.size or self.digest(target) != found.digest:
                raise LocalError(f"{target} is there already, with other content (--force replaces it)")
            reporter.kept(found.size)
            reporter.stage("done")
            return target
        Downloader(self._engine, found.name, found.size, found.digest, address, reporter).to_file(target)
        return target

    def stream(self, file: File | str, on_progress: OnProgress | None = None) -> Iterator[memoryview]:
        """The content piece by piece; each piece is good until the next. Raises DigestMismatch at the end."""
        found, address = self._found(file)
        reporter = Reporter(found.name, found.size, on_progress)
        return Downloader(self._engine, found.name, found.size, found.digest, address, reporter).stream()

    def read(self, file: File | str) -> bytes:
        """The whole content in memory."""
        return b"".join(bytes(piece) for piece in self.stream(file))

    def digest(self, path: str | os.PathLike[str]) -> str:
        """The digest of a local file."""
        with source.FileSource.open(Path(path)) as opened:
            return digest_of(opened, self._engine.settings.hashers)

    def _found(self, file: File | str) -> tuple[File, Address]:
        """A file and where its bytes are."""
        if isinstance(file, str) and "://" in file:
            found = self._linked(file)
            return found, Address(self._engine, None, found.size, file)
        found = file if isinstance(file, File) else self.stat(file)
        return found, Address(self._engine, found.id, found.size)

    def _linked(self, link: str) -> File:
        """What a link leads to."""
        patience = self._engine.patience()
        while True:
            try:
                with self._engine.connections.request("HEAD", link) as response:
                    if response.status == 200:
                        return _of_headers(link, response.headers)
                    error: SluiceError = refusal(response, response.read())
                    if response.status not in (429, 500, 502, 503, 504):
                        raise _link_error(response.status, response.headers.get("x-request-id", ""), error)
            except NetworkError as ex:
                error = ex
            patience.pause(error)

    # -- files

    def files(self, text: str | None = None, *, order: str = "name", trashed: bool = False) -> Iterator[File]:
        """The user's files, page after page.

        Args:
            text: part of the name, in any case.
            order: name or newest.
        """
        return self._calls.files(text, order=order, trashed=trashed)

    def stat(self, file: str) -> File:
        """A file by its id, or the newest of its name. Raises NotFound."""
        if _ID.fullmatch(file):
            try:
                return self._calls.file(file)
            except NotFound:
                pass  # a name may look like an id
        for found in self._calls.files(file, order="newest"):
            if found.name == file:
                return found
        raise NotFound(404, "FILE_NOT_FOUND", f"There is no file {file!r}")

    def by_digest(self, digest: str) -> Iterator[File]:
        """The user's files of one content."""
        return self._calls.files(digest=digest)

    def rename(self, file: File | str, name: str) -> File:
        return self._calls.rename(self._id(file), name)

    def delete(self, file: File | str) -> None:
        """Puts a file into the trash; its links end."""
        self._calls.trash(self._id(file))

    def restore(self, file: File | str) -> File:
        """Takes a file out of the trash."""
        return self._calls.restore(self._id(file))

    def link(self, file: File | str, *, expires_in: int | None = None, disposition: str | None = None) -> Link:
        """A download URL for anybody; for an hour, or so many seconds up to 7 days."""
        return self._calls.link(self._id(file), expires_in, disposition)

    def _id(self, file: File | str) -> str:
        return file.id if isinstance(file, File) else self.stat(file).id

    # -- uploads

    def uploads(self, state: str | None = None) -> Iterator[Upload]:
        """The user's uploads, newest first."""
        return self._calls.uploads(state)

    def abort(self, upload: Upload | str) -> Upload:
        """Ends an unfinished upload and frees its parts."""
        return self._calls.abort(upload.id if isinstance(upload, Upload) else upload)


def _of_headers(link: str, headers: dict[str, str]) -> File:
    """A file as far as a link's answer tells of it."""
    name = unquote(urlsplit(link).path.rpartition("/")[2]) or "download"
    digest = headers.get("etag", "").strip('"')
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ConfigError("the link is none of Sluice's")
    nobody_knows = downloader.EPOCH
    return File(
        id="",
        name=name,
        size=int(headers["content-length"]),
        digest=digest,
        content_type=headers.get("content-type", ""),
        state="ready",
        created_at=nobody_knows,
        updated_at=nobody_knows,
        trashed_at=None,
        sha256=None,
    )


def _link_error(status: int, request_id: str, error: SluiceError) -> SluiceError:
    """HEAD has no body to say why."""
    if not request_id:
        return error
    kind = NotFound if status == 404 else APIError
    return kind(status, "LINK_REFUSED", f"The link is not good (any more): status {status}", request_id)
