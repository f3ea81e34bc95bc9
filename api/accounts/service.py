"""Accounts: sign up, sign in, renew, sign out, change; and the identity of a token."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

from argon2 import PasswordHasher

from api.accounts import network_rows, rows
from api.accounts.guesses import Guesses, fingerprint
from api.accounts.names import check_username
from api.accounts.passwords import Passwords
from api.accounts.revocations import Revocations
from api.context import Context
from api.core import errors
from api.core.cache import Cache
from api.core.claims import AccessClaims, Claims, RefreshClaims
from api.core.errors import DuplicateRow, Problem, TokenError, TokenExpired
from api.core.models import Identity, Session, User, new_id
from api.db.pool import Statements

_SEEN_AGAIN: Final = timedelta(days=1)
"""A known network's row is written at most so often."""


C = TypeVar("C", bound=Claims)


@dataclass(frozen=True, slots=True)
class SessionTokens:
    """The tokens of a session, which its client holds."""

    access_token: str
    refresh_token: str
    expires_in: int
    refresh_expires_in: int


class Accounts:
    """See the module's docstring."""

    def __init__(self, context: Context, revocations: Revocations, cache: Cache, hasher: PasswordHasher) -> None:
        self._db = context.db
        self._revocations = revocations
        self._tokens = context.tokens
        self._config = context.config
        self._clock = context.clock
        self._passwords = Passwords(hasher)
        self._guesses = Guesses(cache, context.config)

    # -- accounts

    def sign_up(self, username: str, password: str, code: str | None) -> User:
        """A new account, as SLUICE_SIGNUP allows.

        Raises:
            Problem: SIGNUP_CLOSED, USERNAME_INVALID, PASSWORD_INVALID, USERNAME_TAKEN, SIGNIN_BUSY.
        """
        mode = self._config.signup
        if mode == "closed" or (
            mode == "invite" and not hmac.compare_digest((code or "").encode(), self._config.signup_code.encode())
        ):
            raise Problem(errors.SIGNUP_CLOSED)
        with self._passwords.turn():
            return self.create(username, password, "user")

    def create(self, username: str, password: str, role: str) -> User:
        """Creates an account, without checking whether the caller may."""
        user = User(
            id=new_id(),
            username=check_username(username),
            password_hash=self._passwords.hash(password),
            role=role,
            tier="default",
            generation=0,
            disabled_at=None,
            created_at=self._clock(),
        )
        try:
            rows.insert_user(self._db, user)
        except DuplicateRow as ex:
            raise Problem(errors.USERNAME_TAKEN) from ex
        return user

    def set_tier(self, username: str, tier: str) -> None:
        """Gives an account a tier; tokens that are out name the old one until they expire.

        Raises:
            Problem: USERNAME_INVALID, TIER_UNKNOWN.
        """
        if tier not in self._config.tiers:
            raise Problem(errors.TIER_UNKNOWN, f"{tier} is none of {', '.join(self._config.tiers)} (SLUICE_TIERS).")
        if rows.user_by_name(self._db, username) is None:
            raise Problem(errors.USERNAME_INVALID, "There is no such account.")
        rows.set_tier(self._db, username, tier)

    def me(self, identity: Identity) -> User:
        """The account that asks."""
        user = rows.user_by_id(self._db, identity.user_id)
        if user is None or user.disabled_at is not None:
            raise Problem(errors.TOKEN_REVOKED)
        return user

    def change_password(self, identity: Identity, current: str, new: str) -> User:
        """A new password; every session of the account ends, this one too.

        Raises:
            Problem: PASSWORD_WRONG, PASSWORD_INVALID, SIGNIN_LIMITED, SIGNIN_BUSY.
        """
        with self._passwords.turn():
            return self._change_password(identity, current, new)

    def _change_password(self, identity: Identity, current: str, new: str) -> User:
        user = self.me(identity)
        self._guesses.count_change(identity.session_id)
        if not self._passwords.matches(user.password_hash, current):
            raise Problem(errors.PASSWORD_WRONG)
        self._guesses.changed(identity.session_id)
        password_hash = self._passwords.hash(new)
        now = self._clock()

        def body(tx: Statements) -> None:
            if not rows.set_password(tx, user, password_hash):
                raise Problem(errors.PASSWORD_WRONG)  # another change was first
            rows.end_sessions(tx, user.id, now)
            self._revocations.end_tokens(tx, user.id, rows.next_generation(tx, user.id))

        self._db.transaction(body)
        return replace(user, password_hash=password_hash)

    def disable(self, username: str) -> bool:
        """Disables an account: its sessions, part URLs and links end permanently. Returns False if it was disabled.

        Raises:
            Problem: ACCOUNT_NOT_FOUND.
        """
        user = self._named(username)

        def body(tx: Statements) -> bool:
            if not rows.disable(tx, user.id, self._clock()):
                return False
            # read again under the lock: a concurrent sign-in is written only with the generation in force
            locked = rows.lock_user(tx, user.id)
            assert locked is not None
            rows.end_sessions(tx, user.id, self._clock())
            self._revocations.end_tokens(tx, user.id, locked.generation)
            return True

        return self._db.transaction(body)

    def enable(self, username: str) -> bool:
        """Enables an account again, for new sessions and new links. Returns False if it was enabled.

        Raises:
            Problem: ACCOUNT_NOT_FOUND.
        """
        return rows.enable(self._db, self._named(username).id)

    def _named(self, username: str) -> User:
        user = rows.user_by_name(self._db, username.lower())
        if user is None:
            raise Problem(errors.ACCOUNT_NOT_FOUND)
        return user

    # -- sessions

    def sign_in(self, username: str, password: str, address: str) -> SessionTokens:
        """A new session.

        Attempts are counted before the password is looked at (`api.accounts.guesses`).

        Raises:
            Problem: CREDENTIALS_INVALID, SIGNIN_LIMITED, SIGNIN_BUSY.
        """
        with self._passwords.turn():
            return self._sign_in(username.lower()[:256], password, address)

    def _sign_in(self, name: str, password: str, address: str) -> SessionTokens:
        network = fingerprint(address)
        self._guesses.count_address(address)
        user, seen_at = self._find(name, network)
        known = seen_at is not None
        self._guesses.count(name, address, known=known)
        user = self._judge(user, password)
        while (tokens := self._open_session(user)) is None:
            user = self._judge(rows.user_by_name(self._db, name), password)
        self._guesses.succeeded(name, address, known=known)
        now = self._clock()
        if seen_at is None or now - seen_at > _SEEN_AGAIN:
            network_rows.remember(self._db, user.id, network, now)
        if self._passwords.is_outdated(user.password_hash):
            rows.set_password(self._db, user, self._passwords.hash(password))
        return tokens

    def _find(self, name: str, network: bytes) -> tuple[User | None, datetime | None]:
        """The account, and the time of its last sign-in from a network."""
        user = rows.user_by_name(self._db, name)
        return user, network_rows.seen_at(self._db, user.id if user else bytes(16), network)

    def _judge(self, user: User | None, password: str) -> User:
        matches = self._passwords.matches(user.password_hash if user else None, password)
        if user is None or not matches or user.disabled_at is not None:
            raise Problem(errors.CREDENTIALS_INVALID)
        return user

    def _open_session(self, user: User) -> SessionTokens | None:
        """A session for a user who was just verified; None if the account changed during the verification.

        A password change ends the existing sessions: a session that a sign-in opened afterwards would survive it.
        """
        now = self._clock()
        secret, expires_at = secrets.token_hex(16), now + timedelta(seconds=self._config.refresh_ttl)
        session = Session(new_id(), user.id, _hash_secret(secret), expires_at, None)
        if not rows.insert_session(self._db, session, user, now):
            return None
        return self._issue(user, session, secret)

    def _issue(self, user: User, session: Session, secret: str) -> SessionTokens:
        now, config = self._clock().timestamp(), self._config
        access = AccessClaims(
            exp=int(now) + config.access_ttl,
            session_id=session.id.hex(),
            user_id=user.id.hex(),
            generation=user.generation,
            role=user.role,
            tier=user.tier,
        )
        refresh = RefreshClaims(int(session.expires_at.timestamp()), session.id.hex(), secret)
        return SessionTokens(
            self._tokens.sign(access, now=now),
            self._tokens.sign(refresh, now=now),
            config.access_ttl,
            config.refresh_ttl,
        )

    def refresh(self, refresh_token: str) -> SessionTokens:
        """New tokens for a session; the refresh token is used up, and one that was used before ends the session.

        Raises:
            Problem: TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_REVOKED.
        """
        claims = self._claims(RefreshClaims, refresh_token)
        session = rows.session_by_id(self._db, bytes.fromhex(claims.session_id))
        user = rows.user_by_id(self._db, session.user_id) if session else None
        if session is None or session.ended_at is not None or user is None or user.disabled_at is not None:
            raise Problem(errors.TOKEN_REVOKED)
        now = self._clock()
        secret, old_hash = secrets.token_hex(16), _hash_secret(claims.secret)
        expires_at = now + timedelta(seconds=self._config.refresh_ttl)
        if not rows.rotate_refresh(self._db, session.id, old_hash, _hash_secret(secret), now, expires_at):
            self._end(user.id, session.id)
            raise Problem(errors.TOKEN_REVOKED, "This refresh token was used before; the session has ended.")
        return self._issue(user, replace(session, expires_at=expires_at), secret)

    def sign_out(self, identity: Identity) -> None:
        """Ends the session that asks."""
        self._end(identity.user_id, identity.session_id)

    def _end(self, user_id: bytes, session_id: bytes) -> None:
        self._db.transaction(lambda tx: self._revocations.end_session(tx, user_id, session_id))

    # -- tokens

    def identify(self, access_token: str, is_unsure: bool = False) -> Identity:
        """The identity that an access token stands for.

        Args:
            is_unsure: the edge, which normally checks revocation, cannot tell whether the token was revoked.

        Raises:
            Problem: TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_REVOKED.
        """
        claims = self._claims(AccessClaims, access_token)
        identity = Identity(
            user_id=bytes.fromhex(claims.user_id),
            session_id=bytes.fromhex(claims.session_id),
            generation=claims.generation,
            role=claims.role,
            tier=claims.tier,
        )
        if is_unsure and self._revocations.is_over(identity.user_id, identity.session_id, identity.generation):
            raise Problem(errors.TOKEN_REVOKED)
        return identity

    def _claims(self, kind: type[C], token: str) -> C:
        try:
            return self._tokens.verify(kind, token, now=self._clock().timestamp())
        except TokenExpired as ex:
            raise Problem(errors.TOKEN_EXPIRED) from ex
        except TokenError as ex:
            raise Problem(errors.TOKEN_INVALID) from ex


def _hash_secret(secret: str) -> bytes:
    """The stored hash of a refresh token: 128 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).digest()
