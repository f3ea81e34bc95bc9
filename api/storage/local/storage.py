"""Storage ``local``: a folder on this machine, written to and read by nginx.

Under the root, all on one filesystem, all owned by the one user that nginx and the API run as::

    incoming/                     nginx's client_body_temp: bodies that are still arriving
    parts/<upload id>/<number>    finished parts, renamed here by nginx's DAV PUT
    assembling/<upload id>/       the same folder once complete or abort began; no PUT reaches it
    objects/<object key>          finished objects, read only

`create` makes the upload's part folder, and PUT never makes one. So renaming the folder invalidates all part URLs
immediately. The object is assembled next to the parts and hashed while it is copied. It is synced, and appears under
its key by one rename. The parts are kept until that rename, so a crash only costs time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from api.core import digests
from api.core.errors import ObjectNotFound, PartMismatch, StorageError, StorageFull, StorageUnavailable, UploadGone
from api.storage.base import Administered, Completed, Finding, MultipartRef, MultipartStorage, Reader, SignedPart
from api.storage.local.assembly import Assembly, hash_file
from api.storage.local.check import examine

_OBJECT: Final = ".object"
_LOCK: Final = ".lock"
_DISCARDED: Final = ".discarded-"
MOST_PARTS_DELETED_INLINE: Final = 16
_SMALL: Final = 64 * 1024**2
"""Size in bytes up to which complete computes the SHA-256 of the whole object. Above, a worker does."""
_FOLDERS: Final = ("incoming", "parts", "assembling", "objects")
DEAD_BODY_SECONDS: Final = 86_400.0
"""If a body in incoming/ got no byte for this time, a killed nginx has left it behind.

Bodies have no row in the database. Their mtime comes from the kernel, so it can be trusted here.
"""

PartURL = Callable[[MultipartRef, int, int, int], str]
"""Signs the edge's URL for (upload, part number, bytes, expiry)."""


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as ex:
        raise ObjectNotFound(str(ex)) from ex
    except OSError as ex:
        if ex.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(str(ex)) from ex
        raise StorageUnavailable(str(ex)) from ex


class _Range:
    """A reader of ``length`` bytes from ``offset``."""

    def __init__(self, path: Path, offset: int, length: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._file.seek(offset)
        self._left = length

    def read(self, size: int = -1, /) -> bytes:
        with _own_errors():
            data = self._file.read(self._left if size < 0 else min(size, self._left)) or b""
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()


class LocalStorage(MultipartStorage, Administered):
    """See the module's docstring.

    Args:
        root: the folder; its four subfolders are created.
        part_url: signs a part's URL at the edge.
        min_free: bytes on the disk that must stay free.
        prefix: returns the prefix of this deployment's keys; empty if no other deployment uses the folder.
    """

    reads_to_complete = True

    def __init__(
        self, root: Path, part_url: PartURL, min_free: int = 0, prefix: Callable[[], str] = lambda: ""
    ) -> None:
        self._root = root
        self._part_url = part_url
        self._min_free = min_free
        self._prefix = prefix
        for folder in _FOLDERS:
            (root / folder).mkdir(parents=True, exist_ok=True, mode=0o700)

    def _object(self, object_key: str) -> Path:
        return self._root / "objects" / object_key

    def _parts(self, ref: MultipartRef) -> Path:
        return self._root / "parts" / ref.upload_id

    def _private(self, ref: MultipartRef) -> Path:
        return self._root / "assembling" / ref.upload_id

    # -- objects

    def check(self) -> None:
        if not os.access(self._root / "parts", os.W_OK | os.X_OK):
            raise StorageUnavailable("the parts folder cannot be written")
        with _own_errors():
            os.statvfs(self._root)

    def check_room(self, size: int, part_count: int) -> None:
        # the parts and the assembled object exist at the same time; a single part is only renamed
        with _own_errors():
            self._need(size * (2 if part_count > 1 else 1))

    def room(self) -> int:
        with _own_errors():
            return self._room()

    def _room(self) -> int:
        status = os.statvfs(self._root)
        return status.f_bavail * status.f_frsize - self._min_free

    def _need(self, size: int) -> None:
        room = self._room()
        if room < size:
            free = room + self._min_free
            raise StorageFull(f"{size} bytes are needed and {self._min_free} must stay free, {free} are free")

    def stat(self, object_key: str) -> int:
        with _own_errors():
            return self._object(object_key).stat().st_size

    def open(self, object_key: str, offset: int = 0, length: int | None = None) -> Reader:
        with _own_errors():
            path = self._object(object_key)
            left = max(path.stat().st_size - offset, 0)
            return _Range(path, offset, left if length is None else min(length, left))

    def delete(self, object_key: str) -> None:
        with _own_errors():
            self._object(object_key).unlink(missing_ok=True)

    def internal_uri(self, object_key: str) -> str:
        return f"/{object_key}"

    def list_objects(self, after: str = "") -> Iterator[str]:
        prefix = self._prefix()
        objects = self._root / "objects"
        if not objects.is_dir():  # the disk may not be mounted; its objects are not lost
            raise StorageUnavailable("the folder of objects is missing")
        if not prefix:
            yield from _keys_below(objects, "", after)
        elif (objects / prefix).is_dir():
            yield from _keys_below(objects / prefix, f"{prefix}/", after)

    # -- multipart uploads

    @property
    def enforces_sha256(self) -> bool:
        return False

    def create(self, ref: MultipartRef) -> str:
        with _own_errors():
            self._parts(ref).mkdir(mode=0o700, exist_ok=True)
        return "local"

    def presign_part(self, ref: MultipartRef, number: int, sha256: str, expires_at: int) -> SignedPart:
        length = digests.part_length(number, ref.size, ref.part_size)
        return SignedPart(self._part_url(ref, number, length, expires_at), {})

    def write_part(self, ref: MultipartRef, number: int, body: Iterable[bytes], sha256: str) -> None:
        # like nginx: the body is written to incoming/ and then renamed
        length = digests.part_length(number, ref.size, ref.part_size)
        with _own_errors():
            descriptor, name = tempfile.mkstemp(prefix=f"{ref.upload_id}-", dir=self._root / "incoming")
        arriving = Path(name)
        try:
            for piece in _into(descriptor, body):
                length -= piece
            if length:
                raise StorageUnavailable("the part does not have the announced length")
            try:
                arriving.rename(self._parts(ref) / str(number))
            except FileNotFoundError as ex:
                raise UploadGone(ref.upload_id) from ex
        finally:
            arriving.unlink(missing_ok=True)

    def list_parts(self, ref: MultipartRef) -> dict[int, int]:
        for folder in (self._parts(ref), self._private(ref)):
            try:
                with _own_errors(), os.scandir(folder) as entries:
                    return {int(e.name): e.stat().st_size for e in entries if e.name.isdecimal()}
            except ObjectNotFound:
                continue
        self.check()  # the disk may not be mounted; the upload is not lost then
        raise UploadGone(ref.upload_id)

    def complete(self, ref: MultipartRef, hashes: bytes, keep_alive: Callable[[], None]) -> Completed:
        with _own_errors():
            private = self._take_private(ref)
            if private is None:
                return self._completed_before(ref, hashes, keep_alive)
            with self._alone(private):
                if self._object(ref.object_key).exists():
                    with contextlib.suppress(StorageError):
                        completed = self._completed_before(ref, hashes, keep_alive)
                        self._discard(private, ref.part_count)
                        return completed
                self._check_parts(ref, private)
                sha256 = self._assemble(ref, private, digests.split(hashes), keep_alive)
                self._discard(private, ref.part_count)
        return Completed(verified=True, sha256=sha256, hash_later=sha256 is None)

    def _discard(self, private: Path, part_count: int) -> None:
        """Deletes the parts of a finished object; many parts in a background thread."""
        if part_count <= MOST_PARTS_DELETED_INLINE:
            shutil.rmtree(private)
            return
        discarded = private.with_name(f"{_DISCARDED}{private.name}")
        private.rename(discarded)
        threading.Thread(target=shutil.rmtree, args=(discarded, True), name="discard", daemon=True).start()

    def _take_private(self, ref: MultipartRef) -> Path | None:
        """Moves the part folder out of the reach of PUTs. Returns None if the folder is gone."""
        private = self._private(ref)
        try:
            self._parts(ref).rename(private)
        except FileNotFoundError:
            pass
        except OSError as ex:
            if ex.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # a late `create` has made the folder again after it was moved
            shutil.rmtree(self._parts(ref))
        return private if private.exists() else None

    @staticmethod
    @contextlib.contextmanager
    def _alone(private: Path) -> Iterator[None]:
        """Holds the folder's lock, so that two processes never assemble one object, even if a lease has expired."""
        lock = os.open(private / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as ex:
            raise StorageUnavailable("another process is assembling this upload") from ex
        finally:
            os.close(lock)

    def _completed_before(self, ref: MultipartRef, hashes: bytes, keep_alive: Callable[[], None]) -> Completed:
        """The object of a complete that crashed after its rename. Reads and compares it again."""
        path = self._object(ref.object_key)
        if not path.exists():
            raise UploadGone(ref.upload_id)
        found, sha256 = hash_file(path, ref.size, ref.part_size, keep_alive)
        if found != digests.split(hashes):
            raise StorageUnavailable(f"{ref.object_key} does not contain the assembled parts")
        return Completed(verified=True, sha256=sha256)

    def _check_parts(self, ref: MultipartRef, private: Path) -> None:
        """Checks that every part exists with its length, and that there is space for the object."""
        wrong = [
            number
            for number in range(1, ref.part_count + 1)
            if _size(private / str(number)) != digests.part_length(number, ref.size, ref.part_size)
        ]
        if wrong:
            self._reopen(ref, wrong)
        if ref.part_count > 1:
            try:
                self._need(ref.size - (_size(private / _OBJECT) or 0))
            except StorageFull:
                private.rename(self._parts(ref))
                raise

    def _reopen(self, ref: MultipartRef, wrong: list[int]) -> None:
        """Deletes the wrong parts and moves the folder back, so that PUTs reach it. Raises PartMismatch."""
        private = self._private(ref)
        for name in (_OBJECT, _LOCK, *map(str, wrong)):
            (private / name).unlink(missing_ok=True)
        private.rename(self._parts(ref))
        raise PartMismatch(wrong)

    def _assemble(
        self, ref: MultipartRef, private: Path, hashes: list[bytes], keep_alive: Callable[[], None]
    ) -> bytes | None:
        """Hashes and copies in one pass. Returns the whole object's SHA-256 if it is small."""
        source = private / (_OBJECT if ref.part_count > 1 else "1")
        sha256: bytes | None = None
        if ref.part_count > 1:
            try:
                wrong = Assembly(private, source, ref.size, ref.part_size).run(hashes, keep_alive)
            except OSError as ex:
                if ex.errno in (errno.ENOSPC, errno.EDQUOT):
                    source.unlink(missing_ok=True)
                    private.rename(self._parts(ref))
                raise
        else:
            found, sha256 = hash_file(source, ref.size, ref.part_size, keep_alive)
            wrong = [] if found == hashes else [1]
            _sync(source)
        if wrong:
            self._reopen(ref, wrong)
        if sha256 is None and ref.size <= _SMALL:
            sha256 = hash_file(source, ref.size, ref.part_size, keep_alive)[1]
        target = self._object(ref.object_key)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        source.rename(target)
        for folder in (target.parent, target.parent.parent, target.parent.parent.parent):
            _sync(folder)
        return sha256

    def abort(self, ref: MultipartRef) -> None:
        with _own_errors():
            private = self._take_private(ref)
            if private is not None:
                shutil.rmtree(private, ignore_errors=True)

    def list_uploads(self) -> Iterator[str]:
        with _own_errors():
            for folder in ("parts", "assembling"):
                yield from sorted(name for name in os.listdir(self._root / folder) if not name.startswith("."))

    def drop_dead_bodies(self) -> int:
        count, before = 0, time.time() - DEAD_BODY_SECONDS
        with contextlib.suppress(ObjectNotFound), _own_errors(), os.scandir(self._root / "incoming") as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False) and entry.stat().st_mtime < before:
                        os.unlink(entry)
                        count += 1
        for folder in (self._root / "assembling").glob(f"{_DISCARDED}*"):
            shutil.rmtree(folder, ignore_errors=True)  # the process that was deleting it may have been killed
        return count

    # -- for operators

    @property
    def place(self) -> str:
        return str(self._root)

    def init(self, origins: Sequence[str]) -> Iterator[str]:
        yield f"{', '.join(_FOLDERS)} exist"  # the constructor has created them

    def checks(self, origins: Sequence[str]) -> Iterator[Finding]:
        return examine(self._root, _FOLDERS, self._min_free)


def _keys_below(folder: Path, before: str, after: str) -> Iterator[str]:
    """Object keys of the files below a folder, in byte order.

    Args:
        before: the prefix of this folder's keys.
        after: yield only keys after this one.
    """
    try:
        with _own_errors(), os.scandir(folder) as entries:
            # a folder sorts like its keys: "a-b" comes before "a/b"
            names = sorted(f"{e.name}/" if e.is_dir(follow_symlinks=False) else e.name for e in entries)
    except ObjectNotFound:
        return
    for name in names:
        key = before + name
        if not name.endswith("/"):
            if key > after:
                yield key
        elif key > after or after.startswith(key):
            yield from _keys_below(folder / name, key, after)


def _into(descriptor: int, body: Iterable[bytes]) -> Iterator[int]:
    """Writes pieces to a file and closes it. Yields the length of each piece."""
    with open(descriptor, "wb", buffering=0) as file:
        for piece in body:
            left = memoryview(piece)
            while left:
                with _own_errors():
                    left = left[file.write(left) :]
            yield len(piece)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _sync(path: Path) -> None:
    """Syncs a file or a folder, so that it survives a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
