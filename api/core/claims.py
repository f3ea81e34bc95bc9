"""What a link's token says, as bytes: JSON of the same would make an address of twice the length.

    1   what the answer's Content-Disposition is: 0 attachment, 1 inline
    8   the link's id, random
    16  the file's id
    4   the generation of links that it belongs to
    4   its expiry, seconds since 1970

33 bytes, big-endian, so that base64url has 44 characters for them and no bit to spare. `lua/sluice/identity/token.lua`
reads them, too. The edge asks whose the file is, its name, its tier and where its bytes lie
(`api.files.service.Target`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

_LAYOUT: Final = struct.Struct(">B8s16sII")
_DISPOSITIONS: Final = ("attachment", "inline")


@dataclass(frozen=True, slots=True)
class LinkClaims:
    """What a link's token says.

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
        """Raises ValueError where these are no such bytes."""
        if len(data) != _LAYOUT.size or data[0] >= len(_DISPOSITIONS):
            raise ValueError("these are no link's claims")
        place, link_id, file_id, generation, exp = _LAYOUT.unpack(data)
        return cls(link_id, file_id, generation, _DISPOSITIONS[place], exp)
