"""The SDK's front door."""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from sluice import address, links, targets
from sluice.calls import Calls
from sluice.content import Content, digest_of_path, opened
from sluice.credentials import CredentialStore, MemoryStore
from sluice.downloader import Address, Downloader
from sluice.engine import Engine
from sluice.errors import LocalError, NotFound
from sluice.group import Small, upload_group
from sluice.limiter import Limiter
from sluice.models import File, Link, Upload, User
from sluice.names import check_local_name
from sluice.progress import OnProgress, Reporter
from sluice.results import UploadResult
from sluice.session import Session
from sluice.settings import Settings
from sluice.source import BytesSource, Source
from sluice.stream import Stream
from sluice.streaming import HEAD, StreamUploader
from sluice.transport import Transport
from sluice.uploader import Uploader
from sluice.version import VERSION
from sluice.wire import Connections

_ID = re.compile(r"[0-9a-f]{32}")


class Client:
    """One user of one server; for use by many threads. A context manager: at its end every connection is closed.

    Sign in by ``token`` (used as it is, until it ends), by ``username`` and ``password`` (a session is opened when it
    is needed, and opened again after it has ended), or by ``store``, which keeps a session. All of these go to the
    server's origin (scheme, host and port), and to no other: not to the host of a link or the target of a redirect.

    A forked child process can use a client of its parent: it opens new connections. If the session is kept in memory,
    the child uses the access token until it expires, and then needs the password. A client cannot be pickled.

    Example::

        with Client("https://files.example", username="ann", password="…") as client:
            result = client.upload("holiday.mp4", on_progress=print)
            print(client.link(result.file).url)

    Every method raises the errors of `sluice.errors`: APIError if the server refuses, NetworkError if it cannot
    be reached for `Settings.patience` seconds, SignInNeeded if there is no session and no password.
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
        _clients.add(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Client belongs to its process, with its connections: make another one there")

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the transfers and calls of other threads, and closes every connection."""
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

    def on_wait(self, told: Callable[[str, float], None]) -> None:
        """Calls ``told`` whenever the client waits: with the reason, and the seconds after which it gives up."""
        self._engine.transport.on_wait = told
        self._engine.connections.on_slow = lambda text: told(text, self.settings.patience)

    def on_request(self, told: Callable[[str], None]) -> None:
        """Calls ``told`` with a line for each request: the request, its result and its duration.

        Of the URL of a part or a link, which is a secret, the line holds the beginning.
        """

        def line(method: str, url: str, status: int | None, seconds: float, request_id: str) -> None:
            tail = f" ({request_id})" if request_id else ""
            told(f"{method} {address.shown(url)} {status or 'failed'}, {seconds * 1000:.0f} ms{tail}")

        self._engine.connections.on_request = line

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
        """The user who is signed in."""
        return self._calls.me()

    def change_password(self, current: str, new: str) -> None:
        """Another password for the user; every session ends, this one too."""
        self._calls.change_password(current, new)
        self.session.forget()

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
        """Uploads a file by its path, bytes, or a binary file object from its current position on.

        An interrupted upload is resumed, from any machine that has the same content under the same name.
        Content that the server has is not sent (`Settings.instant`). A stream that cannot be read twice (a pipe, gzip,
        an archive's member, a response) is sent in parts as it comes, with one part in memory for each that is being
        sent. If such an upload is interrupted, it starts again from the beginning.

        Args:
            name: the name on the server; by default the name of the file.
            content_type: such as ``image/png``; by default bytes without a type.
            known: files that are there; one of the same name and content is answered, and not stored again.
            on_progress: called with the progress.

        Raises:
            ConfigError: there is no name, or the object gives text.
            FileChanged: the file was written to during the upload; nothing was stored.
            LocalError: it cannot be read.
        """
        with opened(content, name) as found:
            if isinstance(found, Stream):
                return self._upload_stream(found, content_type, known, on_progress)
            return self._upload_source(found, content_type, known, on_progress)

    def _upload_source(
        self, found: Source, content_type: str | None, known: Iterable[File], on_progress: OnProgress | None
    ) -> UploadResult:
        reporter = Reporter(found.name, found.size, on_progress)
        return Uploader(self._engine, found, found.name, content_type, reporter, known).run()

    def _upload_stream(
        self, stream: Stream, content_type: str | None, known: Iterable[File], on_progress: OnProgress | None
    ) -> UploadResult:
        head = stream.read(HEAD)
        if len(head) < HEAD:
            return self._upload_source(BytesSource(head, stream.name), content_type, known, on_progress)
        reporter = Reporter(stream.name, 0, on_progress)
        return StreamUploader(self._engine, stream, head, stream.name, content_type, reporter, known).run()

    def upload_group(self, files: Sequence[Small]) -> list[UploadResult | None]:
        """Uploads small files together, in few calls; None for each that is left to `upload`, for any reason.

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
            path: where to; a folder, or nothing for the working folder: there under the file's own name. A device or a
                pipe is written into; a link to a file stays a link.
            overwrite: whether a file that is there may be replaced; the same content is left alone anyway.

        Raises:
            DigestMismatch, DiskFull, PermissionRefused, NameRefused.
        """
        found, place = self._found(file)
        target = Path(path) if path is not None else Path()
        if target.is_dir():
            target = target / check_local_name(found.name)
        reporter = Reporter(found.name, found.size, on_progress)
        download = Downloader(self._engine, found.name, found.size, found.digest, place, reporter)
        if targets.is_written_into(target):
            targets.write_into(target, download.stream())
            return target
        if target.exists() and not overwrite:
            if target.stat().st_size != found.size or self.digest(target) != found.digest:
                raise LocalError(f"{target} is there already, with other content (--force replaces it)")
            reporter.kept(found.size)
            reporter.stage("done")
            return target
        download.to_file(targets.behind_links(target))
        return target

    def stream(self, file: File | str, on_progress: OnProgress | None = None) -> Iterator[memoryview]:
        """The content piece by piece; each piece is good until the next is asked for.

        Raises:
            DigestMismatch: at the end, if the bytes were not those of the digest.
        """
        found, place = self._found(file)
        reporter = Reporter(found.name, found.size, on_progress)
        return Downloader(self._engine, found.name, found.size, found.digest, place, reporter).stream()

    def read(self, file: File | str) -> bytes:
        """The whole content in memory."""
        return b"".join(bytes(piece) for piece in self.stream(file))

    def digest(self, path: str | os.PathLike[str]) -> str:
        """The digest of a local file, as the server knows content by."""
        return digest_of_path(Path(path), self._engine.settings.hashers)

    def _found(self, file: File | str) -> tuple[File, Address]:
        """A file and the address of its bytes."""
        if isinstance(file, str) and "://" in file:
            found = links.look(self._engine, file)
            return found, Address(self._engine, None, found.size, file)
        found = file if isinstance(file, File) else self.stat(file)
        return found, Address(self._engine, found.id, found.size)

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
        """Another name for a file."""
        return self._calls.rename(self._id(file), name)

    def delete(self, file: File | str) -> None:
        """Puts a file into the trash; its links end."""
        self._calls.trash(self._id(file))

    def restore(self, file: File | str) -> File:
        """Takes a file out of the trash."""
        return self._calls.restore(self._id(file))

    def link(self, file: File | str, *, expires_in: int | None = None, disposition: str | None = None) -> Link:
        """Creates a public download URL. It is valid for an hour, or for ``expires_in`` seconds up to 7 days."""
        return self._calls.link(self._id(file), expires_in, disposition)

    def unlink(self, file: File | str) -> None:
        """Ends every link of a file that was made so far."""
        self._calls.unlink(self._id(file))

    def _id(self, file: File | str) -> str:
        return file.id if isinstance(file, File) else self.stat(file).id

    # -- uploads

    def uploads(self, state: str | None = None) -> Iterator[Upload]:
        """The user's uploads, newest first."""
        return self._calls.uploads(state)

    def upload_status(self, upload: Upload | str) -> Upload:
        """Returns an upload as its storage has it now. Lists show the received parts as of the last check."""
        return self._calls.upload(upload.id if isinstance(upload, Upload) else upload)

    def abort(self, upload: Upload | str) -> Upload:
        """Ends an unfinished upload and frees its parts."""
        return self._calls.abort(upload.id if isinstance(upload, Upload) else upload)


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_clients):
        client._engine.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
