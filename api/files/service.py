"""Users' files: list, look up, rename, trash, restore, and the links by which they are downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote

from api.accounts import revocation_rows as revocations
from api.blobs import rows as blobs
from api.blobs.replicas import Replicas
from api.context import Context
from api.core import errors
from api.core.errors import Problem, StorageUnavailable
from api.core.models import File, Identity, new_id
from api.db.pool import Statements
from api.files import rows
from api.files.names import check_name

MAX_LINK_LIFE: Final = 604_800
_REDIRECT_LIFE: Final = 60
"""Seconds that the link behind GET /files/{id}/content is good: nginx uses it at once."""

# What a browser may show in place; everything else is saved. Nothing here can run script in a page's origin.
_INLINE: Final = frozenset(
    [
        "application/pdf",
        "audio/flac",
        "audio/mp4",
        "audio/mpeg",
        "audio/ogg",
        "audio/wav",
        "image/avif",
        "image/bmp",
        "image/gif",
        "image/jpeg",
        "image/png",
        "image/webp",
        "text/plain",
        "video/mp4",
        "video/ogg",
        "video/webm",
    ]
)


@dataclass(frozen=True, slots=True)
class Link:
    """A signed download URL."""

    url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Target:
    """Where the edge finds a blob's bytes.

    Attributes:
        name: the storage's.
        storage: its kind: local, s3 or oss; "empty" for a blob of no bytes.
        uri: a path under the objects' folder for local, otherwise a signed URL.
        cached: whether the edge keeps it on its disk.
        others: whether another storage can be tried if this one fails.
    """

    blob_id: bytes
    size: int
    digest: bytes
    storage: str
    uri: str
    cached: bool = False
    name: str = ""
    others: bool = False


@dataclass(frozen=True, slots=True)
class Redirect:
    """How nginx sends a file to its owner.

    Attributes:
        uri: an internal one: a link that only nginx ever sees.
        target: where the bytes lie, told along so that the edge need not ask; None where they cannot be had.
    """

    uri: str
    target: Target | None


class Files:
    """See the module's docstring."""

    def __init__(self, context: Context, replicas: Replicas) -> None:
        self._db = context.db
        self._stores = context.stores
        self._replicas = replicas
        self._tokens = context.tokens
        self._config = context.config
        self._clock = context.clock

    def page(
        self,
        identity: Identity,
        *,
        order: str,
        limit: int,
        trashed: bool,
        after: rows.Key,
        text: str | None,
        digest: bytes | None,
    ) -> rows.Page:
        """A page of the caller's files; see `api.files.rows.Query`."""
        return rows.page(
            self._db,
            rows.Query(identity.user_id, order, limit, trashed=trashed, after=after, text=text, digest=digest),
        )

    def get(self, identity: Identity, file_id: bytes) -> File:
        """A file of the caller's, in the trash or not. Raises Problem FILE_NOT_FOUND."""
        file = rows.by_id(self._db, file_id, identity.user_id)
        if file is None:
            raise Problem(errors.FILE_NOT_FOUND)
        return file

    def _live(self, identity: Identity, file_id: bytes) -> File:
        file = self.get(identity, file_id)
        if file.trashed_at is not None:
            raise Problem(errors.FILE_NOT_FOUND)
        return file

    def rename(self, identity: Identity, file_id: bytes, name: str) -> File:
        """Gives a live file another name. Raises Problem NAME_INVALID, FILE_NOT_FOUND."""
        check_name(name)
        self._live(identity, file_id)
        rows.rename(self._db, file_id, identity.user_id, name, self._clock())
        return self._live(identity, file_id)

    def trash(self, identity: Identity, file_id: bytes) -> None:
        """Moves a file to the trash and ends its links; one that is there already stays there.

        Raises:
            Problem: FILE_NOT_FOUND.
        """

        def body(tx: Statements) -> None:
            file = rows.by_id(tx, file_id, identity.user_id)
            if file is None:
                raise Problem(errors.FILE_NOT_FOUND)
            if rows.trash(tx, file, self._clock()):
                self._revoke_links(tx, file)

        self._db.transaction(body)

    def end_links(self, identity: Identity, file_id: bytes) -> None:
        """Ends every link of a live file that was made so far. Raises Problem FILE_NOT_FOUND."""

        def body(tx: Statements) -> None:
            file = rows.by_id(tx, file_id, identity.user_id)
            if file is None or file.trashed_at is not None:
                raise Problem(errors.FILE_NOT_FOUND)
            if rows.end_links(tx, file):
                self._revoke_links(tx, file)

        self._db.transaction(body)

    def _revoke_links(self, tx: Statements, file: File) -> None:
        # the time is taken behind the row's lock: the feed repeats what is younger than 10 s, and a wait may be longer
        now = self._clock()
        links_end = now + timedelta(seconds=MAX_LINK_LIFE, minutes=5)
        revocations.insert(tx, "file", [file.id], file.link_generation, now, links_end)

    def restore(self, identity: Identity, file_id: bytes) -> File:
        """Takes a file out of the trash; its earlier links stay dead. Raises Problem FILE_NOT_FOUND."""
        rows.restore(self._db, file_id, identity.user_id, self._clock())
        return self._live(identity, file_id)

    # -- downloads

    def link(self, identity: Identity, file_id: bytes, expires_in: int | None, disposition: str) -> Link:
        """A URL that anybody may download from until it expires or is revoked.

        Raises:
            Problem: FILE_NOT_FOUND, FILE_CORRUPT.
        """
        file = self._live(identity, file_id)
        expiry = int(self._clock().timestamp()) + (expires_in or self._config.link_ttl)
        tier = identity.tier if self._config.link_tier == "owner" else self._config.link_tier
        token = self._sign(identity, file, expiry, disposition, tier)
        url = f"{self._config.content_url}/d/{token}/{quote(file.name, safe='')}"
        return Link(url, datetime.fromtimestamp(expiry, UTC))

    def redirect(self, identity: Identity, file_id: bytes, disposition: str) -> Redirect:
        """Raises Problem FILE_NOT_FOUND, FILE_CORRUPT."""
        file = self._live(identity, file_id)
        expiry = int(self._clock().timestamp()) + _REDIRECT_LIFE
        uri = f"/_link/{self._sign(identity, file, expiry, disposition, identity.tier)}/content"
        try:
            return Redirect(uri, self._locate(file.blob_id, file.size, file.digest))
        except (Problem, StorageUnavailable):
            return Redirect(uri, None)  # the edge asks, and says why

    def _sign(self, identity: Identity, file: File, expiry: int, disposition: str, tier: str) -> str:
        if file.blob_state in ("corrupt", "deleting"):
            raise Problem(errors.FILE_CORRUPT)
        media_type = file.content_type.partition(";")[0].lower()
        claims = {
            "jti": new_id().hex(),
            "file": file.id.hex(),
            "fgen": file.link_generation,
            "blob": file.blob_id.hex(),
            "size": file.size,
            "sub": identity.user_id.hex(),
            "gen": identity.generation,
            "tier": tier,
            "disp": "inline" if disposition == "inline" and media_type in _INLINE else "attachment",
            "name": file.name,
            "type": file.content_type,
            "exp": expiry,
        }
        return self._tokens.sign("link", claims, now=self._clock().timestamp())

    def target(self, blob_id: bytes, failed: Sequence[str] = (), reason: str | None = None) -> Target:
        """Where a blob lies, for the edge.

        Args:
            failed: storages that the edge tried in vain, the last one last.
            reason: why the last of them failed (`replicas.REASONS`); None if the edge has said so lately.

        Raises:
            Problem: FILE_NOT_FOUND, FILE_CORRUPT, CONTENT_LOST.
        """
        blob = blobs.by_id(self._db, blob_id)
        if blob is None or blob.state == "deleting":
            raise Problem(errors.FILE_NOT_FOUND)
        if blob.state == "corrupt":
            raise Problem(errors.FILE_CORRUPT)
        if failed and reason:
            self._replicas.report(blob.id, failed[-1], reason)
        return self._locate(blob.id, blob.size, blob.digest, failed)

    def _locate(self, blob_id: bytes, size: int, digest: bytes, failed: Sequence[str] = ()) -> Target:
        if size == 0:
            return Target(blob_id, 0, digest, "empty", "")
        found = self._replicas.choose(blob_id, failed)
        name = found.storage
        uri = self._stores.named(name).internal_uri(found.object_key)
        cached = name in self._config.cache_storages and size <= self._config.cache_max_file
        return Target(blob_id, size, digest, self._stores.kind(name), uri, cached, name, found.others)
