"""SHA-256 whose state can be written down, so that hashing a large object goes on in another process.

hashlib cannot do that. OpenSSL's own SHA256_Init, _Update and _Final work on a plain struct (SHA256_CTX of
openssl/sha.h: h[8], Nl, Nh, data[16], num, md_len, each of 32 bits), the same code that hashlib reaches, as fast. Where
the library is not to be found, hashing works and its state is None: then it begins anew.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
from typing import Any, Final

_STATE: Final = 112
_MARK: Final = b"1" + sys.byteorder[:1].encode()


def _library() -> Any:
    try:
        library = ctypes.CDLL("libcrypto.so.3")
        library.SHA256_Update.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        library.SHA256_Init.argtypes = [ctypes.c_void_p]
        library.SHA256_Final.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    except (OSError, AttributeError):
        return None
    return library


_openssl: Final = _library()


class SHA256:
    """A hash in the making.

    Args:
        state: what `state` answered before; None begins anew.
    """

    def __init__(self, state: bytes | None = None) -> None:
        self._own = hashlib.sha256() if _openssl is None else None
        if self._own is None:
            self._context = ctypes.create_string_buffer(_STATE)
            if state is None:
                _openssl.SHA256_Init(self._context)
            elif not resumes(state):
                raise ValueError("not a state of this hash")
            else:
                self._context.raw = state[len(_MARK) :]

    def update(self, data: bytes) -> None:
        """Takes in more bytes; lets go of the GIL."""
        if self._own is not None:
            self._own.update(data)
        else:
            _openssl.SHA256_Update(self._context, data, len(data))

    def digest(self) -> bytes:
        """The hash of what was taken in so far."""
        if self._own is not None:
            return self._own.digest()
        out, copy = ctypes.create_string_buffer(32), ctypes.create_string_buffer(self._context.raw, _STATE)
        _openssl.SHA256_Final(out, copy)
        return out.raw

    def state(self) -> bytes | None:
        """What another `SHA256` goes on from; None where there is no such thing."""
        return None if self._own is not None else _MARK + self._context.raw


def resumes(state: bytes | None) -> bool:
    """Whether a `SHA256` of this process can go on from this state."""
    return _openssl is not None and state is not None and state[:2] == _MARK and len(state) == _STATE + len(_MARK)
