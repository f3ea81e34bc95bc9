"""Tokens that Lua reads as well: signed ones in itsdangerous' format, and sealed ones, which say nothing to a client.

Signed: ``value.timestamp.signature``, where value is base64url(JSON claims) or, of a link, of the bytes of
`api.core.claims`; timestamp the seconds since 1970 as base64url of a big-endian integer, and signature
HMAC-SHA256(HMAC-SHA256(key, salt), "value.timestamp"), all without padding (itsdangerous ``TimestampSigner`` with
``key_derivation="hmac"``). The salt is the purpose, so a token of one purpose never passes as another. Expiry is the
claim ``exp``; the timestamp says only when it was signed.

Sealed, a part's: base64url(nonce ‖ AES-256-GCM of the JSON claims ‖ tag) with HMAC-SHA256(key, "sealed part") as key
and 12 random bytes as its nonce (NIST SP 800-38D section 8.2.2), of which one key may see 2³². It tells the edge how to
store a part (the storage's endpoint, the bucket, a signature), and only the edge may read that.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from itsdangerous import BadData, TimestampSigner
from itsdangerous.encoding import base64_decode, base64_encode, int_to_bytes

from api.core.claims import Claims, LinkClaims, PartClaims
from api.core.errors import TokenError, TokenExpired
from api.core.keys import Key, Keyring, signing

PURPOSES: Final = ("access", "refresh", "link", "cursor")

MAX_LENGTH: Final = 2048
"""Bytes of a token's text; the edge refuses longer ones unread."""

MAX_PART_LENGTH: Final = 4096
"""Bytes of the text of a part's token, which may hold another storage's URL. The API verifies no such token."""

_SIGNATURE_LENGTH: Final = 43
_SEAL: Final = b"sealed part"
_NONCE_LENGTH: Final = 12
_encoder: Final = msgspec.json.Encoder()

C = TypeVar("C", bound=Claims)


class _Signers:
    """Objects that are made once per list of keys."""

    def __init__(self, keys: tuple[Key, ...]) -> None:
        self.keys = keys
        self.verifying = {purpose: self._signer([key.text for key in keys], purpose) for purpose in PURPOSES}
        self.salted = {
            (key, purpose): self._signer([key.text], purpose).derive_key() for key in keys for purpose in PURPOSES
        }
        self.seals = {key: AESGCM(hmac.digest(key.text.encode(), _SEAL, "sha256")) for key in keys}

    @staticmethod
    def _signer(keys: list[str], purpose: str) -> TimestampSigner:
        return TimestampSigner(list(keys), salt=purpose, key_derivation="hmac", digest_method=hashlib.sha256)


class Tokens:
    """Signs and verifies tokens of every purpose.

    Args:
        keys: oldest first; the newest signs, all verify. A ring's keys may change at any time.
    """

    def __init__(self, keys: Sequence[str] | Keyring) -> None:
        self._ring = keys if isinstance(keys, Keyring) else Keyring([Key(text) for text in keys])
        self._made = _Signers(self._ring.current())

    def _signers(self) -> _Signers:
        keys, made = self._ring.current(), self._made
        if keys is not made.keys:
            made = self._made = _Signers(keys)
        return made

    def sign(self, claims: Claims, *, now: float | None = None) -> str:
        """A token that says ``claims``."""
        return self._sign(claims.purpose, _encoder.encode(claims), now)

    def sign_link(self, claims: LinkClaims, *, now: float | None = None) -> str:
        """A link's token."""
        return self._sign("link", claims.pack(), now)

    def _sign(self, purpose: str, value: bytes, now: float | None) -> str:
        """The bytes are those of ``TimestampSigner.sign``, made without its set-up of a signer per call."""
        moment, made = int(time.time() if now is None else now), self._signers()
        key = made.salted[signing(made.keys, moment), purpose]
        signed = base64_encode(value) + b"." + base64_encode(int_to_bytes(moment))
        return (signed + b"." + base64_encode(hmac.digest(key, signed, "sha256"))).decode()

    def verify(self, kind: type[C], token: str, *, now: float | None = None) -> C:
        """The claims of a valid token of this kind.

        Raises:
            TokenExpired: its signature is valid, but it has expired.
            TokenError: anything else that is wrong with it.
        """
        try:
            claims = msgspec.json.decode(self._unsign(kind.purpose, token), type=kind)
        except (msgspec.DecodeError, ValueError) as ex:
            raise TokenError("claims do not decode") from ex
        return _in_time(claims, now)

    def verify_link(self, token: str, *, now: float | None = None) -> LinkClaims:
        """The claims of a link's token, as `verify` returns those of other tokens."""
        try:
            claims = LinkClaims.unpack(self._unsign("link", token))
        except ValueError as ex:
            raise TokenError("claims do not decode") from ex
        if claims.exp <= (time.time() if now is None else now):
            raise TokenExpired("expired")
        return claims

    def _unsign(self, purpose: str, token: str) -> bytes:
        signature = token.rpartition(".")[2]
        if len(token) > MAX_LENGTH or len(signature) != _SIGNATURE_LENGTH or not token.isascii():
            raise TokenError("malformed")
        try:
            # itsdangerous takes several spellings of one signature (the last character's unused bits,
            # padding); only the canonical one is a token.
            if base64_encode(base64_decode(signature)).decode() != signature:
                raise TokenError("not canonical")
            return base64_decode(self._signers().verifying[purpose].unsign(token.encode()))
        except BadData as ex:
            raise TokenError("signature does not verify") from ex

    def seal(self, claims: Claims, *, now: float | None = None) -> str:
        """A part's token, for the edge's eyes alone."""
        made = self._signers()
        cipher = made.seals[signing(made.keys, time.time() if now is None else now)]
        nonce = os.urandom(_NONCE_LENGTH)
        return base64_encode(nonce + cipher.encrypt(nonce, _encoder.encode(claims), None)).decode()

    def unseal(self, token: str, *, now: float | None = None) -> PartClaims:
        """The claims of a part's token. Raises as `verify` does."""
        try:
            if len(token) > MAX_PART_LENGTH or base64_encode(sealed := base64_decode(token)).decode() != token:
                raise TokenError("malformed")
        except (BadData, ValueError) as ex:
            raise TokenError("malformed") from ex
        for cipher in self._signers().seals.values():
            try:
                opened = cipher.decrypt(sealed[:_NONCE_LENGTH], sealed[_NONCE_LENGTH:], None)
                return _in_time(msgspec.json.decode(opened, type=PartClaims), now)
            except (InvalidTag, ValueError):  # ValueError: too short to be one
                continue
        raise TokenError("sealed by nobody of ours")

    def derive(self, *parts: bytes, at: float | None = None) -> bytes:
        """32 secret bytes that depend on ``parts`` and on the key that signed at a moment, now by default, only."""
        key = signing(self._signers().keys, time.time() if at is None else at)
        message = b"".join(len(part).to_bytes(4) + part for part in parts)
        return hmac.digest(key.text.encode(), message, "sha256")


def _in_time(claims: C, now: float | None) -> C:
    if claims.exp <= (time.time() if now is None else now):
        raise TokenExpired("expired")
    return claims
