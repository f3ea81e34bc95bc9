"""One download: ranges of several parts side by side, hashed as they come, resumed, compared with the digest."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from sluice.digest import Plan, composite
from sluice.engine import Engine
from sluice.errors import APIError, Cancelled, CertificateRefused, DigestMismatch, DiskFull, Intercepted, NetworkError
from sluice.partial import PartialFile
from sluice.progress import Reporter
from sluice.retry import Patience
from sluice.transport import check_redirect, is_transient, refusal
from sluice.wire import Response

_RANGE_BYTES = 64 * 1024**2
"""Most bytes of one request. A request costs the server more than it costs to send a megabyte."""
_RECEIVE = 512 * 1024
"""Bytes that are received, hashed and written at a time. The system caches what is written in pieces as large: of
1 MiB each they come from memory that a virtual machine's host has taken back, and cost three times as much.
"""

_RENEWED = frozenset(
    {"LINK_EXPIRED", "LINK_INVALID", "LINK_REVOKED", "TOKEN_EXPIRED", "TOKEN_REVOKED", "TOKEN_INVALID"}
)


class Address:
    """Where a file's bytes are fetched: by the user's token, by a link of our own, or by one that was given.

    A small file goes by token: one call. For a large one a link is made, whose ranges ask no API process.
    """

    def __init__(self, engine: Engine, file_id: str | None, size: int, link: str | None = None) -> None:
        self._engine = engine
        self._file_id = file_id
        self._is_given = link is not None
        self._link = link
        self._by_token = Plan.of(size).part_count <= 1
        self._token = ""
        self._lock = threading.Lock()

    def get(self) -> tuple[str, dict[str, str]]:
        """URL and headers."""
        engine = self._engine
        headers = {"User-Agent": engine.transport.user_agent, "Accept-Encoding": "identity"}
        if self._by_token and not self._is_given:
            self._token = engine.calls.session.token()
            headers["Authorization"] = f"Bearer {self._token}"
            return f"{engine.transport.url}/api/v1/files/{self._file_id}/content", headers
        with self._lock:
            if self._link is None:
                assert self._file_id is not None
                self._link = engine.calls.link(self._file_id).url
            return self._link, headers

    def renew(self, refused: str) -> bool:
        """Gets another link or token; False if there is none."""
        if self._is_given:
            return False
        if self._by_token:
            engine = self._engine
            engine.calls.session.renew(self._token)
            return True
        with self._lock:
            if self._link == refused:
                self._link = None
        return True


class Downloader:
    """Downloads one content.

    Args:
        file: the server's description of the file.
        address: the address of its bytes.
    """

    def __init__(self, engine: Engine, name: str, size: int, digest: str, address: Address, reporter: Reporter) -> None:
        self._engine = engine
        self._name = name
        self._plan = Plan.of(size)
        self._digest = digest
        self._address = address
        self._reporter = reporter

    # -- into a file

    def to_file(self, path: Path) -> None:
        """Downloads to NAME.part, compares the digest, and renames. An interrupted one is gone on with.

        Raises:
            DigestMismatch: the bytes are not those of the digest; nothing is left of them.
            DiskFull, PermissionRefused, APIError, NetworkError, Cancelled: the received bytes are kept.
        """
        partial = PartialFile(path, self._plan, self._digest)
        try:
            resumed = partial.kept
            self._reporter.kept(resumed)
            self._check_room(path, self._plan.size - resumed)
            self._fetch_missing(partial)
            if not partial.is_right() and resumed:
                partial.begin_anew()
                self._reporter.again()
                self._fetch_missing(partial)
            if not partial.is_right():
                partial.drop()
                raise DigestMismatch(f"what came of {self._name} is not what its digest says")
            partial.finish(sync=self._engine.settings.sync)
        finally:
            partial.close()
        self._reporter.stage("done")

    @staticmethod
    def _check_room(path: Path, wanted: int) -> None:
        free = shutil.disk_usage(path.parent).free
        if free < wanted:
            raise DiskFull(f"the disk is full ({path.parent}): {wanted} bytes are to come, {free} are free")

    def _fetch_missing(self, partial: PartialFile) -> None:
        self._reporter.stage("receiving")
        units = deque(self._units([n for n in range(1, self._plan.part_count + 1) if n not in partial.hashes]))
        errors: list[BaseException] = []

        def work() -> None:
            view = self._buffer()
            while not errors:
                try:
                    first, last = units.popleft()
                    self._fetch(first, last, partial, view)
                except IndexError:
                    return
                except BaseException as ex:
                    errors.append(ex)

        count = min(self._engine.settings.parallel, len(units))
        threads = [threading.Thread(target=work, name="range", daemon=True) for _ in range(count if count > 1 else 0)]
        try:
            for thread in threads:
                thread.start()
            if not threads:
                work()
            for thread in threads:
                thread.join()
        except BaseException as ex:  # Ctrl-C comes to the thread that waits
            errors.append(ex)
            raise
        if errors:
            raise errors[0]

    def _units(self, missing: list[int]) -> Iterator[tuple[int, int]]:
        """Runs of missing parts, (first, last): long, but enough of them for every thread."""
        share = len(missing) // (self._engine.settings.parallel * 4)
        most = max(1, min(share, _RANGE_BYTES // self._plan.part_size))
        begin = 0
        while begin < len(missing):
            end = begin + 1
            while end < len(missing) and missing[end] == missing[end - 1] + 1 and end - begin < most:
                end += 1
            yield missing[begin], missing[end - 1]
            begin = end

    def _fetch(self, first: int, last: int, partial: PartialFile, view: memoryview) -> None:
        """Some parts in a row."""
        number, sha256 = first, hashlib.sha256()
        written = 0  # bytes of the part that is on its way
        offset, end = self._plan.part(first)[0], sum(self._plan.part(last))
        for piece in self._bytes(offset, end, view):
            while piece:
                length = self._plan.part(number)[1]
                taken = piece[: length - written]
                sha256.update(taken)
                partial.write(self._plan.part(number)[0] + written, taken)
                written, piece = written + len(taken), piece[len(taken) :]
                if written == length:
                    partial.part_done(number, sha256.hexdigest())
                    number, sha256, written = number + 1, hashlib.sha256(), 0

    # -- as a stream

    def stream(self) -> Iterator[memoryview]:
        """The content, piece by piece; each piece is good until the next is asked for.

        Raises:
            DigestMismatch: at the end, if the bytes do not match the digest.
        """
        self._reporter.stage("receiving")
        hashes: list[str] = []
        sha256, left = hashlib.sha256(), self._plan.part_size
        for piece in self._bytes(0, self._plan.size, self._buffer()):
            rest = piece
            while rest:
                taken = rest[:left]
                sha256.update(taken)
                left, rest = left - len(taken), rest[len(taken) :]
                if not left:
                    hashes.append(sha256.hexdigest())
                    sha256, left = hashlib.sha256(), self._plan.part_size
            yield piece
        if left < self._plan.part_size:
            hashes.append(sha256.hexdigest())
        if composite(hashes) != self._digest:
            raise DigestMismatch(f"what came of {self._name} is not what its digest says")
        self._reporter.stage("done")

    def _buffer(self) -> memoryview:
        return memoryview(bytearray(max(1, min(_RECEIVE, self._plan.size, self._engine.limiter.piece))))

    # -- from the server

    def _bytes(self, offset: int, end: int, view: memoryview) -> Iterator[memoryview]:
        """The bytes from ``offset`` to before ``end``, gone on with wherever the connection breaks."""
        patience = self._engine.patience()
        while offset < end:
            patience.check()
            url, headers = self._address.get()
            headers["Range"] = f"bytes={offset}-{end - 1}"
            headers["If-Range"] = f'"{self._digest}"'
            try:
                with self._engine.connections.request("GET", url, headers) as response:
                    if not self._takes(response, url, offset, end, patience):
                        continue
                    while offset < end:
                        count = response.read_into(view[: min(len(view), end - offset)])
                        if not count:
                            break
                        self._reporter.moved(count)
                        self._engine.check()
                        self._engine.limiter.take(count)
                        yield view[:count]
                        offset += count
                        patience.success()
            except (CertificateRefused, Cancelled):
                raise
            except NetworkError as ex:
                if not ex.stale:
                    self._reporter.waiting(str(ex))
                    patience.pause(ex)

    def _takes(self, response: Response, url: str, offset: int, end: int, patience: Patience) -> bool:
        """Whether the answer holds the bytes that were asked for; False: ask again."""
        wanted = f"bytes {offset}-{end - 1}/{self._plan.size}"
        if response.status == 206 and response.headers.get("content-range", "") == wanted:
            return True
        if response.status == 200 and (offset, end) == (0, self._plan.size):
            return True
        if response.status < 300:
            # the whole instead of the range: the file under this address is another one by now
            raise DigestMismatch(f"{self._name} is not the same file any more; run it again")
        check_redirect(response, url)
        error = refusal(response, response.read())
        if isinstance(error, APIError):
            if error.code in _RENEWED and self._address.renew(url):
                patience.pause(error)
                return False
            if not is_transient(error):
                raise error
        elif isinstance(error, Intercepted):
            raise error
        self._reporter.waiting(str(error))
        patience.pause(error, error.retry_after if isinstance(error, APIError) else None)
        return False
