"""Users' files: list, look up, rename, trash, restore, and the links by which they are downloaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from api.accounts.revocations import Revocations
from api.blobs.replicas import Replicas
from api.context import Context
from api.core import errors
from api.core.claims import LinkClaims
from api.core.errors import Problem, StorageUnavailable
from api.core.models import File, Identity
from api.db.pool import Statements
from api.files import rows, target_rows
from api.files.names import check_name, in_path
from api.files.target_rows import Linked

LONGEST_URL: Final = 997
"""Longest link in characters, so that it fits into one line of a mail (RFC 5322 section 2.1.1)."""

_REDIRECT_LIFE: Final = 60
"""Lifetime of the link behind GET /files/{id}/content in seconds: nginx uses it immediately."""

# Types that a browser may show in place; all others are saved. None of these types can run script in a page's origin.
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
    """All that the edge has to know of a file that it sends.

    Attributes:
        file: the file, with its blob and its owner.
        storage: the kind of the storage that holds the bytes: local, s3 or oss; "empty" for content of no bytes.
        name: the storage's.
        uri: a path under the objects' folder for local, otherwise a signed URL.
        cached: whether the edge keeps it on its disk.
        others: whether another storage can be tried if this one fails.
        link_tier: whose limits hold for downloads by link.
    """

    file: Linked
    storage: str
    uri: str
    cached: bool
    name: str
    link_tier: str
    others: bool = False


@dataclass(frozen=True, slots=True)
class Redirect:
    """How nginx sends a file to its owner.

    Attributes:
        uri: an internal one: a link that only nginx ever sees.
        target: the place of the bytes, sent along so that the edge need not ask; None if they are unavailable.
    """

    uri: str
    target: Target | None


class Files:
    """See the module's docstring."""

    def __init__(self, context: Context, revocations: Revocations, replicas: Replicas) -> None:
        self._db = context.db
        self._stores = context.stores
        self._revocations = revocations
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
        """Renames a live file. Raises Problem NAME_INVALID, FILE_NOT_FOUND."""
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
                self._revocations.forget(tx, identity.user_id)

        self._db.transaction(body)

    def end_links(self, identity: Identity, file_id: bytes) -> None:
        """Ends every link of a live file that was made so far. Raises Problem FILE_NOT_FOUND."""

        def body(tx: Statements) -> None:
            file = rows.by_id(tx, file_id, identity.user_id)
            if file is None or file.trashed_at is not None:
                raise Problem(errors.FILE_NOT_FOUND)
            if rows.end_links(tx, file):
                self._revocations.forget(tx, identity.user_id)

        self._db.transaction(body)

    def restore(self, identity: Identity, file_id: bytes) -> File:
        """Restores a file from the trash. Its earlier links stay invalid. Raises Problem FILE_NOT_FOUND."""
        rows.restore(self._db, file_id, identity.user_id, self._clock())
        return self._live(identity, file_id)

    # -- downloads

    def link(self, identity: Identity, file_id: bytes, expires_in: int | None, disposition: str) -> Link:
        """A URL that anyone may download from until it expires or is revoked.

        Raises:
            Problem: FILE_NOT_FOUND, FILE_CORRUPT.
        """
        file = self._own(identity, file_id)
        expiry = int(self._clock().timestamp()) + (expires_in or self._config.link_ttl)
        url = f"{self._config.content_url}/d/{self._sign(file, expiry, disposition)}/"
        return Link(url + in_path(file.name, LONGEST_URL - len(url)), datetime.fromtimestamp(expiry, UTC))

    def redirect(self, identity: Identity, file_id: bytes, disposition: str) -> Redirect:
        """Raises Problem FILE_NOT_FOUND, FILE_CORRUPT."""
        file = self._own(identity, file_id)
        expiry = int(self._clock().timestamp()) + _REDIRECT_LIFE
        uri = f"/_link/{self._sign(file, expiry, disposition)}/content"
        try:
            return Redirect(uri, self._locate(file))
        except (Problem, StorageUnavailable):
            return Redirect(uri, None)  # the edge asks, and says why

    def _own(self, identity: Identity, file_id: bytes) -> Linked:
        file = target_rows.by_file(self._db, file_id)
        if file is None or file.owner_id != identity.user_id or file.is_trashed:
            raise Problem(errors.FILE_NOT_FOUND)
        if file.state in ("corrupt", "deleting"):
            raise Problem(errors.FILE_CORRUPT)
        return file

    def _sign(self, file: Linked, expiry: int, disposition: str) -> str:
        media_type = file.content_type.partition(";")[0].lower()
        shown = "inline" if disposition == "inline" and media_type in _INLINE else "attachment"
        claims = LinkClaims(os.urandom(8), file.file_id, file.generation, shown, expiry)
        return self._tokens.sign_link(claims, now=self._clock().timestamp())

    def target(self, file_id: bytes, failed: Sequence[str] = (), reason: str | None = None) -> Target:
        """Where a file's bytes lie, and what else the edge has to know before it sends them.

        Args:
            failed: storages that the edge tried in vain, the last one last.
            reason: why the last of them failed (`replicas.REASONS`); None if the edge has said so lately.

        Raises:
            Problem: FILE_NOT_FOUND, LINK_REVOKED, FILE_CORRUPT, CONTENT_LOST.
        """
        file = target_rows.by_file(self._db, file_id)
        if file is None or file.state == "deleting":
            raise Problem(errors.FILE_NOT_FOUND)
        if file.is_trashed or file.is_disabled:
            raise Problem(errors.LINK_REVOKED, generation=file.generation)
        if file.state == "corrupt":
            raise Problem(errors.FILE_CORRUPT)
        if failed and reason:
            self._replicas.report(file.blob_id, failed[-1], reason)
            file = replace(file, replicas=None)  # what was read of them is old now
        return self._locate(file, failed)

    def _locate(self, file: Linked, failed: Sequence[str] = ()) -> Target:
        tier = file.tier if self._config.link_tier == "owner" else self._config.link_tier
        if file.size == 0:
            return Target(file, "empty", "", False, "", tier)
        found = self._replicas.choose(file.blob_id, failed, file.replicas)
        name = found.storage
        uri = self._stores.named(name).internal_uri(found.object_key)
        cached = name in self._config.cache_storages and file.size <= self._config.cache_max_file
        return Target(file, self._stores.kind(name), uri, cached, name, tier, found.others)
