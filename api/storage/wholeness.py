"""Checks with a few cheap calls whether a stored object is whole.

HEAD alone is no proof: after an interrupted complete, Ceph returns 200 to HEAD although the object's bytes are gone. So
the first and the last byte are read, too. Only the scrub compares every byte.
"""

from __future__ import annotations

from contextlib import closing

from api.core.errors import ObjectNotFound
from api.storage.base import Storage


def is_whole(storage: Storage, object_key: str, size: int) -> bool:
    """Whether the object exists, has this size in bytes, and its first and last byte can be read.

    Raises:
        StorageError: unknown now. An unmounted disk or an unreachable bucket has not lost the object.
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
