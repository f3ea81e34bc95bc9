"""Completes of storage s3, and the recovery from those whose outcome is unknown.

What RGW 16.2.15 and 18.2.7 write in a complete, one RADOS operation each: a lock on the upload, the index's "prepare",
**the object's head**, the index's "complete", "prepare" of the upload's removal, **the upload's removal**, the index
again. A radosgw that is killed, stopped or fails in between leaves an object that can be read and an upload that is
open, of which both refer to the same stored bytes. The next abort, lifecycle rule, repeated complete or delete frees
those bytes, and they go when garbage collection comes, two hours later by default. Then HEAD still says 200.

CopyObject within one storage adds a new reference to every stored piece, atomically, and copies no byte. None of
the calls above removes that reference. Counted by whole GETs after abort, delete and an empty collection queue: 234
copies on Ceph 16 and 84 on 18, none lost.

Only this file sends a complete, and no layer below repeats one: `KeptConnections` sends it once, boto3 sends none. A
proxy between the API and the storage must not repeat POST requests either (nginx does not by default).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final

from api.core import digests
from api.core.errors import CompleteDoubtful, ObjectNotFound, PartMismatch, StorageError, StorageUnavailable, UploadGone
from api.storage.base import Completed, MultipartRef
from api.storage.s3.calls import Calls, Part, TooLarge

_KEEP_EVERY: Final = 1.0
"""Seconds between two signs of life of a copy, which takes 0.6 s for 1 GiB on Ceph."""

_COPY_PART: Final = 1024**3
_MOST_PARTS: Final = 10_000


class Completes:
    """See the module's docstring."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self.copy_part = _COPY_PART

    def once(self, ref: MultipartRef, parts: Mapping[int, Part]) -> Completed:
        """The only complete of an upload, judged by whether the upload is gone after it.

        The object needs no HEAD: our create call fixed its metadata, and these parts its length.
        """
        self._send(ref.object_key, ref.multipart_id, parts)
        return Completed(verified=ref.binds_hash, sha256=None)

    def _send(self, object_key: str, upload_id: str, parts: Mapping[int, Part]) -> None:
        self._calls.complete(object_key, upload_id, parts)
        try:
            self._calls.list_parts(object_key, upload_id)
        except UploadGone:
            return
        except StorageError as ex:
            raise CompleteDoubtful(f"whether the upload is closed is not known: {ex}") from ex
        raise CompleteDoubtful("complete answered 200 and left the upload open")

    def bring(self, ref: MultipartRef, object_key: str, keep_alive: Callable[[], None]) -> None:
        """Copies the object to a new key; has it made first, if only its parts are there.

        Raises:
            UploadGone, PartMismatch, CompleteDoubtful, StorageError: see `MultipartStorage.copy_completed`.
        """
        try:
            self.copy(ref.object_key, object_key, ref.size, keep_alive)
        except ObjectNotFound:
            self._again(ref)
            keep_alive()
            try:
                # immediately: the answer to a repeated complete proves nothing
                self.copy(ref.object_key, object_key, ref.size, keep_alive)
            except ObjectNotFound as ex:
                raise StorageUnavailable("a complete made no object that can be copied") from ex

    def _again(self, ref: MultipartRef) -> None:
        """Completes the upload again if the object does not exist although the upload does.

        Raises:
            UploadGone: neither is there.
            StorageError: not now; the lock of a radosgw that died makes RGW refuse completes for a while.
        """
        try:
            listed = self._calls.list_parts(ref.object_key, ref.multipart_id)
        except UploadGone:
            # an earlier complete may have come to its end between the two looks
            with contextlib.suppress(ObjectNotFound):
                self._calls.head(ref.object_key)
                return
            raise
        if wrong := wrong_parts(ref, listed):
            raise PartMismatch(wrong)
        try:
            self._calls.complete(ref.object_key, ref.multipart_id, listed)
        except CompleteDoubtful as ex:
            raise StorageUnavailable(str(ex)) from ex

    def copy(self, source_key: str, object_key: str, size: int, keep_alive: Callable[[], None]) -> None:
        """See `api.storage.base.Copies`."""
        with ThreadPoolExecutor(1, thread_name_prefix="copy") as pool:
            copy = pool.submit(self._copy, source_key, object_key, size)
            while not copy.done():
                wait([copy], _KEEP_EVERY)
                keep_alive()
            copy.result()

    def _copy(self, source_key: str, object_key: str, size: int) -> None:
        try:
            self._calls.copy(source_key, object_key)
        except TooLarge:
            self._copy_in_parts(source_key, object_key, size)

    def _copy_in_parts(self, source_key: str, object_key: str, size: int) -> None:
        """For AWS, which copies more than 5 GB only in parts. Aborts uploads that an earlier try left open first."""
        self._calls.abort_all(object_key)
        upload_id = self._calls.create(object_key)
        length = max(self.copy_part, -(-size // _MOST_PARTS))
        parts: dict[int, Part] = {}
        for number, first in enumerate(range(0, size, length), 1):
            last = min(first + length, size) - 1
            etag = self._calls.copy_part(source_key, object_key, upload_id, number, first, last)
            parts[number] = last - first + 1, etag
        self._send(object_key, upload_id, parts)


def wrong_parts(ref: MultipartRef, listed: Mapping[int, Part]) -> list[int]:
    """The parts that are missing or have the wrong length."""
    return [
        number
        for number in range(1, ref.part_count + 1)
        if listed.get(number, (-1, ""))[0] != digests.part_length(number, ref.size, ref.part_size)
    ]
