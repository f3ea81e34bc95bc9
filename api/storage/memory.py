"""Storage ``memory``, for tests. Its objects are lost when the process ends.

By default it behaves like ``local``: part URLs become invalid when complete or abort begins, and complete compares
every part. Or it behaves like ``s3`` and ``oss``, whose complete compares nothing. With ``doubtful`` it loses bytes
like Ceph RGW: a complete can be interrupted, and aborting an upload that was left open deletes its object's bytes.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

from api.core import digests
from api.core.errors import CompleteDoubtful, ObjectNotFound, PartMismatch, StorageUnavailable, UploadGone
from api.storage.base import Completed, Copies, MultipartRef, MultipartStorage, Reader, SignedPart


class MemoryStorage(MultipartStorage, Copies):
    """See the module's docstring.

    Attributes:
        cut: where completes are interrupted: "unmade" before the object exists, "open" before the upload is closed,
            "closed" before the response; empty means not at all.
        lost: keys of objects whose bytes are gone although `stat` succeeds.
        completes: the upload's id of every complete that was started.
    """

    reads_to_complete = True

    def __init__(
        self,
        *,
        enforces_sha256: bool = False,
        compares: bool = True,
        leaks_resent_parts: bool = False,
        single_put_max: int = 0,
        doubtful: bool = False,
        prefix: Callable[[], str] = lambda: "",
    ) -> None:
        self._prefix = prefix
        self.leaks_resent_parts = leaks_resent_parts
        self.largest_single = single_put_max
        self._enforces = enforces_sha256
        self._compares = compares
        self._lock = threading.Lock()
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.doubtful = doubtful
        self.cut = ""
        self.lost: set[str] = set()
        self.completes: list[str] = []
        self._made_by: dict[str, str] = {}

    def put_part(self, ref: MultipartRef, number: int, data: bytes) -> None:
        """Acts like a PUT to a part's URL."""
        with self._lock:
            if ref.upload_id not in self.uploads:
                raise UploadGone(ref.upload_id)
            self.uploads[ref.upload_id][number] = data

    @property
    def single_put_max(self) -> int:
        return self.largest_single

    def put_object(self, ref: MultipartRef, data: bytes) -> None:
        """Acts like the PUT of a single-PUT upload."""
        self.objects.setdefault(ref.object_key, data)

    def check(self) -> None:
        """Always usable."""

    def stat(self, object_key: str) -> int:
        return len(self._object(object_key))

    def _object(self, object_key: str) -> bytes:
        try:
            return self.objects[object_key]
        except KeyError as ex:
            raise ObjectNotFound(object_key) from ex

    def open(self, object_key: str, offset: int = 0, length: int | None = None) -> Reader:
        data = self._object(object_key)
        if object_key in self.lost:
            raise ObjectNotFound(object_key)
        return io.BytesIO(data[offset:] if length is None else data[offset : offset + length])

    def delete(self, object_key: str) -> None:
        self.objects.pop(object_key, None)

    def internal_uri(self, object_key: str) -> str:
        return f"/{object_key}"

    def list_objects(self, after: str = "") -> Iterator[str]:
        below = f"{prefix}/" if (prefix := self._prefix()) else ""
        with self._lock:
            return iter(sorted(key for key in self.objects if key > after and key.startswith(below)))

    @property
    def enforces_sha256(self) -> bool:
        return self._enforces

    def create(self, ref: MultipartRef) -> str:
        with self._lock:
            self.uploads.setdefault(ref.upload_id, {})
        return "memory"

    def presign_part(self, ref: MultipartRef, number: int, sha256: str, expires_at: int) -> SignedPart:
        return SignedPart(f"memory:///{ref.upload_id}/{number}?exp={expires_at}", {})

    def write_part(self, ref: MultipartRef, number: int, body: Iterable[bytes], sha256: str) -> None:
        data = b"".join(body)
        if len(data) != digests.part_length(number, ref.size, ref.part_size):
            raise StorageUnavailable("the body does not have the announced length")
        if ref.binds_hash and hashlib.sha256(data).hexdigest() != sha256:
            raise StorageUnavailable("the body's SHA-256 is not the signed one")
        self.put_part(ref, number, data)

    def list_parts(self, ref: MultipartRef) -> dict[int, int]:
        if ref.is_single:
            return {1: len(self.objects[ref.object_key])} if ref.object_key in self.objects else {}
        with self._lock:
            if ref.upload_id not in self.uploads:
                raise UploadGone(ref.upload_id)
            return {number: len(data) for number, data in self.uploads[ref.upload_id].items()}

    def believe(self, ref: MultipartRef, etags: Mapping[int, str]) -> bool:
        return ref.binds_hash

    def complete(self, ref: MultipartRef, hashes: bytes, keep_alive: Callable[[], None]) -> Completed:
        keep_alive()
        with self._lock:
            if self.doubtful and ref.completes_sent and not ref.is_single:
                raise CompleteDoubtful("a complete was sent before")
            if ref.object_key in self.objects:
                return self._completed(ref, self.objects[ref.object_key])
            if ref.is_single:
                raise PartMismatch([1])
            if ref.upload_id not in self.uploads:
                raise UploadGone(ref.upload_id)
            parts = self.uploads[ref.upload_id]
            wrong = [
                number
                for number, expected in enumerate(digests.split(hashes), 1)
                if number not in parts or (self._compares and hashlib.sha256(parts[number]).digest() != expected)
            ]
            for number in wrong:
                parts.pop(number, None)
            if wrong:
                raise PartMismatch(wrong)
            data = b"".join(parts[number] for number in range(1, ref.part_count + 1))
            self.completes.append(ref.upload_id)
            if self.cut != "unmade":
                self.objects[ref.object_key] = data
                self._made_by[ref.upload_id] = ref.object_key
            if self.cut not in ("unmade", "open"):
                del self.uploads[ref.upload_id]
            if self.cut:
                raise CompleteDoubtful(f"cut off: {self.cut}")
        return self._completed(ref, data)

    def copy_completed(self, ref: MultipartRef, object_key: str, keep_alive: Callable[[], None]) -> Completed:
        keep_alive()
        with self._lock:
            if ref.object_key in self.lost or not (
                self.objects.keys() & {ref.object_key} or ref.upload_id in self.uploads
            ):
                raise UploadGone(ref.upload_id)
            if ref.object_key not in self.objects:
                parts = self.uploads[ref.upload_id]
                if wrong := [number for number in range(1, ref.part_count + 1) if number not in parts]:
                    raise PartMismatch(wrong)
                self.completes.append(ref.upload_id)
                self.objects[ref.object_key] = b"".join(parts[number] for number in range(1, ref.part_count + 1))
                self._made_by[ref.upload_id] = ref.object_key
            self.objects[object_key] = self.objects[ref.object_key]
            return self._completed(ref, self.objects[object_key])

    def _completed(self, ref: MultipartRef, data: bytes) -> Completed:
        if self._compares:
            return Completed(verified=True, sha256=hashlib.sha256(data).digest())
        return Completed(verified=ref.binds_hash, sha256=None)

    def copy(self, source_key: str, object_key: str, size: int, keep_alive: Callable[[], None]) -> None:
        keep_alive()
        with self._lock:
            if source_key in self.lost:
                raise ObjectNotFound(source_key)
            self.objects[object_key] = self._object(source_key)

    def abort(self, ref: MultipartRef) -> None:
        with self._lock:
            was_open = self.uploads.pop(ref.upload_id, None) is not None
            if was_open and ref.upload_id in self._made_by:
                self.lost.add(self._made_by[ref.upload_id])
            if ref.is_single:
                self.objects.pop(ref.object_key, None)

    def list_uploads(self) -> Iterator[str]:
        with self._lock:
            return iter(sorted(self.uploads))
