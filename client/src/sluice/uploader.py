"""One upload from its beginning to its file: found again, proved, sent, completed; repeated if it cannot continue."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace

from sluice.digest import Plan, answer_challenge, composite, hash_part, hash_parts, sample
from sluice.engine import Engine
from sluice.errors import APIError, DigestMismatch, FileChanged, NetworkError, ServerAway, SluiceError
from sluice.models import File, Upload, numbers
from sluice.pipeline import Pipeline
from sluice.progress import Reporter
from sluice.results import UploadResult
from sluice.sender import UploadEnded
from sluice.source import Source

SMALL = 64 * 1024**2
"""Bytes of content that is hashed before anything is sent: it takes a moment, and spares most calls."""
_BEGINNINGS = 3
_COMPLETES = 5
_ANEW = frozenset({"PART_HASH_CONFLICT", "PART_TRIES_EXHAUSTED", "DIGEST_MISMATCH", "UPLOAD_GONE"})
_ENDED = frozenset({"failed", "aborted", "expired"})


class _Anew(Exception):
    """The upload is over without a file; another one may go well."""


class Uploader:
    """Uploads one content.

    Args:
        source: the content to upload.
        name: the file's name on the server.
        known: files on the server; if one has this name and this content, it is the result.
    """

    def __init__(
        self,
        engine: Engine,
        source: Source,
        name: str,
        content_type: str | None,
        reporter: Reporter,
        known: Iterable[File] = (),
    ) -> None:
        self._engine = engine
        self._calls = engine.calls
        self._source = source
        self._name = name
        self._content_type = content_type
        self._reporter = reporter
        self._plan = Plan.of(source.size)
        self._hashes: dict[int, str] = {}
        self._upload: Upload | None = None
        self._instant: Upload | None = None
        self._known = [f for f in known if (f.name, f.size) == (name, source.size) and f.state != "corrupt"]

    def run(self) -> UploadResult:
        """Uploads. The next upload of the same content under the same name resumes an interrupted one.

        Raises:
            FileChanged: the content changed during the upload, which was aborted.
            APIError, NetworkError, Cancelled: it can be gone on with later.
        """
        for beginning in range(_BEGINNINGS):
            try:
                return self._run()
            except _Anew as ex:
                if beginning == _BEGINNINGS - 1:
                    raise ex.__cause__ or ServerAway("the upload came to nothing again and again") from ex
                self._source.check_unchanged()
                self._hashes.clear()
                self._reporter.again()
            except FileChanged:
                self._abort()
                raise
        raise AssertionError("not reached")

    def _run(self) -> UploadResult:
        for file in self._known:
            if len(self._hashes) < self._plan.part_count:
                self._hash_first()
            if file.digest == self._digest():
                self._reporter.stage("done", instant=True)
                return UploadResult(file, instant=False, sent=0, kept=0, existing=True)
        upload = self._upload = self._create()
        found = upload.found
        if upload.state == "proving":
            upload = self._upload = self._prove(upload)
        if upload.state == "uploading" and found and upload.digest is not None:
            upload = self._upload = self._looked_at(upload)
        instant = upload.state == "done" and not found and upload.size > 0
        if upload.state in ("proving", "uploading"):
            upload = self._send(upload)
            instant = upload is self._instant
        file = self._file_of(upload)
        progress = self._reporter.now
        self._reporter.stage("done", instant=instant)
        return UploadResult(file, instant, progress.moved, progress.kept)

    # -- begin

    def _create(self) -> Upload:
        """Returns the upload: new, found again, or already complete."""
        plan, create = self._plan, self._calls.create
        if plan.part_count <= 1:
            self._hash_first()
            return self._conflicts(
                lambda: create(self._name, plan.size, self._digest(), None, self._content_type, dict(self._hashes))
            )
        key = sample(self._source, plan.size)
        if self._is_hashed_first() or len(self._hashes) == plan.part_count:
            self._hash_first()
            return self._found(create(self._name, plan.size, self._digest(), key, self._content_type))
        # the first parts are hashed before the upload is created, and get their URLs by the same call
        first = range(1, min(self._engine.settings.parallel, plan.part_count) + 1)
        self._hash(list(first))
        return self._conflicts(
            lambda: create(self._name, plan.size, None, key, self._content_type, dict(self._hashes)),
            lambda: create(self._name, plan.size, None, key, self._content_type),
        )

    def _conflicts(self, create: Callable[[], Upload], plain: Callable[[], Upload] | None = None) -> Upload:
        """Aborts an unfinished upload of other content that takes the place of this one."""
        try:
            return self._found(create())
        except APIError as ex:
            if ex.code not in _ANEW:
                raise
            if plain is not None:
                self._upload = plain()
                self._abort()
            raise _Anew from ex

    def _found(self, upload: Upload) -> Upload:
        """The upload, unless it is of other content that looks alike."""
        whole = len(self._hashes) == self._plan.part_count
        if upload.found and upload.digest and whole and upload.digest != self._digest():
            self._upload = upload
            self._abort()
            raise _Anew
        return upload

    def _is_hashed_first(self) -> bool:
        """Whether the whole is hashed before anything is sent."""
        mode = self._engine.settings.instant
        if isinstance(mode, int):
            return self._plan.size >= mode
        return mode == "always" or (mode == "auto" and self._plan.size <= SMALL)

    def _hash_first(self) -> None:
        self._hash(list(range(1, self._plan.part_count + 1)))

    def _hash(self, parts: list[int]) -> None:
        """Hashes parts that are not, side by side."""
        parts = [number for number in parts if number not in self._hashes]
        if len(parts) == 1:
            offset, length = self._plan.part(parts[0])
            self._hashes[parts[0]] = hash_part(self._source, offset, length, self._engine.check)
            self._reporter.hashed(length)
        elif parts:
            hashes = hash_parts(
                self._source,
                self._plan,
                parts,
                self._engine.settings.hashers,
                self._reporter.hashed,
                self._engine.check,
            )
            self._hashes.update(hashes)
        self._source.check_unchanged()

    def _digest(self) -> str:
        return composite([self._hashes[number] for number in range(1, self._plan.part_count + 1)])

    def _prove(self, upload: Upload) -> Upload:
        """Proves possession of the content. After that the upload is complete, or its parts are sent."""
        if upload.challenge is None or len(self._hashes) < self._plan.part_count:
            return upload
        proof = answer_challenge(self._source, upload.challenge.nonce, upload.challenge.ranges)
        ordered = [self._hashes[number] for number in range(1, self._plan.part_count + 1)]
        try:
            return self._calls.prove(upload, proof, ordered)
        except NetworkError:
            return self._calls.upload(upload.id)  # a challenge is taken once: the state says what came of it

    def _is_there(self) -> bool:
        """Asks by a separate upload whether the server has the content. If it has, that upload is complete."""
        self._source.check_unchanged()
        create = self._calls.create
        for _ in range(2):
            try:
                upload = create(self._name, self._plan.size, self._digest(), None, self._content_type)
                begun = upload.state
                if begun == "proving":
                    upload = self._prove(upload)
                if upload.state == "done":
                    self._instant = upload
                    return True
                self._calls.abort(upload.id)
            except (APIError, NetworkError):
                return False  # sending continues, and meets the error again if it matters
            if begun == "proving":
                return False
        return False  # what an earlier run had left was aborted, and another one took its place

    def _looked_at(self, upload: Upload) -> Upload:
        """An upload that was found again, with what its storage holds at this moment.

        The server's list of parts may be 5 s old, as after a quick restart; a complete always checks the storage.
        """
        if len(self._hashes) < self._plan.part_count:
            return upload
        try:
            return replace(self._await(self._calls.complete(upload)), found=True)
        except APIError as ex:
            if ex.code != "PARTS_MISSING":
                return upload  # a later call meets the error again and handles it
            missing = set(numbers(ex.details["missing"]))
        received = set(range(1, self._plan.part_count + 1)) - missing
        return replace(upload, missing=tuple(sorted(missing)), received=tuple(sorted(received)), found=True)

    # -- send

    def _send(self, upload: Upload) -> Upload:
        """Sends what is missing, and completes."""
        self._reporter.stage("sending")
        received = set(upload.received)
        self._reporter.kept(sum(self._plan.part(number)[1] for number in received))
        # an upload that was begun without a digest says nothing of what was sent: its hashes must be ours
        verify = upload.digest is None and bool(received)
        races = self._engine.settings.instant == "auto" and upload.digest is None and self._plan.part_count > 1
        pipeline = Pipeline(
            self._engine,
            self._source,
            self._plan,
            upload,
            self._hashes,
            self._reporter,
            received,
            verify,
            self._is_there if races else None,
        )
        wanted = set(upload.missing) | (received if verify else received - self._hashes.keys())
        signed = {number: part for number, part in (upload.parts or {}).items() if number not in received}
        checked = set(self._hashes) & received if upload.parts is not None else set()
        for turn in range(_COMPLETES):
            try:
                if wanted - checked:
                    pipeline.run(wanted - checked, signed, again=turn > 0)
                if pipeline.needless and self._instant is not None:
                    self._abort()
                    return self._instant
                self._reporter.stage("finishing")
                upload = self._await(self._calls.complete(upload, pipeline.etags))
            except UploadEnded:
                upload = self._await(self._calls.upload(upload.id))
            except APIError as ex:
                upload, wanted = self._after_refusal(upload, ex)
                signed, checked = {}, set()
                self._reporter.stage("sending")
                continue
            if upload.state == "done":
                return upload
            if upload.state in _ENDED:
                raise _Anew from APIError(410, upload.error or "UPLOAD_NOT_OPEN", f"The upload is {upload.state}")
            wanted, signed, checked = set(upload.missing), {}, set()
            self._check_parts(wanted)
        raise DigestMismatch(f"the server does not hold what was sent of {self._name}")

    def _after_refusal(self, upload: Upload, ex: APIError) -> tuple[Upload, set[int]]:
        """Returns the upload and the parts to send again after a refused call."""
        if ex.code == "PARTS_MISSING":
            return upload, set(numbers(ex.details["missing"]))
        if ex.code == "PART_MISMATCH" and ex.details.get("state") != "failed":
            wrong = set(ex.details["parts"])
            self._check_parts(wrong)
            return upload, wrong
        if ex.code == "UPLOAD_NOT_OPEN":
            found = self._await(self._calls.upload(upload.id))
            if found.state == "done":
                return found, set()
            raise _Anew from ex
        if ex.code in _ANEW or ex.code in ("UPLOAD_NOT_FOUND", "PART_MISMATCH"):
            self._abort()
            raise _Anew from ex
        raise ex

    def _check_parts(self, parts: set[int]) -> None:
        """Raises FileChanged if the content of parts has changed since they were hashed."""
        self._source.check_unchanged()
        for number in sorted(parts & self._hashes.keys()):
            if hash_part(self._source, *self._plan.part(number), self._engine.check) != self._hashes[number]:
                raise FileChanged(f"{self._source.name} was written to while it was uploaded; nothing was stored")

    # -- end

    def _await(self, upload: Upload) -> Upload:
        """The upload when the server is done with it."""
        pause = 0.05
        while upload.state == "finalizing":
            self._engine.check()
            self._engine.transport.stop.wait(pause)
            pause = min(2.0, pause * 1.5)
            upload = self._calls.upload(upload.id)
        return upload

    def _file_of(self, upload: Upload) -> File:
        upload = self._await(upload)
        if upload.file is None:
            upload = self._calls.upload(upload.id)
        if upload.state in _ENDED or upload.file is None:
            raise _Anew from APIError(410, upload.error or "UPLOAD_NOT_OPEN", f"The upload is {upload.state}")
        if len(self._hashes) == self._plan.part_count and upload.file.digest != self._digest():
            self._calls.trash(upload.file.id)
            raise DigestMismatch(f"the server stored other bytes than {self._name}; the file was put into the trash")
        return upload.file

    def _abort(self) -> None:
        if self._upload is not None:
            with contextlib.suppress(SluiceError):
                self._calls.abort(self._upload.id)
