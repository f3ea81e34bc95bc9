"""Signed tokens, in itsdangerous' format, so that Lua verifies the same bytes.

``value.timestamp.signature``: value is base64url(JSON claims), timestamp the seconds since 1970 as base64url of
a big-endian integer, and signature HMAC-SHA256(HMAC-SHA256(key, salt), "value.timestamp"), all without padding
(itsdangerous ``TimestampSigner`` with ``key_derivation="hmac"``). The salt is the purpose, so a token of one
purpose never passes as another. Expiry is the claim ``exp``; the timestamp says only when it was signed.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from itsdangerous import BadData, TimestampSigner
from itsdangerous.encoding import base64_decode, base64_encode, int_to_bytes

from api.core.errors import TokenError, TokenExpired
from api.core.keys import Key, Keyring, signing

PURPOSES: Final = ("access", "refresh", "link", "part", "cursor")

MAX_LENGTH: Final = 2048
"""Bytes of a token's text; the edge refuses longer ones unread."""

MAX_PART_LENGTH: Final = 4096
"""The same of a part's token, which may hold another storage's URL; the API verifies none."""

_SIGNATURE_LENGTH: Final = 43
_SEAL: Final = "seal"
"""A salt like a purpose's, of which there are no tokens."""
_encoder: Final = msgspec.json.Encoder()


def seal_message(claims: Mapping[str, Any]) -> bytes:
    """What a seal depends on: all that the sealed signature was made of, so that no two signatures share a pad."""
    return f"{claims['size']}\n{claims['sha256']}\n{claims['to']}".encode()


class _Signers:
    """What is made once of a list of keys."""

    def __init__(self, keys: tuple[Key, ...]) -> None:
        self.keys = keys
        self.verifying = {purpose: self._signer([key.text for key in keys], purpose) for purpose in PURPOSES}
        self.salted = {
            (key, purpose): self._signer([key.text], purpose).derive_key()
            for key in keys
            for purpose in (*PURPOSES, _SEAL)
        }

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

    def sign(
        self, purpose: str, claims: Mapping[str, Any], *, now: float | None = None, sealed: bytes | None = None
    ) -> str:
        """A token over ``claims``, which hold ``exp`` in epoch seconds.

        The bytes are those of ``TimestampSigner.sign``, made without its set-up of a signer per call: part
        tokens are signed a thousand at a time.

        Args:
            sealed: 32 bytes for the edge's eyes alone, of a part's token: its claim ``seal`` is these bytes XOR an HMAC
                over what they are the signature of. A pseudorandom function's value that is used for one message
                only is a one-time pad; that nobody changes it is the token's own signature's doing.
        """
        moment, made = int(time.time() if now is None else now), self._signers()
        signer = signing(made.keys, moment)
        key = made.salted[signer, purpose]
        if sealed is not None:
            pad = hmac.digest(made.salted[signer, _SEAL], seal_message(claims), "sha256")
            claims = {**claims, "seal": bytes(a ^ b for a, b in zip(pad, sealed, strict=True)).hex()}
        signed = base64_encode(_encoder.encode(claims)) + b"." + base64_encode(int_to_bytes(moment))
        signature = hmac.digest(key, signed, "sha256")
        return (signed + b"." + base64_encode(signature)).decode()

    def verify(self, purpose: str, token: str, *, now: float | None = None) -> dict[str, Any]:
        """The claims of a good token.

        Raises:
            TokenExpired: signed by us, but its time is over.
            TokenError: anything else that is wrong with it.
        """
        signature = token.rpartition(".")[2]
        if len(token) > MAX_LENGTH or len(signature) != _SIGNATURE_LENGTH or not token.isascii():
            raise TokenError("malformed")
        try:
            # itsdangerous takes several spellings of one signature (the last character's unused bits,
            # padding); only the canonical one is a token.
            if base64_encode(base64_decode(signature)).decode() != signature:
                raise TokenError("not canonical")
            value = self._signers().verifying[purpose].unsign(token.encode())
            claims = msgspec.json.decode(base64_decode(value))
        except (BadData, msgspec.DecodeError, ValueError) as ex:
            raise TokenError("signature or claims do not verify") from ex
        if not isinstance(claims, dict) or not isinstance(claims.get("exp"), int):
            raise TokenError("no expiry")
        if claims["exp"] <= (time.time() if now is None else now):
            raise TokenExpired("expired")
        return claims

    def derive(self, *parts: bytes, at: float | None = None) -> bytes:
        """32 secret bytes that depend on ``parts`` and on the key that signed at a moment, now by default, only."""
        key = signing(self._signers().keys, time.time() if at is None else at)
        message = b"".join(len(part).to_bytes(4) + part for part in parts)
        return hmac.digest(key.text.encode(), message, "sha256")
