"""Writes tokens.json: good and bad tokens that Python's and Lua's tests both read.

    python tests/vectors/make_tokens.py            writes the file beside this one
    python tests/vectors/make_tokens.py --check    fails when the file is not what would be written

Made by itsdangerous itself, not by the project's own code. ``why`` is "expired" for tokens that only time has ended.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from itsdangerous import TimestampSigner
from itsdangerous.encoding import base64_encode

FILE = Path(__file__).with_name("tokens.json")
KEYS = [hashlib.sha256(f"key {n}".encode()).hexdigest() for n in (1, 2)]
RETIRED = hashlib.sha256(b"retired").hexdigest()
SIGNED_AT = 1_700_000_000
FOREVER = 4_102_444_800  # 2100-01-01
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def _id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


CLAIMS: dict[str, dict[str, Any]] = {
    "access": {
        "sid": _id("session"),
        "sub": _id("user"),
        "gen": 3,
        "role": "user",
        "tier": "default",
        "exp": FOREVER,
    },
    "link": {
        "jti": _id("link"),
        "file": _id("file"),
        "fgen": 0,
        "blob": _id("blob"),
        "size": 2**40 + 1,
        "sub": _id("user"),
        "gen": 3,
        "tier": "default",
        "disp": "attachment",
        "name": 'Grüße "an" 世界 🚀/\\;%.tar.gz',
        "type": "application/x-tar",
        "exp": FOREVER,
    },
    "part": {"upload": _id("upload"), "part": 10_000, "size": 8 * 2**20, "sub": _id("user"), "gen": 0, "exp": FOREVER},
}


def sign(purpose: str, value: bytes, keys: Sequence[str] = KEYS, signed_at: int = SIGNED_AT) -> str:
    """Signs any bytes as the value, as the API signs base64url(JSON)."""
    signer = TimestampSigner(list(keys), salt=purpose, key_derivation="hmac", digest_method=hashlib.sha256)
    with mock.patch.object(signer, "get_timestamp", return_value=signed_at):
        return signer.sign(value).decode()


def sign_claims(purpose: str, claims: Any, keys: Sequence[str] = KEYS) -> str:
    text = json.dumps(claims, separators=(",", ":"), ensure_ascii=False)
    return sign(purpose, base64_encode(text.encode()), keys)


def _flip(token: str, segment: int) -> str:
    """Flips one bit of the first byte that a segment's text stands for."""
    parts = token.split(".")
    first = ALPHABET[ALPHABET.index(parts[segment][0]) ^ 1]
    parts[segment] = first + parts[segment][1:]
    return ".".join(parts)


def _respell(token: str) -> str:
    """The same signature bytes with another last character: its lowest two bits stand for nothing."""
    return token[:-1] + ALPHABET[ALPHABET.index(token[-1]) | 1]


def _valid() -> Iterator[dict[str, Any]]:
    for purpose, claims in CLAIMS.items():
        yield {"purpose": purpose, "token": sign_claims(purpose, claims), "claims": claims}
        old = {**claims, "exp": FOREVER - 1}
        yield {"purpose": purpose, "token": sign_claims(purpose, old, KEYS[:1]), "claims": old}
    to = f"http://10.0.0.1:8480/b/{'k' * 60}?X-Amz-Credential=a%2Fb"
    proxied = {**CLAIMS["part"], "storage": "main", "to": to, "sha256": "0" * 64}
    yield {"purpose": "part", "token": sign_claims("part", proxied), "claims": proxied}
    small = {**CLAIMS["link"], "name": "", "type": "", "size": 0, "disp": "inline"}
    yield {"purpose": "link", "token": sign_claims("link", small), "claims": small}
    claims = CLAIMS["access"]
    yield {"purpose": "access", "token": sign_claims("access", claims, [RETIRED]), "claims": claims, "keys": [RETIRED]}


def _invalid() -> Iterator[dict[str, Any]]:
    for purpose, claims in CLAIMS.items():
        token = sign_claims(purpose, claims)
        value, timestamp, signature = token.split(".")
        bad: Mapping[str, str] = {
            "bit flipped in the claims": _flip(token, 0),
            "bit flipped in the timestamp": _flip(token, 1),
            "bit flipped in the signature": _flip(token, 2),
            "signature not canonical": _respell(token),
            "signature padded": token + "=",
            "signature cut": token[:-1],
            "signature longer": token + "A",
            "signature empty": f"{value}.{timestamp}.",
            "claims padded": f"{value}=.{timestamp}.{signature}",
            "no timestamp": f"{value}.{signature}",
            "timestamp empty": f"{value}..{signature}",
            "claims empty": f".{timestamp}.{signature}",
            "claims alone": value,
            "empty": "",
            "dots": "..",
            "a fourth piece": f"{token}.{signature}",
            "a piece in front": f"A.{token}",
            "space before": f" {token}",
            "space after": f"{token} ",
            "newline after": f"{token}\n",
            "NUL after": f"{token}\0",
            "upper case": token.upper(),
            "standard alphabet": f"{value}.{timestamp}.{'+/' + signature[2:]}",
            "signed by a retired key": sign_claims(purpose, claims, [RETIRED]),
            "expired": sign_claims(purpose, {**claims, "exp": SIGNED_AT}),
            "no expiry": sign_claims(purpose, {k: v for k, v in claims.items() if k != "exp"}),
            "expiry is text": sign_claims(purpose, {**claims, "exp": str(FOREVER)}),
            "expiry is null": sign_claims(purpose, {**claims, "exp": None}),
            "claims are a list": sign_claims(purpose, [1, 2]),
            "claims are a number": sign_claims(purpose, 1),
            "claims are no JSON": sign(purpose, base64_encode(b'{"exp":')),
            "claims are nothing": sign(purpose, base64_encode(b"{}")),
            "claims are not base64url": sign(purpose, b"!!!!"),
            "too long": sign_claims(purpose, {**claims, "name": "n" * 4096}),
        }
        yield from ({"purpose": purpose, "token": text, "why": why} for why, text in bad.items())
        for other in CLAIMS:
            if other != purpose:
                yield {"purpose": purpose, "token": sign_claims(other, CLAIMS[other]), "why": f"of purpose {other}"}
                yield {"purpose": purpose, "token": sign_claims(other, claims), "why": f"signed for {other}"}


def render() -> str:
    """The file's text."""
    vectors = {"keys": KEYS, "valid": list(_valid()), "invalid": list(_invalid())}
    return json.dumps(vectors, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if FILE.read_text() == render() else f"{FILE.name} is not what make_tokens.py writes")
    FILE.write_text(render())
