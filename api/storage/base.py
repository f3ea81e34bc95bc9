"""The storage contract: small capability classes, which a backend implements as far as it can.

A backend raises only `api.core.errors.StorageError` and its subclasses. The server makes object keys from
``[a-z0-9/-]``; they are random and never used again. Test with ``isinstance`` what a backend can do.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from api.core.errors import StorageUnavailable
from api.core.models import SINGLE_PUT


class Reader(Protocol):
    """Bytes of an object, front to back."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes; empty at the end."""

    def close(self) -> None:
        """Closes the connection or file."""


@dataclass(frozen=True, slots=True)
class MultipartRef:
    """Names one multipart upload to its storage, and says on whose behalf.

    Attributes:
        upload_id: our upload's id, 32 hexadecimal characters.
        multipart_id: the result of `MultipartStorage.create`, or SINGLE_PUT.
        user_id: the user's id, 32 hexadecimal characters.
        generation: the user's token generation.
        tier: the user's tier, by which the edge limits parts.
        session_id: of the session that part URLs are made for, 32 hexadecimal characters; zeros if there is none.
        binds_hash: the upload's part URLs make the storage compare each body with its SHA-256.
        completes_sent: completes of this upload that may have reached the storage before, answered or not.
    """

    upload_id: str
    object_key: str
    multipart_id: str
    size: int
    part_size: int
    part_count: int
    user_id: str
    generation: int
    binds_hash: bool = False
    tier: str = "default"
    completes_sent: int = 0
    session_id: str = "0" * 32

    @property
    def is_single(self) -> bool:
        """Whether the object is stored by one PUT: there is no multipart upload to create, complete or abort."""
        return self.multipart_id == SINGLE_PUT


@dataclass(frozen=True, slots=True)
class SignedPart:
    """A URL for exactly one part. Send the bytes by PUT, with these headers."""

    url: str
    headers: Mapping[str, str]


EdgePartURL = Callable[[MultipartRef, int, int, int, SignedPart], str]
"""Signs the edge's URL of a part: (ref, number, length, expires_at, the part at the storage itself)."""


@dataclass(frozen=True, slots=True)
class Completed:
    """The result of a complete.

    Attributes:
        verified: True if every byte was compared with the parts' hashes, by the storage or while assembling.
        sha256: SHA-256 of the whole object, if the bytes were read anyway.
        hash_later: True if a worker should compute the SHA-256 of the whole, since the object is large.
    """

    verified: bool
    sha256: bytes | None
    hash_later: bool = False


class Storage(abc.ABC):
    """Finished objects."""

    @abc.abstractmethod
    def check(self) -> None:
        """Raises StorageUnavailable, with the reason, if the storage cannot be used now."""

    @abc.abstractmethod
    def stat(self, object_key: str) -> int:
        """The object's size in bytes. Raises ObjectNotFound."""

    @abc.abstractmethod
    def open(self, object_key: str, offset: int = 0, length: int | None = None) -> Reader:
        """Opens ``length`` bytes from ``offset`` (to the end without a length). Raises ObjectNotFound."""

    @abc.abstractmethod
    def delete(self, object_key: str) -> None:
        """Deletes an object. Succeeds if there is none."""

    @abc.abstractmethod
    def internal_uri(self, object_key: str) -> str:
        """The URI by which the edge reads the object."""

    @abc.abstractmethod
    def list_objects(self, after: str = "") -> Iterator[str]:
        """Keys of this deployment's objects that come after a key, in the order of their bytes.

        The listing reads one page at a time, so that memory stays constant. Objects that are created or deleted
        meanwhile may be listed or not; all others are listed exactly once.
        """


class MultipartStorage(Storage):
    """A storage that takes an object in parts, which clients send to it directly.

    Attributes:
        leaks_resent_parts: True if uploading a part twice leaks the first copy permanently (Ceph RGW 16). The API
            then gives out few URLs per part.
        reads_to_complete: True if complete reads the bytes, so that it takes long for large uploads.
    """

    leaks_resent_parts: bool = False
    reads_to_complete: bool = False

    @property
    def single_put_max(self) -> int:
        """Bytes up to which an upload of one part can be one PUT of the object (`MultipartRef.is_single`); 0: none.

        Its part's URL binds the hash and never replaces an object; `create` is not called for it, `abort` deletes it.
        """
        return 0

    @property
    @abc.abstractmethod
    def enforces_sha256(self) -> bool:
        """Whether a part's URL makes the storage refuse a body with another SHA-256; found by probing."""

    def room(self) -> int | None:
        """Free bytes above the reserve, below 0 if there are fewer; None if unknown."""
        return None

    def check_room(self, size: int, part_count: int) -> None:
        """Raises StorageFull if a new upload of this size would not fit. Most storages do not know."""

    @abc.abstractmethod
    def create(self, ref: MultipartRef) -> str:
        """Opens the upload for parts. Returns the storage's id for it, which is never empty.

        Safe to repeat if the response was lost.
        """

    @abc.abstractmethod
    def presign_part(self, ref: MultipartRef, number: int, sha256: str, expires_at: int) -> SignedPart:
        """A URL for one part, its exact length and, if enforced, its hash; valid until ``expires_at`` (epoch).

        It is signed without a request to the storage, since this is the API's most frequent operation.
        """

    @abc.abstractmethod
    def write_part(self, ref: MultipartRef, number: int, body: Iterable[bytes], sha256: str) -> None:
        """Stores a part from this process, for a worker that copies: in pieces, never as a whole in memory.

        Args:
            body: the part's bytes. If it raises an exception, that is passed on, and nothing is stored.
            sha256: compared by the storage if ``ref.binds_hash``.

        Raises:
            PartMismatch: the stored bytes differ from the sent ones; the part must be sent again.
            UploadGone: there is no such upload.
            StorageError: it is unknown whether the part is stored: `list_parts` tells.
        """

    @abc.abstractmethod
    def list_parts(self, ref: MultipartRef) -> dict[int, int]:
        """Bytes of each part that is stored, by number. Raises UploadGone."""

    def believe(self, ref: MultipartRef, etags: Mapping[int, str]) -> bool:
        """Trusts a client's list of stored parts for the complete that comes next, which detects wrong entries.

        Args:
            etags: the ETag that the client got for each part.

        Returns:
            Whether it can: only if ``ref.binds_hash``, since otherwise the lengths have to be checked.
        """
        return False

    @abc.abstractmethod
    def complete(self, ref: MultipartRef, hashes: bytes, keep_alive: Callable[[], None]) -> Completed:
        """Turns the parts into the object. Every part URL is invalid from here on.

        The caller writes down that it is about to call, and gives a later call ``ref.completes_sent``. With that it is
        safe to repeat after a crash anywhere in it: a repeat continues from what is stored, finds the work done, or
        reports that the outcome cannot be known.

        Args:
            hashes: the packed SHA-256 of each part, in order.
            keep_alive: called regularly by work that takes long; an exception from it stops the work.

        Raises:
            CompleteDoubtful: the object may be there or not, and may go again; `copy_completed` makes it sure. The
                object key must not be believed from here on, and the upload must not be aborted before that.
            PartMismatch: those parts are missing or wrong; they are gone and the upload takes them again.
            StorageFull: there is no room; the upload is as it was before.
            UploadGone: there is neither such an upload nor the object.
        """

    def copy_completed(self, ref: MultipartRef, object_key: str, keep_alive: Callable[[], None]) -> Completed:
        """Copies the object that a doubtful complete made, or can still make, to another key, and reads the copy.

        Safe to repeat with the same key, after a crash anywhere in it. The copy stays whole, even if ``ref.object_key``
        changes later (abort, delete, garbage collection, a complete that arrives late).

        Args:
            object_key: a new random key, which a row names already.
            keep_alive: as for `complete`.

        Raises:
            UploadGone: there is neither the object nor the upload: the content has to be sent again.
            PartMismatch: there is no object, and those parts are missing or wrong.
            CompleteDoubtful: the copy itself is in doubt; another key is needed.
            StorageError: not known yet; to be tried again later.
        """
        raise StorageUnavailable("no complete of this storage is ever in doubt")

    @abc.abstractmethod
    def abort(self, ref: MultipartRef) -> None:
        """Frees the parts; an upload that is not there is aborted already.

        Only for uploads whose key no blob and no replica names: Ceph RGW deletes the bytes of an object whose upload
        was left open by a complete that did not come to its end.
        """

    def abort_strays(self, ref: MultipartRef) -> bool:
        """Frees unfinished uploads of the key that a lost answer to `create` left, and that were never completed.

        Returns:
            Whether the upload itself is still open.
        """
        return True

    @abc.abstractmethod
    def list_uploads(self) -> Iterator[str]:
        """Our ids of the uploads that the storage holds parts of."""

    def drop_dead_bodies(self) -> int:
        """Deletes incomplete bodies whose transfer has ended. Returns their number. Most storages do so themselves."""
        return 0


class Copies(abc.ABC):
    """A storage whose finished objects may have an open upload, and that can copy an object by itself."""

    @abc.abstractmethod
    def copy(self, source_key: str, object_key: str, size: int, keep_alive: Callable[[], None]) -> None:
        """Copies an object of ``size`` bytes to a new key; safe to repeat.

        The copy stays whole, whatever becomes of the source and of its open upload.

        Raises:
            ObjectNotFound: the source, or some of its bytes, are gone.
            CompleteDoubtful: another key is needed.
        """


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, as one line for an operator.

    Attributes:
        about: the subject of the check, in a word or two.
        ok: False if something has to be repaired.
        text: the result.
        mend: how to repair it, or a better choice; NAME in it stands for the storage's name.
    """

    about: str
    ok: bool
    text: str
    mend: str = ""


class Administered(abc.ABC):
    """A storage that an operator can prepare and examine: ``python -m api storage init`` and ``check``."""

    @property
    @abc.abstractmethod
    def place(self) -> str:
        """Where it is, for people."""

    @abc.abstractmethod
    def init(self, origins: Sequence[str]) -> Iterator[str]:
        """Creates everything that is missing, and destroys nothing. Yields a line for each thing that is in place.

        Args:
            origins: scheme, host and port of the pages that send parts from browsers.

        Raises:
            StorageError: a step failed. The results of earlier steps stay, and a repeat continues from there.
        """

    @abc.abstractmethod
    def checks(self, origins: Sequence[str]) -> Iterator[Finding]:
        """Tries everything that the gateway needs; each finding as soon as it is known.

        Objects that the checks write are deleted again. A fault that makes the other checks pointless ends the list.
        """
