"""Merges a second object with the same content into the blob that was stored first.

The first blob keeps its id and its files; the new object was verified before. The first blob's object is checked
outside of any lock. If it is missing, or the blob is known to be corrupt, the new object replaces it. A good first
object is never replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from api.blobs import rows as blobs
from api.blobs.replicas import MEND
from api.core.errors import StorageError
from api.core.models import Blob
from api.db.pool import Database, Statements
from api.jobs import rows as jobs
from api.storage.stores import Stores
from api.storage.wholeness import is_whole


@dataclass(frozen=True, slots=True)
class First:
    """The blob that holds the claim on a digest.

    Attributes:
        whole: True if its stored object can be kept.
    """

    blob: Blob
    whole: bool


def find(db: Database, stores: Stores, digest: bytes, size: int, scope: bytes, storage: str) -> First | None:
    """The blob to merge with; None if no blob claims the digest any more.

    If the blob has a replica on the new object's storage, that replica is checked: if it is missing, the new object
    replaces it. Otherwise any whole replica is enough.

    Args:
        storage: name of the new object's storage.

    Raises:
        StorageError: the replica's storage is unreachable, so its state is unknown.
    """
    found = blobs.standing(db, digest, size, scope)
    if not found:
        return None
    found = [blob for blob in found if blob.storage == storage] or found
    return First(found[0], found[0].state == "verified" and _is_whole(stores, found))


def hold(tx: Statements, first: First, storage: str, object_key: str, now: datetime) -> Blob | None:
    """The first blob, ready to be linked to. A corrupt one becomes verified with the new object.

    Returns:
        None if the blob was corrupt and is not any more, or is gone.
    """
    blob = first.blob
    if blob.state != "corrupt":
        return blob
    if not blobs.revive(tx, blob, storage, object_key, now):
        return None
    return replace(blob, state="verified", storage=storage, object_key=object_key)


def settle(
    tx: Statements, first: First, storage: str, object_key: str, now: datetime, keep_until: datetime | None = None
) -> None:
    """Keeps one of the two objects and marks the other for deletion.

    The caller has locked the first blob and linked to it.

    Args:
        keep_until: earliest deletion of the new object; a late request could store it again until then.
    """
    if first.blob.state == "corrupt":
        return  # `hold` has replaced its object
    if first.whole:
        blobs.doom(tx, storage, object_key, now, keep_until)
        return
    if not blobs.heal(tx, first.blob, storage, object_key, now):
        blobs.doom(tx, storage, object_key, now, keep_until)
    jobs.insert(tx, MEND, first.blob.id, now)  # broken replicas on other storages can be copied from this object


def _is_whole(stores: Stores, replicas: Sequence[Blob]) -> bool:
    """Whether one of these objects is whole.

    Raises:
        StorageError: a storage is unreachable, and no other one has a whole object.
    """
    failure: StorageError | None = None
    for blob in replicas:
        if blob.storage is None or blob.object_key is None:
            continue
        try:
            if is_whole(stores.named(blob.storage), blob.object_key, blob.size):
                return True
        except StorageError as ex:
            failure = ex
    if failure is not None:
        raise failure
    return False
