"""The JSON of uploads."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta

from api.core.models import Upload
from api.files import schema as files
from api.http.schemas import Body, Sha256, timestamp
from api.uploads import ranges
from api.uploads.proof import Challenge
from api.uploads.status import SignedParts, UploadView

MOST_AT_ONCE: Final = 50
"""Uploads of one call."""
PartHashes = Annotated[dict[str, Sha256], Meta(min_length=1, max_length=1000)]
ETags = Annotated[
    dict[str, Annotated[str, Meta(pattern=r"^[ -~]+\Z", max_length=128)]], Meta(min_length=1, max_length=10_000)
]
"""What a storage answered each part with, in its own words."""


class CreateUpload(Body):
    """POST /uploads."""

    name: str
    size: int
    digest: str | None = None
    resume_key: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    folder_id: str | None = None
    content_type: str | None = None
    parts: PartHashes | None = None


class ResizeUpload(Body):
    """PATCH /uploads/{id}."""

    size: int


class CreateUploads(Body):
    """POST /uploads/batch."""

    uploads: Annotated[list[CreateUpload], Meta(min_length=1, max_length=MOST_AT_ONCE)]


class CompleteUploads(Body):
    """POST /uploads/batch/complete."""

    ids: Annotated[list[str], Meta(min_length=1, max_length=MOST_AT_ONCE)]


class SignPartsBody(Body):
    """POST /uploads/{id}/parts."""

    parts: PartHashes


class CompleteUpload(Body):
    """POST /uploads/{id}/complete."""

    etags: ETags | None = None


class Proof(Body):
    """POST /uploads/{id}/proof."""

    proof: Sha256
    parts: Annotated[list[Sha256], Meta(min_length=1, max_length=10_000)]


def parts(signed: SignedParts) -> dict[str, Any]:
    """Signed parts by number."""
    expires_at = timestamp(signed.expires_at)
    return {
        str(number): {"method": "PUT", "url": part.url, "headers": part.headers, "expires_at": expires_at}
        for number, part in signed.parts.items()
    }


def _challenge(record: Challenge | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {
        "nonce": record.nonce.hex(),
        "ranges": record.ranges,
        "expires_at": timestamp(record.expires_at),
    }


def upload(view: UploadView) -> dict[str, Any]:
    """An upload, as every upload call but /parts answers it."""
    record = view.upload
    count, done = record.part_count, record.state == "done"
    received, missing = ([(1, count)] if count else [], []) if done else ranges.ranges_of_bits(record.received, count)
    answer: dict[str, Any] = {
        "id": record.id.hex(),
        "state": record.state,
        "name": record.name,
        "size": record.size,
        "digest": None if record.digest is None else record.digest.hex(),
        "content_type": record.content_type,
        "part_size": record.part_size,
        "part_count": count,
        "storage": record.storage,
        "created_at": timestamp(record.created_at),
        "expires_at": timestamp(record.expires_at),
        "challenge": _challenge(view.challenge),
        "file": None if view.file is None else files.file(view.file),
        "received": received,
        "missing": missing,
        "received_bytes": sum(_bytes(each, record) for each in received),
        "error": record.failure,
    }
    answer["percent"] = 100.0 if done else round(100 * answer["received_bytes"] / max(record.size, 1), 2)
    if view.parts is not None:
        answer["parts"] = parts(view.parts)
    return answer


def _bytes(parts: tuple[int, int], upload: Upload) -> int:
    first, last = parts
    return min(last * upload.part_size, upload.size) - (first - 1) * upload.part_size
