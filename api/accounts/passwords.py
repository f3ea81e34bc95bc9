"""Password hashes, a bounded number at a time.

argon2id takes 20 to 30 ms of a core and 19 MiB for each. A flood of sign-ins must not take every core and every thread
of the API: in each process one thread computes hashes, at a lower priority than whatever else there is to do, and two
calls wait for it. Any further one is refused immediately, before anything is looked up for it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from api.core import errors
from api.core.errors import Problem

_NOT_SET: Final = "0" * 43
"""Hashed at start-up. Compared with if the user does not exist, so that sign-in takes equally long."""
_CALLS: Final = 3
"""Calls of a process that may need a hash at the same time: one is served, two wait."""
_NICE: Final = 10
"""A busy processor gives the thread a tenth of what it gives to others (sched(7)); an idle one, all it needs."""


def _be_nice() -> None:
    # on Linux a priority is a thread's own; if it may not be changed, hashes are computed all the same
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


class Passwords:
    """Makes and verifies password hashes, for calls that have a `turn`; see the module's docstring."""

    def __init__(self, hasher: PasswordHasher) -> None:
        self._hasher = hasher
        self._of_nobody = hasher.hash(_NOT_SET)
        self._turns = BoundedSemaphore(_CALLS)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hash", initializer=_be_nice)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """The context in which a call computes password hashes. Raises Problem SIGNIN_BUSY."""
        if not self._turns.acquire(blocking=False):
            raise Problem(errors.SIGNIN_BUSY)
        try:
            yield
        finally:
            self._turns.release()

    def hash(self, password: str) -> str:
        """An argon2id hash. Raises Problem PASSWORD_INVALID."""
        if not 8 <= len(password) <= 1024:
            raise Problem(errors.PASSWORD_INVALID)
        return self._thread.submit(self._hasher.hash, password).result()

    def matches(self, stored: str | None, password: str) -> bool:
        """Whether a password is the one of a hash; None, of a user that does not exist, takes equally long."""
        try:
            verified = self._thread.submit(self._hasher.verify, stored or self._of_nobody, password[:1025])
            return verified.result() and stored is not None
        except VerificationError:
            return False

    def is_outdated(self, stored: str) -> bool:
        """Whether a hash was made with other parameters than are in force."""
        return self._hasher.check_needs_rehash(stored)
