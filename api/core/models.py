"""What the rows mean: records that services and the database layer hand each other.

Ids are 16 bytes inside and 32 hexadecimal characters outside; digests are 32 bytes inside and 64 characters
outside; times are aware datetimes in UTC; sizes are bytes.
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
"""Stands for a multipart id in the row of an upload whose object is one PUT through the edge."""

OPEN_STATES: Final = ("proving", "uploading", "finalizing")
"""An upload in one of these is unfinished; in any other it has ended."""


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def new_id() -> bytes:
    """A random id that sorts by its time of making (UUIDv7, RFC 9562 section 5.7).

    Rows made one after the other lie side by side in the index, and "newest first" is the order of ids: also within a
    millisecond, whose 4096ths stand where the version leaves 12 bits (section 6.2, method 3). 62 bits are random.
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
    """A signed-in client; its refresh tokens are one family, of which only the newest is good."""

    id: bytes
    user_id: bytes
    refresh_hash: bytes
    expires_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload in progress or ended; see docs/design.md's Words for the states.

    Attributes:
        received: bit n-1 is set when the storage held part n, least significant bit of each byte first.
        received_at: when the storage was last asked.
        binds_hash: the part URLs make the storage check each part's SHA-256.
        lease_until: until then one process is busy finalizing it.
        failure: the error code it ended with.
        completes_sent: completes that may have reached the storage, the one that is about to be sent included.
        copy_key: where the object is brought after a doubtful complete; the blob's key then.
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
        """The key under which the content counts once the upload is done."""
        return self.copy_key or self.object_key

    @property
    def is_single(self) -> bool:
        """Its object is one PUT, and there is no multipart upload."""
        return self.multipart_id == SINGLE_PUT


@dataclass(frozen=True, slots=True)
class Blob:
    """One unique content and, for a reader, one replica of it.

    Attributes:
        state: unverified, verified, corrupt or deleting.
        sha256: of the whole content, where it is known.
        storage: a replica's storage; None when it has none (an empty blob needs none).
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
    """A user's named entry, with what a caller wants to know of its blob."""

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
        """The file that an upload makes on a blob."""
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
    """A migration of a storage, or a policy.

    Attributes:
        policy: its name, such as ``move:local>main``; None for a one-off migration.
        keep_for: seconds for which the source is kept beside its copy, where it is deleted at all.
        delay: seconds of age at which a replica is copied.
        state: running, paused, done, cancelled.
        planned: everything that a migration is to copy has an item.
        planned_at, planned_blob: the last replica of the source that was looked at.
        items, bytes: what was planned; of which the next three are done, needless and failed.
        live_bytes: of those that are none of the three, what is at the destination.
        moved_bytes: all that was ever copied for it; by this the rate is measured.
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
    """One blob of a transfer, and what its work has to know of both.

    Attributes:
        state: waiting, queued, failed.
        phase: copy, or delete (the source's replica, when it is due).
        storage: the destination.
        upload_id: what the key ends with.
        begun: something may be at the destination.
        copied: bytes that are.
        blob_state: None where the blob is gone.
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
    """Who is asking: what a verified access token says."""

    user_id: bytes
    session_id: bytes
    generation: int
    role: str
    tier: str
