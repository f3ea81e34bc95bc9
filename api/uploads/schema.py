"""The JSON of uploads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, UnsetType

from api.core.models import Upload
from api.files.schema import FileAnswer
from api.http.schemas import (
    Answer,
    Body,
    Cursor,
    Digest,
    Error,
    FileSize,
    Id,
    Limit,
    Moment,
    Name,
    NoFolder,
    Query,
    Sha256,
    Size,
    one_of,
    timestamp,
)
from api.uploads import ranges
from api.uploads.proof import Challenge
from api.uploads.status import SignedParts, UploadView

MOST_AT_ONCE: Final = 50
"""Uploads of one call."""
_NUMBERS: Final = {"propertyNames": {"pattern": r"^[1-9][0-9]{0,3}$"}}
PartHashes = Annotated[dict[str, Sha256], Meta(min_length=1, max_length=1000, extra_json_schema=_NUMBERS)]
ETags = Annotated[
    dict[str, Annotated[str, Meta(pattern=r"^[ -~]+(?!\n)$", max_length=128)]], Meta(min_length=1, max_length=10_000)
]
"""The ETag of each part, exactly as the storage returned it."""


class CreateUpload(Body):
    """A file to upload.

    Attributes:
        digest: SHA-256 of the parts' SHA-256s; it finds an unfinished upload again, and content that is there already.
        resume_key: any string by which an unfinished upload without a digest is found again.
        parts: SHA-256 by part number, of the parts whose URLs the answer should have.
    """

    name: Name
    size: FileSize
    digest: Digest | None = None
    resume_key: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    folder_id: NoFolder = None
    content_type: str | None = None
    parts: PartHashes | None = None


class ResizeUpload(Body):
    """PATCH /uploads/{id}."""

    size: FileSize


class CreateUploads(Body):
    """Up to 50 files to upload, each as by itself."""

    uploads: Annotated[list[CreateUpload], Meta(min_length=1, max_length=MOST_AT_ONCE)]


class CompleteUploads(Body):
    """Up to 50 uploads to complete."""

    ids: Annotated[list[str], Meta(min_length=1, max_length=MOST_AT_ONCE)]


class SignParts(Body):
    """SHA-256 by part number."""

    parts: PartHashes


class CompleteUpload(Body):
    """The ETags that the storage returned for the parts' PUTs, which are optional."""

    etags: ETags | None = None


class Proof(Body):
    """The answer to a challenge.

    Attributes:
        proof: SHA-256 of the nonce and the bytes of the ranges.
        parts: SHA-256 of every part.
    """

    proof: Sha256
    parts: Annotated[list[Sha256], Meta(min_length=1, max_length=10_000)]


State = Annotated[str, one_of("proving", "uploading", "finalizing", "done", "failed", "aborted", "expired")]
StateWanted = Literal["all", "proving", "uploading", "finalizing", "done", "failed", "aborted", "expired"]


class UploadQuery(Query):
    """Which uploads a list shows."""

    state: StateWanted = "all"
    limit: Limit = 50
    cursor: Cursor | None = None


class PartAnswer(Answer):
    """Where the bytes of a part go: one request with this method, URL and these headers."""

    method: str
    url: str
    headers: Mapping[str, str]
    expires_at: Moment


class PartsAnswer(Answer):
    """Where parts go, by part number."""

    parts: dict[int, PartAnswer]


class ChallengeAnswer(Answer):
    """Which bytes prove that the caller has the content: [offset, length] of each range."""

    nonce: str
    ranges: list[tuple[int, int]]
    expires_at: Moment


class UploadAnswer(Answer):
    """An upload.

    Attributes:
        received: ranges of part numbers that the storage has, as [first, last].
        missing: ranges of part numbers that it has not.
        error: the code of what last went wrong with it.
        parts: where parts go, if the call named their hashes.
    """

    id: Id
    state: State
    name: str
    size: Size
    digest: Sha256 | None
    content_type: str
    part_size: Size
    part_count: Size
    storage: str
    created_at: Moment
    expires_at: Moment
    challenge: ChallengeAnswer | None
    file: FileAnswer | None
    received: list[tuple[int, int]]
    missing: list[tuple[int, int]]
    received_bytes: Size
    error: str | None
    percent: float
    parts: dict[int, PartAnswer] | UnsetType = UNSET


class UploadPage(Answer):
    """Part of a list of uploads."""

    items: list[UploadAnswer]
    next_cursor: str | None


class BatchItem(Answer):
    """One answer of several: what the call by itself would have been answered with."""

    status: int
    upload: UploadAnswer | UnsetType = UNSET
    error: Error | UnsetType = UNSET


class BatchAnswer(Answer):
    """Answers in the order of the question."""

    items: list[BatchItem]


def parts(signed: SignedParts) -> dict[int, PartAnswer]:
    """Signed parts by number."""
    expires_at = timestamp(signed.expires_at)
    return {number: PartAnswer("PUT", part.url, part.headers, expires_at) for number, part in signed.parts.items()}


def _challenge(record: Challenge) -> ChallengeAnswer:
    return ChallengeAnswer(record.nonce.hex(), record.ranges, timestamp(record.expires_at))


def upload(view: UploadView) -> UploadAnswer:
    """An upload, as every upload call but /parts answers it."""
    record = view.upload
    count, done = record.part_count, record.state == "done"
    received, missing = ([(1, count)] if count else [], []) if done else ranges.ranges_of_bits(record.received, count)
    received_bytes = sum(_bytes(each, record) for each in received)
    return UploadAnswer(
        id=record.id.hex(),
        state=record.state,
        name=record.name,
        size=record.size,
        digest=None if record.digest is None else record.digest.hex(),
        content_type=record.content_type,
        part_size=record.part_size,
        part_count=count,
        storage=record.storage,
        created_at=timestamp(record.created_at),
        expires_at=timestamp(record.expires_at),
        challenge=None if view.challenge is None else _challenge(view.challenge),
        file=None if view.file is None else FileAnswer.of(view.file),
        received=received,
        missing=missing,
        received_bytes=received_bytes,
        error=record.failure,
        percent=100.0 if done else round(100 * received_bytes / max(record.size, 1), 2),
        parts=UNSET if view.parts is None else parts(view.parts),
    )


def _bytes(parts: tuple[int, int], upload: Upload) -> int:
    first, last = parts
    return min(last * upload.part_size, upload.size) - (first - 1) * upload.part_size
