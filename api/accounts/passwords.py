"""Password hashes, a bounded number at a time.

argon2id takes 20 to 30 ms of a core and 19 MiB for each. A flood of sign-ins must not take every core and every thread
of the API: in each process one hash is computed at a time, and two calls wait for their turn. Any further one is
refused immediately, so that the other threads go on with other calls.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from threading import BoundedSemaphore
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from api.core import errors
from api.core.errors import Problem

_NOT_SET: Final = "0" * 43
"""Hashed at start-up. Compared with if the user does not exist, so that sign-in takes equally long."""
_COMPUTED, _WAITING = 1, 2
_MOST_SECONDS: Final = 5.0


class Passwords:
    """Makes and verifies password hashes; see the module's docstring.

    Raises:
        Problem: SIGNIN_BUSY, from `hash` and `matches`.
    """

    def __init__(self, hasher: PasswordHasher) -> None:
        self._hasher = hasher
        self._of_nobody = hasher.hash(_NOT_SET)
        self._computed = BoundedSemaphore(_COMPUTED)
        self._taken = BoundedSemaphore(_COMPUTED + _WAITING)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._taken.acquire(blocking=False):
            raise Problem(errors.SIGNIN_BUSY)
        try:
            if not self._computed.acquire(timeout=_MOST_SECONDS):
                raise Problem(errors.SIGNIN_BUSY)
            try:
                yield
            finally:
                self._computed.release()
        finally:
            self._taken.release()

    def hash(self, password: str) -> str:
        """An argon2id hash. Raises Problem PASSWORD_INVALID."""
        if not 8 <= len(password) <= 1024:
            raise Problem(errors.PASSWORD_INVALID)
        with self._turn():
            return self._hasher.hash(password)

    def matches(self, stored: str | None, password: str) -> bool:
        """Whether a password is the one of a hash; None, of a user that does not exist, takes equally long."""
        with self._turn():
            try:
                return self._hasher.verify(stored or self._of_nobody, password[:1025]) and stored is not None
            except VerificationError:
                return False

    def is_outdated(self, stored: str) -> bool:
        """Whether a hash was made with other parameters than are in force."""
        return self._hasher.check_needs_rehash(stored)
