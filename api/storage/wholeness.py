"""Whether a stored object can be what its row says, found out by a few cheap calls.

HEAD alone proves nothing: a Ceph whose complete was cut off answers HEAD for an object whose bytes are gone. So the
first and the last byte are read as well. Only reading all of it, as the scrub does, compares every byte.
"""

from __future__ import annotations

from contextlib import closing

from api.core.errors import ObjectNotFound
from api.storage.base import Storage


def is_whole(storage: Storage, object_key: str, size: int) -> bool:
    """Whether the object is there, has its size in bytes, and gives its first and last byte.

    Raises:
        StorageError: that cannot be told now. A disk that is not mounted, and a bucket that is away, have lost nothing.
    """
    try:
        if storage.stat(object_key) != size:
            return False
        return all(_has_byte(storage, object_key, offset) for offset in {0, max(size - 1, 0)})
    except ObjectNotFound:
        storage.check()
        return False


def _has_byte(storage: Storage, object_key: str, offset: int) -> bool:
    with closing(storage.open(object_key, offset, 1)) as reader:
        return len(reader.read(1)) == 1
