"""The claims of tokens: one type per purpose. `lua/sluice/identity/token.lua` reads the same claims.

Access, refresh, cursor and part claims are JSON with the names below. A link's claims are bytes, because JSON would
make its address twice as long:

    1   the response's Content-Disposition: 0 attachment, 1 inline
    8   the link's id, random
    16  the file's id
    4   the generation of links that it belongs to
    4   its expiry, seconds since 1970

33 bytes, big-endian, so that base64url has 44 characters for them and no bit to spare. The edge asks the API for the
rest: the file's owner, its name, its tier and the place of its bytes (`api.files.service.Target`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final

from msgspec import Struct, field

_LAYOUT: Final = struct.Struct(">B8s16sII")
_DISPOSITIONS: Final = ("attachment", "inline")


class Claims(Struct, frozen=True):
    """Claims in JSON.

    Attributes:
        exp: when the token expires, epoch seconds.
    """

    purpose: ClassVar[str]

    exp: int


class AccessClaims(Claims, frozen=True):
    """The caller's ids, 32 hexadecimal characters each, and the caller's permissions."""

    purpose: ClassVar[str] = "access"

    session_id: str = field(name="sid")
    user_id: str = field(name="sub")
    generation: int = field(name="gen")
    role: str
    tier: str


class RefreshClaims(Claims, frozen=True):
    """A session, and the secret that is used up by the next refresh."""

    purpose: ClassVar[str] = "refresh"

    session_id: str = field(name="sid")
    secret: str = field(name="jti")


class CursorClaims(Claims, frozen=True):
    """The entry after which the next page of a user's list begins."""

    purpose: ClassVar[str] = "cursor"

    user_id: str = field(name="sub")
    list_name: str = field(name="list")
    after: list[str]


class PartClaims(Claims, frozen=True, omit_defaults=True):
    """One part of an upload.

    Attributes:
        storage: a proxied storage's name; the edge stores the part itself if it is empty.
        url: the proxied storage's own URL, with its signature.
        sha256: the hash that the URL binds.
        whole: the part is the whole object.
    """

    purpose: ClassVar[str] = "part"

    upload_id: str = field(name="upload")
    number: int = field(name="part")
    size: int
    user_id: str = field(name="sub")
    session_id: str = field(name="sid")
    generation: int = field(name="gen")
    tier: str
    storage: str = ""
    url: str = field(name="to", default="")
    sha256: str = ""
    whole: bool = False


@dataclass(frozen=True, slots=True)
class LinkClaims:
    """The claims of a link's token.

    Attributes:
        link_id: 8 bytes.
        file_id: 16 bytes.
        generation: of the file's links and its owner's (`api.files.target_rows`): if either has moved on, the link is
            over.
        disposition: attachment or inline.
        exp: epoch seconds.
    """

    link_id: bytes
    file_id: bytes
    generation: int
    disposition: str
    exp: int

    def pack(self) -> bytes:
        """The bytes above."""
        place = _DISPOSITIONS.index(self.disposition)
        return _LAYOUT.pack(place, self.link_id, self.file_id, self.generation, self.exp)

    @classmethod
    def unpack(cls, data: bytes) -> LinkClaims:
        """The claims in ``data``. Raises ValueError if it does not hold a link's claims."""
        if len(data) != _LAYOUT.size or data[0] >= len(_DISPOSITIONS):
            raise ValueError("these are no link's claims")
        place, link_id, file_id, generation, exp = _LAYOUT.unpack(data)
        return cls(link_id, file_id, generation, _DISPOSITIONS[place], exp)
