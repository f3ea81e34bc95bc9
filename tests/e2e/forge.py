"""Tokens as only the gateway may sign them, and tokens that are almost right; docs/design.md, "Tokens"."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any


def sign(key: str, purpose: str, claims: dict[str, Any]) -> str:
    """A token; good where the key is the gateway's."""
    moment = int(time.time())
    signed = f"{_encode(json.dumps(claims).encode())}.{_encode(moment.to_bytes(4))}"
    derived = hmac.digest(key.encode(), purpose.encode(), hashlib.sha256)
    return f"{signed}.{_encode(hmac.digest(derived, signed.encode(), hashlib.sha256))}"


def claims_of(token: str) -> dict[str, Any]:
    """What a token says."""
    value = token.split(".")[0]
    return json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def flipped(token: str, position: int) -> str:
    """The token with one bit of one character's value flipped."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    old = token[position]
    new = alphabet[alphabet.index(old) ^ 1] if old in alphabet else "A"
    return token[:position] + new + token[position:][1:]
