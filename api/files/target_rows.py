"""Reads the facts that an edge needs to send a file, in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from api.blobs.replica_rows import Replica
from api.db.pool import Statements

_COLUMNS = {
    "file_id": "f.id",
    "owner_id": "f.user_id",
    "name": "f.name",
    "content_type": "f.content_type",
    "is_trashed": "f.trashed_at IS NOT NULL",
    "is_disabled": "u.disabled_at IS NOT NULL",
    "generation": "f.link_generation + u.link_generation",
    "tier": "u.tier",
    "blob_id": "b.id",
    "size": "b.size",
    "digest": "b.digest",
    "state": "b.state",
}
_BY_FILE = (
    f"SELECT {', '.join(_COLUMNS.values())}, r.storage, r.object_key, r.suspect, r.missing_at FROM file f "
    "JOIN user u ON u.id = f.user_id JOIN `blob` b ON b.id = f.blob_id LEFT JOIN replica r ON r.blob_id = b.id "
    "WHERE f.id = %s"
)


@dataclass(frozen=True, slots=True)
class Linked:
    """A file, its owner and its content.

    Attributes:
        is_trashed: it is in the trash.
        is_disabled: its owner is disabled.
        generation: of its links. The file's own and its owner's only ever grow, so their sum is what a link was signed
            with only while neither has.
        state: the blob's.
        replicas: of the blob; None if they have to be read again.
    """

    file_id: bytes
    owner_id: bytes
    name: str
    content_type: str
    is_trashed: bool
    is_disabled: bool
    generation: int
    tier: str
    blob_id: bytes
    size: int
    digest: bytes
    state: str
    replicas: Sequence[Replica] | None


def by_file(db: Statements, file_id: bytes) -> Linked | None:
    """The file, in the trash or not, of any owner."""
    rows = db.all(_BY_FILE, (file_id,))
    if not rows:
        return None
    found = dict(zip(_COLUMNS, rows[0], strict=False))
    for name in ("is_trashed", "is_disabled"):
        found[name] = bool(found[name])
    places = [row[len(_COLUMNS) :] for row in rows]
    replicas = [
        Replica(storage, object_key, suspect, missing_at is not None)
        for storage, object_key, suspect, missing_at in places
        if storage is not None
    ]
    return Linked(**found, replicas=replicas)
