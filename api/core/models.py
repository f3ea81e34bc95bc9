"""Records of database rows, which the services and the database layer exchange.

Internally an id has 16 bytes and a digest 32 bytes. In the API they have 32 and 64 hexadecimal characters. Times are
aware datetimes in UTC. Sizes are in bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

Clock = Callable[[], datetime]

ROOT_FOLDER: Final = bytes(16)
GLOBAL_SCOPE: Final = bytes(16)

SINGLE_PUT: Final = "single put"
"""Stands in the row for a multipart id if the object is stored by one PUT through the edge."""

OPEN_STATES: Final = ("proving", "uploading", "finalizing")
"""States of an unfinished upload. In any other state it has ended."""


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def new_id() -> bytes:
    """A random id that sorts by its creation time (UUIDv7, RFC 9562 section 5.7).

    So rows that are inserted one after the other are neighbours in the index, and "newest first" is the order of ids.
    The 12 bits after the version hold 4096ths of a millisecond (section 6.2, method 3). 62 bits are random.
    """
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    value = bytearray(milliseconds.to_bytes(6) + (0x7000 | rest * 4096 // 1_000_000).to_bytes(2) + os.urandom(8))
    value[8] = value[8] & 0x3F | 0x80
    return bytes(value)


@dataclass(frozen=True, slots=True)
class User:
    """An account."""

    id: bytes
    username: str
    password_hash: str
    role: str
    tier: str
    generation: int
    disabled_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in client. Only the newest of its refresh tokens is valid."""

    id: bytes
    user_id: bytes
    refresh_hash: bytes
    expires_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload in progress or ended; docs/design.md explains the states.

    Attributes:
        received: bit n-1 is set if the storage had part n; least significant bit of each byte first.
        received_at: when the storage last listed the parts.
        binds_hash: the part URLs make the storage check each part's SHA-256.
        lease_until: until then one process has the lease for finalizing it.
        failure: the error code with which it ended.
        completes_sent: complete requests that may have reached the storage, including the one about to be sent.
        copy_key: key of the copy after a doubtful complete; it becomes the blob's key.
    """

    id: bytes
    user_id: bytes
    state: str
    name: str
    folder_id: bytes
    content_type: str
    size: int
    digest: bytes | None
    part_size: int
    part_count: int
    storage: str
    object_key: str
    multipart_id: str
    binds_hash: bool
    nonce: bytes | None
    challenge_expires_at: datetime | None
    received: bytes
    received_at: datetime | None
    completes: int
    lease_until: datetime | None
    file_id: bytes | None
    failure: str | None
    created_at: datetime
    expires_at: datetime
    completes_sent: int = 0
    copy_key: str | None = None

    @property
    def blob_key(self) -> str:
        """The object key of the content after the upload."""
        return self.copy_key or self.object_key

    @property
    def is_single(self) -> bool:
        """Whether the object is stored by one PUT, without a multipart upload."""
        return self.multipart_id == SINGLE_PUT


@dataclass(frozen=True, slots=True)
class Blob:
    """A unique content, and one of its replicas.

    Attributes:
        state: unverified, verified, corrupt or deleting.
        sha256: SHA-256 of the whole content; None if unknown.
        storage: the replica's storage; None if there is no replica (an empty blob needs none).
    """

    id: bytes
    size: int
    digest: bytes
    state: str
    sha256: bytes | None
    storage: str | None
    object_key: str | None


@dataclass(frozen=True, slots=True)
class File:
    """A user's file, with the data of its blob."""

    id: bytes
    user_id: bytes
    folder_id: bytes
    name: str
    blob_id: bytes
    content_type: str
    link_generation: int
    created_at: datetime
    updated_at: datetime
    trashed_at: datetime | None
    size: int
    digest: bytes
    blob_state: str
    sha256: bytes | None

    @classmethod
    def of(cls, upload: Upload, blob: Blob, file_id: bytes, now: datetime) -> File:
        """The new file of an upload, with this blob."""
        return cls(
            id=file_id,
            user_id=upload.user_id,
            folder_id=upload.folder_id,
            name=upload.name,
            blob_id=blob.id,
            content_type=upload.content_type,
            link_generation=1,
            created_at=now,
            updated_at=now,
            trashed_at=None,
            size=blob.size,
            digest=blob.digest,
            blob_state=blob.state,
            sha256=blob.sha256,
        )


@dataclass(frozen=True, slots=True)
class Transfer:
    """A migration of a storage, or a transfer policy.

    Attributes:
        policy: the policy's name, such as ``move:local>main``; None for a migration.
        keep_for: seconds for which the source is kept beside its copy, if ``delete_source``.
        delay: age of a replica at which it is copied, in seconds.
        state: running, paused, done, cancelled.
        planned: True if every blob of a migration has an item.
        planned_at, planned_blob: the last replica of the source that the planner has read.
        items, bytes: planned in total; the next three pairs are those that are done, skipped and failed.
        live_bytes: bytes of unfinished items that the destination already has.
        moved_bytes: bytes that were ever copied for it; used to measure the rate.
    """

    id: bytes
    source: str
    destination: str
    policy: str | None
    delete_source: bool
    keep_for: int
    delay: int
    state: str
    planned: bool
    planned_at: datetime
    planned_blob: bytes
    items: int
    bytes: int
    done_items: int
    done_bytes: int
    skipped_items: int
    skipped_bytes: int
    failed_items: int
    failed_bytes: int
    live_bytes: int
    moved_bytes: int
    window_at: datetime
    window_bytes: int
    rate: int
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class TransferItem:
    """One blob of a transfer, with the data of both.

    Attributes:
        state: waiting, queued, failed.
        phase: copy, or delete (of the source's replica, at ``due_at``).
        storage: the destination.
        upload_id: the end of the object key.
        begun: True if the destination may have data of it.
        copied: bytes that the destination has.
        blob_state: None if the blob was deleted.
        complete_stage: see `api.blobs.copying.complete`.
        hashes: the packed SHA-256 of its parts.
    """

    id: bytes
    transfer_id: bytes
    blob_id: bytes
    size: int
    state: str
    phase: str
    storage: str
    object_key: str
    upload_id: bytes
    multipart_id: str
    begun: bool
    binds_hash: bool
    copied: int
    due_at: datetime
    source: str
    delete_source: bool
    keep_for: int
    transfer_state: str
    blob_state: str | None
    hashes: bytes | None
    complete_stage: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller, from the claims of a verified access token."""

    user_id: bytes
    session_id: bytes
    generation: int
    role: str
    tier: str
