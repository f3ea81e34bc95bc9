"""URLs at which nginx takes parts: `/p/TOKEN`, whose token is sealed for the edge."""

from __future__ import annotations

from typing import Any

from api.core.claims import PartClaims
from api.core.errors import StorageError
from api.core.tokens import MAX_PART_LENGTH, Tokens
from api.storage.base import EdgePartURL, MultipartRef, SignedPart
from api.storage.local.storage import PartURL


def at_edge(tokens: Tokens, public_url: str) -> PartURL:
    """Signs the URLs at which nginx stores parts of storage ``local``."""

    def sign(ref: MultipartRef, number: int, length: int, expires_at: int) -> str:
        return f"{public_url}/p/{tokens.seal(_claims(ref, number, length, expires_at))}"

    return sign


def through_edge(tokens: Tokens, public_url: str, storage: str) -> EdgePartURL:
    """Signs the URLs at which nginx passes parts on to a storage.

    The storage's own URL is in the token: only the API, which seals tokens, says where the edge sends a body.
    """

    def sign(ref: MultipartRef, number: int, length: int, expires_at: int, signed: SignedPart) -> str:
        sha256 = signed.headers.get("x-amz-content-sha256", "")
        there = {"storage": storage, "url": signed.url, "sha256": sha256, "whole": ref.is_single}
        token = tokens.seal(_claims(ref, number, length, expires_at, **there))
        if len(token) > MAX_PART_LENGTH:
            raise StorageError(f"a part's token has {len(token)} bytes: the storage's own URL is too long")
        return f"{public_url}/p/{token}"

    return sign


def _claims(ref: MultipartRef, number: int, length: int, expires_at: int, **there: Any) -> PartClaims:
    return PartClaims(
        exp=expires_at,
        upload_id=ref.upload_id,
        number=number,
        size=length,
        user_id=ref.user_id,
        session_id=ref.session_id,
        generation=ref.generation,
        tier=ref.tier,
        **there,
    )
