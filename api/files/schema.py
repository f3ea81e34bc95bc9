"""The JSON of files and links, and of what an edge has to know of a file."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from api.core import lifetimes
from api.core.models import File
from api.files.service import Link, Target
from api.http.schemas import (
    Answer,
    Body,
    Cursor,
    Digest,
    Id,
    Limit,
    Moment,
    Name,
    Query,
    Sha256,
    Size,
    one_of,
    timestamp,
)

Disposition = Literal["attachment", "inline"]
_STATES = {"verified": "ready", "unverified": "verifying"}


class FileQuery(Query):
    """Which files a list shows, and in which order.

    Attributes:
        q: a part of the name.
        digest: of the content.
        folder_id: no folder can be named yet.
    """

    order: Literal["newest", "name"] = "newest"
    trashed: Literal["true", "false"] = "false"
    q: str | None = None
    digest: Digest | None = None
    folder_id: str | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class ContentQuery(Query):
    """How a browser should treat the content."""

    disposition: Disposition = "attachment"


class CreateLink(Body):
    """How long a link lives, in seconds, and how a browser treats what it leads to."""

    expires_in: Annotated[int, Meta(ge=1, le=lifetimes.LINK_MOST)] | None = None
    disposition: Disposition = "attachment"


class ChangeFile(Body):
    """A file's new name."""

    name: Name


class FileAnswer(Answer):
    """A file.

    Attributes:
        digest: SHA-256 of the parts' SHA-256s.
        sha256: of the whole content, once it was read as a whole.
    """

    id: Id
    name: str
    size: Size
    digest: Sha256
    content_type: str
    folder_id: Id | None
    state: Annotated[str, one_of("ready", "verifying", "corrupt")]
    created_at: Moment
    updated_at: Moment
    trashed_at: Moment | None
    sha256: Sha256 | None

    @classmethod
    def of(cls, record: File) -> FileAnswer:
        return cls(
            id=record.id.hex(),
            name=record.name,
            size=record.size,
            digest=record.digest.hex(),
            content_type=record.content_type,
            folder_id=record.folder_id.hex() if any(record.folder_id) else None,
            state=_STATES.get(record.blob_state, "corrupt"),
            created_at=timestamp(record.created_at),
            updated_at=timestamp(record.updated_at),
            trashed_at=None if record.trashed_at is None else timestamp(record.trashed_at),
            sha256=None if record.sha256 is None else record.sha256.hex(),
        )


class FilePage(Answer):
    """Part of a list of files."""

    items: list[FileAnswer]
    next_cursor: str | None


class LinkAnswer(Answer):
    """A link. Anyone who has it may download from it until it expires or is revoked."""

    url: str
    expires_at: Moment

    @classmethod
    def of(cls, record: Link) -> LinkAnswer:
        return cls(record.url, timestamp(record.expires_at))


class TargetAnswer(Answer):
    """The facts that the edge needs to send a file; see `api.files.service.Target`."""

    file: Id
    owner: Id
    tier: str
    link_tier: str
    generation: int
    filename: str
    type: str
    size: Size
    digest: Sha256
    storage: str
    name: str
    uri: str
    cached: bool
    others: bool

    @classmethod
    def of(cls, record: Target) -> TargetAnswer:
        file = record.file
        return cls(
            file=file.file_id.hex(),
            owner=file.owner_id.hex(),
            tier=file.tier,
            link_tier=record.link_tier,
            generation=file.generation,
            filename=file.name,
            type=file.content_type,
            size=file.size,
            digest=file.digest.hex(),
            storage=record.storage,
            name=record.name,
            uri=record.uri,
            cached=record.cached,
            others=record.others,
        )
