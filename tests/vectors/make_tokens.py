"""Writes tokens.json: good and bad tokens that Python's and Lua's tests both read.

    python tests/vectors/make_tokens.py            writes the file beside this one
    python tests/vectors/make_tokens.py --check    fails when the file is not what would be written

Made by itsdangerous, struct and cryptography, not by the project's own code. ``why`` is "expired" for tokens that only
time has ended.
"""

import hashlib
import hmac
import json
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from itsdangerous import TimestampSigner
from itsdangerous.encoding import base64_decode, base64_encode

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
    "link": {"jti": _id("link")[:16], "file": _id("file"), "gen": 3, "disp": "attachment", "exp": FOREVER},
    "part": {
        "upload": _id("upload"),
        "part": 10_000,
        "size": 8 * 2**20,
        "sub": _id("user"),
        "sid": _id("session"),
        "gen": 0,
        "tier": "default",
        "exp": FOREVER,
    },
}


def sign(purpose: str, value: bytes, keys: Sequence[str] = KEYS, signed_at: int = SIGNED_AT) -> str:
    """Signs any bytes as the value, as the API signs base64url(JSON)."""
    signer = TimestampSigner(list(keys), salt=purpose, key_derivation="hmac", digest_method=hashlib.sha256)
    with mock.patch.object(signer, "get_timestamp", return_value=signed_at):
        return signer.sign(value).decode()


def _json(claims: Any) -> bytes:
    return json.dumps(claims, separators=(",", ":"), ensure_ascii=False).encode()


def pack(claims: Mapping[str, Any]) -> bytes:
    """A link's claims in bytes."""
    ids = (bytes.fromhex(claims["jti"]), bytes.fromhex(claims["file"]))
    return struct.pack(">B8s16sII", ("attachment", "inline").index(claims["disp"]), *ids, claims["gen"], claims["exp"])


def seal(text: bytes, key: str = KEYS[-1], nonce: bytes | None = None) -> str:
    """Seals any bytes as the API seals a part's claims; the nonce follows from them, so that vectors stay."""
    nonce = hashlib.sha256(text).digest()[:12] if nonce is None else nonce
    cipher = AESGCM(hmac.digest(key.encode(), b"sealed part", "sha256"))
    return base64_encode(nonce + cipher.encrypt(nonce, text, None)).decode()


def sign_claims(purpose: str, claims: Any, keys: Sequence[str] = KEYS) -> str:
    """The token of a purpose."""
    if purpose == "part":
        return seal(_json(claims), keys[-1])
    return sign(purpose, base64_encode(pack(claims) if purpose == "link" else _json(claims)), keys)


def _flip(token: str, segment: int) -> str:
    """Flips one bit of the first byte that a segment's text stands for."""
    parts = token.split(".")
    first = ALPHABET[ALPHABET.index(parts[segment][0]) ^ 1]
    parts[segment] = first + parts[segment][1:]
    return ".".join(parts)


def _respell(token: str) -> str:
    """The token with another last character, and equal signature bytes: the lowest two bits are unused."""
    return token[:-1] + ALPHABET[ALPHABET.index(token[-1]) | 1]


def _valid() -> Iterator[dict[str, Any]]:
    for purpose, claims in CLAIMS.items():
        yield {"purpose": purpose, "token": sign_claims(purpose, claims), "claims": claims}
        old = {**claims, "exp": FOREVER - 1}
        yield {"purpose": purpose, "token": sign_claims(purpose, old, KEYS[:1]), "claims": old}
    to = f"http://10.0.0.1:8480/b/{'k' * 60}?X-Amz-Credential=a%2Fb&X-Amz-Signature={'5' * 64}"
    proxied = {**CLAIMS["part"], "storage": "main", "to": to, "sha256": "0" * 64, "whole": True}
    yield {"purpose": "part", "token": sign_claims("part", proxied), "claims": proxied}
    least = {"jti": "0" * 16, "file": "0" * 32, "gen": 0, "disp": "inline", "exp": SIGNED_AT + 2}
    yield {"purpose": "link", "token": sign_claims("link", least), "claims": least}
    most = {"jti": "f" * 16, "file": "f" * 32, "gen": 2**32 - 1, "disp": "attachment", "exp": 2**32 - 1}
    yield {"purpose": "link", "token": sign_claims("link", most), "claims": most}
    claims = CLAIMS["access"]
    yield {"purpose": "access", "token": sign_claims("access", claims, [RETIRED]), "claims": claims, "keys": [RETIRED]}


def _invalid() -> Iterator[dict[str, Any]]:
    yield from _badly_signed("access", _bad_json)
    yield from _badly_signed("link", _bad_bytes)
    yield from ({"purpose": "part", "token": text, "why": why} for why, text in _badly_sealed().items())
    for purpose in CLAIMS:
        for other in CLAIMS:
            if other != purpose:
                yield {"purpose": purpose, "token": sign_claims(other, CLAIMS[other]), "why": f"of purpose {other}"}


def _badly_signed(purpose: str, more: Callable[[], Mapping[str, str]]) -> Iterator[dict[str, Any]]:
    claims = CLAIMS[purpose]
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
        "claims are nothing": sign(purpose, base64_encode(b"{}")),
        "claims are not base64url": sign(purpose, b"!!!!"),
        **{
            f"signed for {other}": sign(other, value.encode())
            for other in ("refresh", "part", *CLAIMS)
            if other != purpose
        },
        **more(),
    }
    yield from ({"purpose": purpose, "token": text, "why": why} for why, text in bad.items())


def _bad_json() -> Mapping[str, str]:
    claims = CLAIMS["access"]
    return {
        "no expiry": sign_claims("access", {k: v for k, v in claims.items() if k != "exp"}),
        "expiry is text": sign_claims("access", {**claims, "exp": str(FOREVER)}),
        "expiry is null": sign_claims("access", {**claims, "exp": None}),
        "claims are a list": sign_claims("access", [1, 2]),
        "claims are a number": sign_claims("access", 1),
        "claims are no JSON": sign("access", base64_encode(b'{"exp":')),
        "too long": sign_claims("access", {**claims, "name": "n" * 4096}),
    }


def _bad_bytes() -> Mapping[str, str]:
    data = pack(CLAIMS["link"])
    texts = {
        "a byte less": data[:-1],
        "a byte more": data + b"\0",
        "a byte in front": b"\0" + data,
        "another disposition": b"\2" + data[1:],
        "the last disposition": b"\xff" + data[1:],
        "claims are JSON": _json({**CLAIMS["link"], "exp": FOREVER}),
        "too long": data * 60,
    }
    return {why: sign("link", base64_encode(text)) for why, text in texts.items()}


def _badly_sealed() -> Mapping[str, str]:
    claims = CLAIMS["part"]
    token = sign_claims("part", claims)
    sealed = base64_decode(token)

    def flipped(at: int) -> str:
        return base64_encode(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]).decode()

    return {
        "bit flipped in the nonce": flipped(0),
        "bit flipped in the first byte": flipped(12),
        "bit flipped in the last byte": flipped(len(sealed) - 17),
        "bit flipped in the tag": flipped(len(sealed) - 1),
        "a byte less": base64_encode(sealed[:-1]).decode(),
        "a byte more": base64_encode(sealed + b"\0").decode(),
        "a nonce alone": base64_encode(sealed[:12]).decode(),
        "nonce and tag alone": base64_encode(sealed[:12] + sealed[-16:]).decode(),
        "a byte": "AA",
        "nothing was sealed": seal(b""),
        "padded": token + "=",
        "cut": token[:-1],
        "twice": token + token,
        "empty": "",
        "dots": "..",
        "a dot": f"{token[:40]}.{token[40:]}",
        "space before": f" {token}",
        "space after": f"{token} ",
        "newline after": f"{token}\n",
        "NUL after": f"{token}\0",
        "upper case": token.upper(),
        "standard alphabet": f"+/{token[2:]}",
        "sealed with a retired key": sign_claims("part", claims, [RETIRED]),
        "expired": sign_claims("part", {**claims, "exp": SIGNED_AT}),
        "no expiry": sign_claims("part", {k: v for k, v in claims.items() if k != "exp"}),
        "no session": sign_claims("part", {k: v for k, v in claims.items() if k != "sid"}),
        "expiry is text": sign_claims("part", {**claims, "exp": str(FOREVER)}),
        "claims are a list": seal(b"[1,2]"),
        "claims are a number": seal(b"1"),
        "claims are no JSON": seal(b'{"exp":'),
        "signed as before": sign("part", base64_encode(_json(claims))),
        "too long": sign_claims("part", {**claims, "name": "n" * 4096}),
    }


def render() -> str:
    """The file's text."""
    vectors = {"keys": KEYS, "valid": list(_valid()), "invalid": list(_invalid())}
    return json.dumps(vectors, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if FILE.read_text() == render() else f"{FILE.name} is not what make_tokens.py writes")
    FILE.write_text(render())
