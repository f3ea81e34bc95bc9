"""The same content twice becomes one blob: the first keeps its name and files, whichever object is good.

The second object's bytes were verified before anybody comes here. The first copy is looked at, outside of any lock:
where it is lost, or its blob is known to be corrupt, the new object takes its place, never the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from api.db import blobs
from api.db.pool import Database, Statements
from api.errors import ObjectNotFound
from api.models import Blob
from api.services.stores import Stores


@dataclass(frozen=True, slots=True)
class First:
    """The blob that stands for a digest.

    Attributes:
        whole: its own object can be kept.
    """

    blob: Blob
    whole: bool


def find(db: Database, stores: Stores, digest: bytes, size: int, scope: bytes) -> First | None:
    """The blob to merge with; None where nobody claims the digest any more.

    Raises:
        StorageError: the first copy's storage does not answer, which decides nothing.
    """
    blob = blobs.standing(db, digest, size, scope)
    if blob is None:
        return None
    return First(blob, blob.state == "verified" and _is_whole(stores, blob))


def hold(tx: Statements, first: First, storage: str, object_key: str, now: datetime) -> Blob | None:
    """The first blob as the caller links to it: a corrupt one is verified again, on the new object.

    Returns:
        None where it is corrupt no more, or gone.
    """
    blob = first.blob
    if blob.state != "corrupt":
        return blob
    if not blobs.revive(tx, blob, storage, object_key, now):
        return None
    return replace(blob, state="verified", storage=storage, object_key=object_key)


def settle(tx: Statements, first: First, storage: str, object_key: str, now: datetime) -> None:
    """Keeps one of the two objects and dooms the other, once the first blob is locked and linked to."""
    if first.blob.state == "corrupt":
        return  # `hold` did
    if first.whole or not blobs.heal(tx, first.blob, storage, object_key, now):
        blobs.doom(tx, storage, object_key, now)


def _is_whole(stores: Stores, blob: Blob) -> bool:
    """Whether a blob's object is there with its size. A storage that does not answer decides nothing: it raises."""
    if blob.storage is None or blob.object_key is None:
        return False
    try:
        return stores.named(blob.storage).stat(blob.object_key) == blob.size
    except ObjectNotFound:
        return False
