"""The configured storages by name, and the choice among them for writing and reading."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

from api.core.errors import StorageError, StorageUnavailable
from api.core.models import Identity, Upload
from api.storage.base import MultipartRef, MultipartStorage

LATE_COMPLETE: Final = timedelta(days=1)
"""A complete without a response may still take effect for this time: a storage's daemon may be paused meanwhile."""

HEALTH_CACHE_SECONDS: Final = 5.0
"""Seconds for which the result of a storage's check is reused."""

_log = logging.getLogger(__name__)


class Stores:
    """See the module's docstring.

    Args:
        storages: by name; the first takes new uploads and is preferred for reading.
        kinds: local, s3 or oss, by name.
        tiers: by tier, the name of the storage that takes its users' new uploads instead.
    """

    def __init__(
        self,
        storages: Mapping[str, MultipartStorage],
        kinds: Mapping[str, str] | None = None,
        tiers: Mapping[str, str] | None = None,
    ) -> None:
        self._storages = dict(storages)
        self._kinds = kinds or {}
        self._tiers = tiers or {}
        self._order = {name: place for place, name in enumerate(self._storages)}
        self._asked: dict[str, tuple[float, bool]] = {}

    def __iter__(self) -> Iterator[tuple[str, MultipartStorage]]:
        return iter(self._storages.items())

    def for_new_upload(self, tier: str) -> tuple[str, MultipartStorage]:
        """The storage for a new upload of a user with this tier, as (name, storage)."""
        name = self._tiers.get(tier) or next(iter(self._storages))
        return name, self._storages[name]

    @property
    def for_new_uploads(self) -> frozenset[str]:
        """Names of the storages that take new uploads."""
        return frozenset([next(iter(self._storages)), *self._tiers.values()])

    def room(self) -> int | None:
        """The smallest free space of the storages that know it, in bytes. Raises StorageUnavailable."""
        known = [room for storage in self._storages.values() if (room := storage.room()) is not None]
        return min(known, default=None)

    def kind(self, name: str) -> str:
        """local, s3 or oss."""
        return self._kinds.get(name, name)

    def named(self, name: str) -> MultipartStorage:
        """A storage by name. Raises StorageUnavailable if it is not configured (any more)."""
        try:
            return self._storages[name]
        except KeyError as ex:
            raise StorageUnavailable(f"storage {name} is not configured") from ex

    def in_order(self, replicas: Sequence[tuple[str, str]], suspects: Collection[str] = ()) -> list[tuple[str, str]]:
        """Sorts replicas by preference: reachable storages first, and these in the configured order.

        Args:
            suspects: names of storages with a suspect replica; they come after the other reachable ones.
        """
        ordered = sorted(
            (replica for replica in replicas if replica[0] in self._order), key=lambda replica: self._order[replica[0]]
        )
        if len(ordered) > 1:
            ordered.sort(key=lambda replica: (not self.answers(replica[0]), replica[0] in suspects))
        return ordered

    def answers(self, name: str) -> bool:
        """Whether a storage is configured and usable. Checked every few seconds at most."""
        if name not in self._storages:
            return False
        asked, answer = self._asked.get(name, (float("-inf"), False))
        if time.monotonic() - asked > HEALTH_CACHE_SECONDS:
            try:
                self._storages[name].check()
                answer = True
            except StorageError as ex:
                _log.warning("a storage is unavailable", extra={"storage": name, "error": str(ex)})
                answer = False
            self._asked[name] = (time.monotonic(), answer)
        return answer

    def free_parts(self, upload: Upload) -> bool:
        """Frees the parts of an ended upload. Returns False if the storage failed; the sweep then frees them."""
        try:
            self.named(upload.storage).abort(multipart_ref(upload))
        except StorageError as ex:
            _log.warning("parts are left to the sweep", extra={"upload": upload.id.hex(), "error": str(ex)})
            return False
        return True


def multipart_ref(upload: Upload, identity: Identity | None = None) -> MultipartRef:
    """A storage's reference to an upload, and the identity for which its part URLs are signed, if they are."""
    return MultipartRef(
        upload_id=upload.id.hex(),
        object_key=upload.object_key,
        multipart_id=upload.multipart_id,
        size=upload.size,
        part_size=upload.part_size,
        part_count=upload.part_count,
        user_id=upload.user_id.hex(),
        generation=identity.generation if identity else 0,
        binds_hash=upload.binds_hash,
        tier=identity.tier if identity else "default",
        session_id=identity.session_id.hex() if identity else "0" * 32,
    )
