"""The server's responses as values; the shapes are those of docs/api.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

JSON = dict[str, Any]


def moment(text: str) -> datetime:
    """An RFC 3339 time; Python 3.10 does not know the Z."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def numbers(ranges: Sequence[Sequence[int]]) -> list[int]:
    """[[1,2],[5,5]] → [1,2,5]."""
    return [number for first, last in ranges for number in range(first, last + 1)]


@dataclass(frozen=True)
class User:
    """An account."""

    id: str
    username: str
    role: str
    tier: str
    created_at: datetime

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> User:
        return cls(answer["id"], answer["username"], answer["role"], answer["tier"], moment(answer["created_at"]))


@dataclass(frozen=True)
class File:
    """A file on the server.

    Attributes:
        digest: SHA-256 over the parts' SHA-256s; see `sluice.digest`.
        state: ready, verifying or corrupt.
        sha256: of the whole content, as sha256sum prints it; None while the server does not know it.
    """

    id: str
    name: str
    size: int
    digest: str
    content_type: str
    state: str
    created_at: datetime
    updated_at: datetime
    trashed_at: datetime | None
    sha256: str | None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> File:
        return cls(
            id=answer["id"],
            name=answer["name"],
            size=answer["size"],
            digest=answer["digest"],
            content_type=answer["content_type"],
            state=answer["state"],
            created_at=moment(answer["created_at"]),
            updated_at=moment(answer["updated_at"]),
            trashed_at=moment(answer["trashed_at"]) if answer.get("trashed_at") else None,
            sha256=answer.get("sha256"),
        )


@dataclass(frozen=True)
class Link:
    """A download URL that needs no sign-in."""

    url: str
    expires_at: datetime

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Link:
        return cls(answer["url"], moment(answer["expires_at"]))


@dataclass(frozen=True)
class Challenge:
    """The request of an upload in state ``proving``: the bytes of a few ranges (offset, length)."""

    nonce: bytes
    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Challenge:
        return cls(bytes.fromhex(answer["nonce"]), tuple((offset, length) for offset, length in answer["ranges"]))


@dataclass(frozen=True)
class SignedPart:
    """Where one part goes, with exactly these headers, until then."""

    url: str
    headers: Mapping[str, str]
    expires_at: datetime


def signed_parts(answer: Mapping[str, Any]) -> dict[int, SignedPart]:
    """Signed parts by number."""
    return {
        int(number): SignedPart(part["url"], part["headers"], moment(part["expires_at"]))
        for number, part in answer.items()
    }


@dataclass(frozen=True)
class Upload:
    """An upload in progress.

    Attributes:
        state: proving, uploading, finalizing, done, failed, aborted or expired.
        parts: URLs, if the call asked for some.
        found: the server had it from an earlier call.
    """

    id: str
    state: str
    name: str
    size: int
    digest: str | None
    part_size: int
    part_count: int
    received: tuple[int, ...]
    missing: tuple[int, ...]
    received_bytes: int
    percent: float
    created_at: datetime
    expires_at: datetime
    challenge: Challenge | None
    file: File | None
    error: str | None
    parts: Mapping[int, SignedPart] | None = None
    found: bool = False

    @classmethod
    def of(cls, answer: Mapping[str, Any], *, found: bool = False) -> Upload:
        return cls(
            id=answer["id"],
            state=answer["state"],
            name=answer["name"],
            size=answer["size"],
            digest=answer["digest"],
            part_size=answer["part_size"],
            part_count=answer["part_count"],
            received=tuple(numbers(answer["received"])),
            missing=tuple(numbers(answer["missing"])),
            received_bytes=answer["received_bytes"],
            percent=answer["percent"],
            created_at=moment(answer["created_at"]),
            expires_at=moment(answer["expires_at"]),
            challenge=Challenge.of(answer["challenge"]) if answer["challenge"] else None,
            file=File.of(answer["file"]) if answer["file"] else None,
            error=answer.get("error"),
            parts=signed_parts(answer["parts"]) if "parts" in answer else None,
            found=found,
        )
