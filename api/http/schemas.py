"""The JSON of the HTTP API: what a body may hold, and how records look outside."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from api.accounts.service import SessionTokens
from api.accounts.usage import View as UsageView
from api.core.errors import Problem
from api.core.models import File, Upload, User
from api.files.service import Link, Target
from api.transfers.service import DryRun, TransferView
from api.uploads import ranges
from api.uploads.proof import Challenge
from api.uploads.status import SignedParts, UploadView

HEX_32: Final = r"^[0-9a-f]{32}$"
# "$" also matches before a last newline, which bytes.fromhex skips: only the length says no to that.
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$", max_length=64)]
MOST_AT_ONCE: Final = 50
"""Uploads of one call."""
PartHashes = Annotated[dict[str, Sha256], Meta(min_length=1, max_length=1000)]

ETags = Annotated[
    dict[str, Annotated[str, Meta(pattern=r"^[ -~]+\Z", max_length=128)]], Meta(min_length=1, max_length=10_000)
]
"""What a storage answered each part with, in its own words."""


class Body(Struct, forbid_unknown_fields=True):
    """A request's body: members that it does not know are an error, not ignored."""


class SignUp(Body):
    """POST /users."""

    username: str
    password: str
    code: str | None = None


class SignIn(Body):
    """POST /sessions."""

    username: str
    password: str
    cookie: bool = False


class Refresh(Body):
    """POST /sessions/refresh; without a token, the cookie's."""

    refresh_token: str | None = None


class ChangeMe(Body):
    """PATCH /users/me."""

    password: str
    current_password: str


class CreateUpload(Body):
    """POST /uploads."""

    name: str
    size: int
    digest: str | None = None
    resume_key: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    folder_id: str | None = None
    content_type: str | None = None
    parts: PartHashes | None = None


class CreateUploads(Body):
    """POST /uploads/batch."""

    uploads: Annotated[list[CreateUpload], Meta(min_length=1, max_length=MOST_AT_ONCE)]


class CompleteUploads(Body):
    """POST /uploads/batch/complete."""

    ids: Annotated[list[str], Meta(min_length=1, max_length=MOST_AT_ONCE)]


class SignPartsBody(Body):
    """POST /uploads/{id}/parts."""

    parts: PartHashes


class CompleteUpload(Body):
    """POST /uploads/{id}/complete."""

    etags: ETags | None = None


class Proof(Body):
    """POST /uploads/{id}/proof."""

    proof: Sha256
    parts: Annotated[list[Sha256], Meta(min_length=1, max_length=10_000)]


class CreateLink(Body):
    """POST /files/{id}/links."""

    expires_in: Annotated[int, Meta(ge=1, le=604_800)] | None = None
    disposition: str = "attachment"


_Kind = Annotated[str, Meta(pattern="^(user|share|anonymous)$", max_length=16)]
_Id = Annotated[str, Meta(pattern=HEX_32, max_length=32)]
_Bytes = Annotated[int, Meta(ge=0, le=2**62)]


class UsageReport(Body):
    """POST /internal/usage: kind, subject, day, bytes sent, bytes received; and whose totals are asked for."""

    edge: _Id
    sequence: Annotated[int, Meta(ge=0, le=2**62)]
    rows: list[tuple[_Kind, _Id, str, _Bytes, _Bytes]]
    totals: list[tuple[_Kind, _Id]] = []


class ChangeFile(Body):
    """PATCH /files/{id}."""

    name: str


class StartTransfer(Body):
    """POST /transfers."""

    source: Annotated[str, Meta(max_length=32)] = msgspec.field(name="from")
    destination: Annotated[str, Meta(max_length=32)] = msgspec.field(name="to")
    delete_source: bool = False
    keep_for: Annotated[int, Meta(ge=0)] | None = None
    dry_run: bool = False


class ChangeTransfer(Body):
    """PATCH /transfers/{id}."""

    state: Literal["running", "paused", "cancelled"]


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def user(record: User) -> dict[str, Any]:
    """An account."""
    return {
        "id": record.id.hex(),
        "username": record.username,
        "role": record.role,
        "tier": record.tier,
        "created_at": timestamp(record.created_at),
    }


def usage(view: UsageView) -> dict[str, Any]:
    """Traffic of the day and the month, in UTC; a limit is of what is sent, and null where there is none."""
    totals, tier = view.totals, view.tier
    return {
        "day": {"sent": totals.day_sent, "received": totals.day_received, "limit": tier.daily or None},
        "month": {"sent": totals.month_sent, "received": totals.month_received, "limit": tier.monthly or None},
    }


def session(tokens: SessionTokens, *, with_refresh: bool) -> dict[str, Any]:
    """A session's tokens; the refresh token is left out where a cookie carries it."""
    answer: dict[str, Any] = {
        "access_token": tokens.access_token,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in,
    }
    if with_refresh:
        answer["refresh_token"] = tokens.refresh_token
    return answer


def file(record: File) -> dict[str, Any]:
    """A file."""
    states = {"verified": "ready", "unverified": "verifying"}
    return {
        "id": record.id.hex(),
        "name": record.name,
        "size": record.size,
        "digest": record.digest.hex(),
        "content_type": record.content_type,
        "folder_id": None if not any(record.folder_id) else record.folder_id.hex(),
        "state": states.get(record.blob_state, "corrupt"),
        "created_at": timestamp(record.created_at),
        "updated_at": timestamp(record.updated_at),
        "trashed_at": None if record.trashed_at is None else timestamp(record.trashed_at),
        "sha256": None if record.sha256 is None else record.sha256.hex(),
    }


def target(record: Target) -> dict[str, Any]:
    """Where a blob lies, for the edge."""
    return {
        "blob": record.blob_id.hex(),
        "size": record.size,
        "digest": record.digest.hex(),
        "storage": record.storage,
        "name": record.name,
        "uri": record.uri,
        "cached": record.cached,
    }


def link(record: Link) -> dict[str, Any]:
    """A link."""
    return {"url": record.url, "expires_at": timestamp(record.expires_at)}


def parts(signed: SignedParts) -> dict[str, Any]:
    """Signed parts by number."""
    expires_at = timestamp(signed.expires_at)
    return {
        str(number): {"method": "PUT", "url": part.url, "headers": part.headers, "expires_at": expires_at}
        for number, part in signed.parts.items()
    }


def _challenge(record: Challenge | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {
        "nonce": record.nonce.hex(),
        "ranges": record.ranges,
        "expires_at": timestamp(record.expires_at),
    }


def upload(view: UploadView) -> dict[str, Any]:
    """An upload, as every upload call but /parts answers it."""
    record = view.upload
    count, done = record.part_count, record.state == "done"
    received, missing = ([(1, count)] if count else [], []) if done else ranges.ranges_of_bits(record.received, count)
    answer: dict[str, Any] = {
        "id": record.id.hex(),
        "state": record.state,
        "name": record.name,
        "size": record.size,
        "digest": None if record.digest is None else record.digest.hex(),
        "content_type": record.content_type,
        "part_size": record.part_size,
        "part_count": count,
        "storage": record.storage,
        "created_at": timestamp(record.created_at),
        "expires_at": timestamp(record.expires_at),
        "challenge": _challenge(view.challenge),
        "file": None if view.file is None else file(view.file),
        "received": received,
        "missing": missing,
        "received_bytes": sum(_bytes(each, record) for each in received),
        "error": record.failure,
    }
    answer["percent"] = 100.0 if done else round(100 * answer["received_bytes"] / max(record.size, 1), 2)
    if view.parts is not None:
        answer["parts"] = parts(view.parts)
    return answer


def _bytes(parts: tuple[int, int], upload: Upload) -> int:
    first, last = parts
    return min(last * upload.part_size, upload.size) - (first - 1) * upload.part_size


def error(problem: Problem, request_id: str) -> dict[str, Any]:
    """An error's body."""
    return {"code": problem.kind.code, "message": problem.message, "request_id": request_id, **problem.details}


def transfer(view: TransferView) -> dict[str, Any]:
    """A transfer."""
    row = view.transfer
    return {
        "id": row.id.hex(),
        "state": row.state,
        "from": row.source,
        "to": row.destination,
        "policy": row.policy,
        "delete_source": row.delete_source,
        "keep_for": row.keep_for if row.delete_source else None,
        "after": row.delay,
        "planned": row.planned,
        "items": row.items,
        "bytes": row.bytes,
        "done_items": row.done_items,
        "done_bytes": row.done_bytes,
        "skipped_items": row.skipped_items,
        "skipped_bytes": row.skipped_bytes,
        "failed_items": row.failed_items,
        "failed_bytes": row.failed_bytes,
        "unfinished_bytes": row.live_bytes,
        "rate": view.rate,
        "seconds_left": view.seconds_left,
        "reasons": dict(view.reasons),
        "failures": [
            {"blob": f.blob_id.hex(), "size": f.size, "phase": f.phase, "reason": f.reason, "message": f.message}
            for f in view.failures
        ],
        "created_at": timestamp(row.created_at),
        "ended_at": None if row.ended_at is None else timestamp(row.ended_at),
    }


def dry_run(found: DryRun) -> dict[str, Any]:
    """What a transfer would copy."""
    return {"dry_run": True, "items": found.items, "bytes": found.bytes, "there_items": found.there}


_encoder: Final = msgspec.json.Encoder()


def encode(value: Mapping[str, Any]) -> bytes:
    """JSON."""
    return _encoder.encode(value)
