"""The configured storages by name, and the one that new uploads go to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from api.errors import StorageUnavailable
from api.models import Upload
from api.storage.base import MultipartRef, MultipartStorage


class Stores:
    """See the module's docstring."""

    def __init__(self, storages: Mapping[str, MultipartStorage], default: str) -> None:
        self._storages = dict(storages)
        self._default = default

    def __iter__(self) -> Iterator[tuple[str, MultipartStorage]]:
        return iter(self._storages.items())

    def for_new_upload(self) -> tuple[str, MultipartStorage]:
        """Where a new upload goes."""
        return self._default, self._storages[self._default]

    def named(self, name: str) -> MultipartStorage:
        """Raises StorageUnavailable where a row names a storage that is not configured (any more)."""
        try:
            return self._storages[name]
        except KeyError as ex:
            raise StorageUnavailable(f"storage {name} is not configured") from ex


def multipart_ref(upload: Upload, generation: int = 0) -> MultipartRef:
    """How a storage knows an upload."""
    return MultipartRef(
        upload_id=upload.id.hex(),
        object_key=upload.object_key,
        multipart_id=upload.multipart_id,
        size=upload.size,
        part_size=upload.part_size,
        part_count=upload.part_count,
        user_id=upload.user_id.hex(),
        generation=generation,
        binds_hash=upload.binds_hash,
    )
