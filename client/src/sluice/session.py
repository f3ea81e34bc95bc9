"""The session: access tokens, renewed by one thread of one process at a time.

A session is used for the origin that it was made at, and for no other.

A refresh token is good for one use; a second use ends the session. So the credentials say *before* it is sent that it
is on its way (``in_doubt``): a process that finds that after a lost answer, or after a kill, signs in instead.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from sluice.credentials import Credentials, CredentialStore, MemoryStore
from sluice.errors import APIError, NetworkError, SignInNeeded
from sluice.transport import Repeat, Transport

RENEW_BEFORE = 60.0
"""A token is renewed this many seconds before its end, or a fourth of its lifetime if that is less."""

Password = Callable[[], "tuple[str, str] | None"]
"""Returns username and password; None if they are not known."""


class Session:
    """See the module's docstring.

    Args:
        password: called if a new sign-in is the only way to a session.
        fixed_token: an access token that is used as it is, and never renewed.
    """

    def __init__(
        self,
        transport: Transport,
        store: CredentialStore,
        password: Password = lambda: None,
        fixed_token: str | None = None,
    ) -> None:
        self._transport = transport
        self._origin = transport.origin
        self._store = store
        self._password = password
        self._fixed_token = fixed_token
        self._current: Credentials | None = None
        self._lock = threading.Lock()

    @property
    def username(self) -> str:
        """The name of the signed-in user; empty if it is not known here."""
        found = self._current or self._store.load(self._origin)
        return found.username if found else ""

    def token(self) -> str:
        """An access token that is good for a while. Raises SignInNeeded."""
        if self._fixed_token is not None:
            return self._fixed_token
        current = self._current
        if current is not None and _fresh(current):
            return current.access_token
        return self._renew(None)

    def renew(self, refused: str) -> str:
        """Another access token than one that the server refused. Raises SignInNeeded."""
        if self._fixed_token is not None:
            raise SignInNeeded("the access token is not good any more")
        return self._renew(refused)

    def sign_in(self, username: str, password: str) -> None:
        """Opens a new session and keeps it."""
        with self._lock, self._store.locked():
            self._keep(self._sign_in(username, password))

    def sign_out(self) -> None:
        """Ends the session, on the server and here."""
        with self._lock, self._store.locked():
            found = self._current or self._store.load(self._origin)
            self._current = None
            self._store.delete(self._origin)
        if found is not None:
            try:
                self._transport.call("DELETE", "/sessions/current", token=found.access_token)
            except APIError as ex:
                if ex.status != 401:
                    raise

    def forget(self) -> None:
        """The session has ended on the server: it is forgotten here."""
        with self._lock, self._store.locked():
            self._current = None
            self._store.delete(self._origin)

    def after_fork(self) -> None:
        """In a child: the access token is good in both processes, the refresh token in the parent alone."""
        self._lock = threading.Lock()
        if isinstance(self._store, MemoryStore):
            self._store.after_fork()

    def _renew(self, refused: str | None) -> str:
        with self._lock, self._store.locked():
            for known in (self._current, self._store.load(self._origin)):
                if known is not None and known.access_token != refused and _fresh(known):
                    self._current = known
                    return known.access_token
            stored = self._store.load(self._origin)
            renewed = self._refresh(stored) if stored is not None and not stored.in_doubt else None
            if renewed is None:
                renewed = self._anew(stored, refused)
            if renewed is not stored:
                self._keep(renewed)
            return renewed.access_token

    def _refresh(self, stored: Credentials) -> Credentials | None:
        """Returns new tokens; None if the old refresh token is used up, or may be."""
        if not self._store.save(self._origin, replace(stored, in_doubt=True)):
            return None  # another process would use the same refresh token once more
        body = {"refresh_token": stored.refresh_token}
        try:
            _, answer = self._transport.call("POST", "/sessions/refresh", body, repeat=Repeat.UNSENT)
        except APIError as ex:
            if ex.status in (400, 401):
                return None
            self._store.save(self._origin, stored)
            raise
        except NetworkError as ex:
            if ex.may_have_arrived:
                return None
            self._store.save(self._origin, stored)
            raise
        return _credentials(answer, stored.username)

    def _anew(self, stored: Credentials | None, refused: str | None) -> Credentials:
        """A session by password; without one, the old access token for as long as it lasts."""
        pair = self._password()
        if pair is not None:
            return self._sign_in(*pair)
        if stored is not None and stored.access_token != refused and stored.expires_at > time.time():
            return stored
        if stored is None:
            raise SignInNeeded(f"nobody is signed in at {self._origin}")
        raise SignInNeeded("the session has ended; sign in again")

    def _sign_in(self, username: str, password: str) -> Credentials:
        _, answer = self._transport.call("POST", "/sessions", {"username": username, "password": password})
        return _credentials(answer, username)

    def _keep(self, credentials: Credentials) -> None:
        self._store.save(self._origin, credentials)
        self._current = credentials


def _fresh(credentials: Credentials) -> bool:
    return time.time() < credentials.renew_at


def _credentials(answer: dict[str, object], username: str) -> Credentials:
    expires_in = answer["expires_in"]
    assert isinstance(expires_in, int)
    now = time.time()
    return Credentials(
        str(answer["access_token"]),
        str(answer["refresh_token"]),
        expires_at=now + expires_in,
        renew_at=now + expires_in - min(RENEW_BEFORE, expires_in / 4),
        username=username,
    )
