"""An upload of a stream: parts are sent while the next ones come, and the size is unknown until the end.

The upload is made for a few more parts than have come; its size is raised when these are sent, and becomes the true one
before the last part is signed (docs/api.md). Memory holds one part for each sender and the one that is being read.
A stream cannot be read a second time: if an upload is interrupted, it is aborted and has to start again.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable

from sluice.digest import MOST_PARTS, SMALLEST_PART, composite, hash_part
from sluice.engine import Engine
from sluice.errors import APIError, ConfigError, DigestMismatch, SluiceError
from sluice.models import File, Upload
from sluice.progress import Reporter
from sluice.results import UploadResult
from sluice.sender import UploadEnded, URLUsedUp, send_part
from sluice.source import BytesSource
from sluice.stream import Stream

HEAD = 2 * SMALLEST_PART
"""Bytes up to which a stream is read before it is sent: a short one goes the way of all content of a known size."""
_FIRST_PARTS = 64
_MOST_URLS = 4


class StreamUploader:
    """Uploads one stream.

    Args:
        head: its first `HEAD` bytes, which were read already.
        known: files on the server; if one has this name and this content, it is the result.
    """

    def __init__(
        self,
        engine: Engine,
        stream: Stream,
        head: bytearray,
        name: str,
        content_type: str | None,
        reporter: Reporter,
        known: Iterable[File] = (),
    ) -> None:
        self._engine = engine
        self._stream = stream
        self._head = memoryview(head)
        self._name = name
        self._content_type = content_type
        self._reporter = reporter
        self._known = {file.digest: file for file in known if file.name == name and file.state != "corrupt"}
        self._hashes: dict[int, str] = {}
        self._etags: dict[int, str] = {}
        self._free = threading.BoundedSemaphore(engine.settings.parallel)
        self._errors: list[BaseException] = []

    def run(self) -> UploadResult:
        """Uploads.

        Raises:
            APIError, NetworkError, Cancelled: the upload failed and was aborted.
        """
        calls = self._engine.calls
        upload = calls.create(self._name, _FIRST_PARTS * SMALLEST_PART, content_type=self._content_type)
        try:
            upload = self._send(upload)
            digest = composite([self._hashes[number] for number in range(1, upload.part_count + 1)])
            if digest in self._known:
                calls.abort(upload.id)
                self._reporter.stage("done")
                return UploadResult(self._known[digest], instant=False, sent=0, kept=0, existing=True)
            self._reporter.stage("finishing")
            file = self._complete(upload)
        except BaseException:
            with contextlib.suppress(SluiceError):
                calls.abort(upload.id)
            raise
        if file.digest != digest:
            calls.trash(file.id)
            raise DigestMismatch(f"the server stored other bytes than {self._name}; the file was put into the trash")
        self._reporter.stage("done")
        return UploadResult(file, instant=False, sent=self._reporter.now.moved, kept=0)

    # -- send

    def _send(self, upload: Upload) -> Upload:
        """Reads to the end, and sends every part; the upload with its true size."""
        self._reporter.stage("sending")
        calls, threads, number, total = self._engine.calls, list[threading.Thread](), 0, 0
        try:
            while part := self._next():
                number, total = number + 1, total + len(part)
                if len(part) < SMALLEST_PART:
                    upload = calls.resize(upload, total)
                elif number > upload.part_count:
                    upload = calls.resize(upload, self._more(upload))
                thread = threading.Thread(target=self._one, args=(upload, number, part), name="part", daemon=True)
                threads = [thread, *(each for each in threads if each.is_alive())]
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException as ex:  # Ctrl-C comes to the thread that waits
            self._errors.append(ex)
            raise
        if self._errors:
            raise self._errors[0]
        return upload if upload.size == total else calls.resize(upload, total)

    def _next(self) -> bytearray | memoryview | None:
        """The next part, once there is room for it in memory; None at the end, or if one cannot be sent."""
        self._free.acquire()
        self._engine.check()
        if self._errors:
            return None
        if self._head:
            part, self._head = self._head[:SMALLEST_PART], self._head[SMALLEST_PART:]
            return part
        return self._stream.read(SMALLEST_PART)

    @staticmethod
    def _more(upload: Upload) -> int:
        if upload.part_count == MOST_PARTS:
            raise ConfigError(
                f"a stream may have {MOST_PARTS * SMALLEST_PART} bytes; write it into a file, and upload that"
            )
        return min(2 * upload.part_count, MOST_PARTS) * SMALLEST_PART

    def _one(self, upload: Upload, number: int, part: bytearray | memoryview) -> None:
        try:
            if not self._errors:
                self._send_part(upload, number, BytesSource(part, self._name))
        except BaseException as ex:
            self._errors.append(ex)
        finally:
            self._free.release()

    def _send_part(self, upload: Upload, number: int, source: BytesSource) -> None:
        sha256 = self._hashes[number] = hash_part(source, 0, source.size, self._engine.check)
        self._reporter.hashed(source.size)
        for turn in range(_MOST_URLS):
            signed = self._engine.calls.sign(upload, {number: sha256})
            if number not in signed:
                return  # the storage has it: only an answer was lost
            try:
                with self._engine.slots:
                    place = (0, source.size)
                    etag = send_part(self._engine, source, place, sha256, signed[number], self._reporter)
                if etag:
                    self._etags[number] = etag
                return
            except UploadEnded as ex:
                raise APIError(409, "UPLOAD_NOT_OPEN", "The upload was ended meanwhile") from ex
            except URLUsedUp as ex:
                if turn == _MOST_URLS - 1:
                    raise ex.__cause__ or ex from None

    # -- end

    def _complete(self, upload: Upload) -> File:
        """The file. A part that went astray cannot be sent again: its bytes are gone."""
        found = self._engine.calls.complete(upload, self._etags)
        pause = 0.05
        while found.state == "finalizing":
            self._engine.check()
            self._engine.transport.stop.wait(pause)
            pause = min(2.0, pause * 1.5)
            found = self._engine.calls.upload(upload.id)
        if found.file is None:
            found = self._engine.calls.upload(upload.id)
        if found.file is None:
            raise APIError(410, found.error or "UPLOAD_NOT_OPEN", f"The upload is {found.state}")
        return found.file
