"""SHA-256 with a state that can be saved, so that another process can continue to hash a large object.

hashlib cannot do that. OpenSSL's SHA256_Init, _Update and _Final work on a plain struct (SHA256_CTX of openssl/sha.h:
h[8], Nl, Nh, data[16], num, md_len, each of 32 bits). They run the same code as hashlib, at the same speed. If the
library is not found, hashing still works, but the state is None: the hash then has to start again.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
from typing import Any, Final

STATE_BYTES: Final = 112
STATE_PREFIX: Final = b"1" + sys.byteorder[:1].encode()


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
    """A SHA-256 computation.

    Args:
        state: a saved result of `state`; None starts a new hash.
    """

    def __init__(self, state: bytes | None = None) -> None:
        self._own = hashlib.sha256() if _openssl is None else None
        if self._own is None:
            self._context = ctypes.create_string_buffer(STATE_BYTES)
            if state is None:
                _openssl.SHA256_Init(self._context)
            elif not resumes(state):
                raise ValueError("not a state of this hash")
            else:
                self._context.raw = state[len(STATE_PREFIX) :]

    def update(self, data: bytes) -> None:
        """Adds bytes. Releases the GIL."""
        if self._own is not None:
            self._own.update(data)
        else:
            _openssl.SHA256_Update(self._context, data, len(data))

    def digest(self) -> bytes:
        """The hash of the bytes so far."""
        if self._own is not None:
            return self._own.digest()
        out, copy = ctypes.create_string_buffer(32), ctypes.create_string_buffer(self._context.raw, STATE_BYTES)
        _openssl.SHA256_Final(out, copy)
        return out.raw

    def state(self) -> bytes | None:
        """The state for another `SHA256`; None if it cannot be saved."""
        return None if self._own is not None else STATE_PREFIX + self._context.raw


def resumes(state: bytes | None) -> bool:
    """Whether a `SHA256` of this process can continue from this state."""
    return (
        _openssl is not None
        and state is not None
        and state[:2] == STATE_PREFIX
        and len(state) == STATE_BYTES + len(STATE_PREFIX)
    )
