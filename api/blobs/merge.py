"""The same content twice becomes one blob: the first keeps its name and files, whichever object is good.

The second object's bytes were verified before anybody comes here. The first copy is looked at, outside of any lock:
where it is lost, or its blob is known to be corrupt, the new object takes its place, never the other way round.
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
    """The blob that stands for a digest.

    Attributes:
        whole: its own object can be kept.
    """

    blob: Blob
    whole: bool


def find(db: Database, stores: Stores, digest: bytes, size: int, scope: bytes, storage: str) -> First | None:
    """The blob to merge with; None where nobody claims the digest any more.

    Of several replicas the one on the new object's storage counts: where that one is lost the new object replaces it.
    Where there is none on it, a whole one anywhere will do.

    Args:
        storage: where the second object lies.

    Raises:
        StorageError: the first copy's storage does not answer, which decides nothing.
    """
    found = blobs.standing(db, digest, size, scope)
    if not found:
        return None
    found = [blob for blob in found if blob.storage == storage] or found
    return First(found[0], found[0].state == "verified" and _is_whole(stores, found))


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


def settle(
    tx: Statements, first: First, storage: str, object_key: str, now: datetime, keep_until: datetime | None = None
) -> None:
    """Keeps one of the two objects and dooms the other, once the first blob is locked and linked to.

    Args:
        keep_until: the new object is not deleted before, for it could be stored again until then.
    """
    if first.blob.state == "corrupt":
        return  # `hold` did
    if first.whole:
        blobs.doom(tx, storage, object_key, now, keep_until)
        return
    if not blobs.heal(tx, first.blob, storage, object_key, now):
        blobs.doom(tx, storage, object_key, now, keep_until)
    jobs.insert(tx, MEND, first.blob.id, now)  # what is broken elsewhere can be written anew from here


def _is_whole(stores: Stores, replicas: Sequence[Blob]) -> bool:
    """Whether one of these objects is whole.

    A storage that does not answer decides nothing: where none of the others has it, that is raised.
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
