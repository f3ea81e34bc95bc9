"""The JSON of files and links, and of where a blob lies."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from api.core.models import File
from api.files.service import Link, Target
from api.http.schemas import Body, timestamp


class CreateLink(Body):
    """POST /files/{id}/links."""

    expires_in: Annotated[int, Meta(ge=1, le=604_800)] | None = None
    disposition: str = "attachment"


class ChangeFile(Body):
    """PATCH /files/{id}."""

    name: str


def file(record: File) -> dict[str, Any]:
    """A file."""
    states = {"verified": "ready", "unverified": "verifying"}
    return {
        "id": record.id.hex(),
        "name": record.name,
        "size": record.size,
        "digest": record.digest.hex(),
        "content_type": record.content_type,
        "folder_id": None if not any(record.folder_id) else record.folder_id.hex(),
        "state": states.get(record.blob_state, "corrupt"),
        "created_at": timestamp(record.created_at),
        "updated_at": timestamp(record.updated_at),
        "trashed_at": None if record.trashed_at is None else timestamp(record.trashed_at),
        "sha256": None if record.sha256 is None else record.sha256.hex(),
    }


def target(record: Target) -> dict[str, Any]:
    """Where a blob lies, for the edge."""
    return {
        "blob": record.blob_id.hex(),
        "size": record.size,
        "digest": record.digest.hex(),
        "storage": record.storage,
        "name": record.name,
        "uri": record.uri,
        "cached": record.cached,
        "others": record.others,
    }


def link(record: Link) -> dict[str, Any]:
    """A link."""
    return {"url": record.url, "expires_at": timestamp(record.expires_at)}
