"""Tokens as the gateway signs them, and tokens that are almost right; docs/design.md, "Tokens"."""

import base64
import hashlib
import hmac
import json
import os
import time
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def sign(key: str, purpose: str, claims: dict[str, Any] | bytes) -> str:
    """A token; valid if the key is the gateway's. Claims of links are bytes."""
    moment, value = int(time.time()), claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signed = f"{_encode(value)}.{_encode(moment.to_bytes(4))}"
    derived = hmac.digest(key.encode(), purpose.encode(), hashlib.sha256)
    return f"{signed}.{_encode(hmac.digest(derived, signed.encode(), hashlib.sha256))}"


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a token."""
    claims: dict[str, Any] = json.loads(bytes_of(token))
    return claims


def bytes_of(token: str) -> bytes:
    """The bytes that a token signs; of a sealed token, all of it."""
    value = token.split(".")[0]
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))


def unseal(key: str, token: str) -> dict[str, Any]:
    """The claims of a sealed token, decrypted with the gateway's key."""
    sealed = bytes_of(token)
    claims: dict[str, Any] = json.loads(_cipher(key).decrypt(sealed[:12], sealed[12:], None))
    return claims


def seal(key: str, claims: dict[str, Any]) -> str:
    """A sealed token; valid if the key is the gateway's."""
    nonce = os.urandom(12)
    return _encode(nonce + _cipher(key).encrypt(nonce, json.dumps(claims).encode(), None))


def _cipher(key: str) -> AESGCM:
    return AESGCM(hmac.digest(key.encode(), b"sealed part", hashlib.sha256))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def flipped(token: str, position: int) -> str:
    """The token with one bit of one character's value flipped."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    old = token[position]
    new = alphabet[alphabet.index(old) ^ 1] if old in alphabet else "A"
    return token[:position] + new + token[position:][1:]
