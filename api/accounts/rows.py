"""Users and their sessions."""

from __future__ import annotations

from datetime import datetime

from api.core.models import Session, User
from api.db.pool import Row, Statements
from api.db.times import from_nullable, from_row, to_row

_USER = "id, username, password_hash, role, tier, generation, disabled_at, created_at"
_INSERT_USER = f"INSERT INTO user ({_USER}) VALUES (%s, %s, %s, %s, %s, %s, NULL, %s)"
_USER_BY_NAME = f"SELECT {_USER} FROM user WHERE username = %s"
_USER_BY_ID = f"SELECT {_USER} FROM user WHERE id = %s"
_LOCK_USER = f"SELECT {_USER} FROM user WHERE id = %s FOR UPDATE"
_LOCK_LIVE = "SELECT 1 FROM user WHERE id = %s AND disabled_at IS NULL FOR UPDATE"
_ANY_USER = "SELECT 1 FROM user WHERE id > %s ORDER BY id LIMIT 1"
_SET_PASSWORD = "UPDATE user SET password_hash = %s WHERE id = %s AND password_hash = %s"
# A new generation: every token, and every link, of the account that is out there names the old one.
_NEXT_GENERATION = "UPDATE user SET generation = generation + 1 WHERE id = %s"
_DISABLE = (
    "UPDATE user SET disabled_at = %s, generation = generation + 1, link_generation = link_generation + 1 "
    "WHERE id = %s AND disabled_at IS NULL"
)
_ENABLE = "UPDATE user SET disabled_at = NULL WHERE id = %s AND disabled_at IS NOT NULL"

_SET_TIER = "UPDATE user SET tier = %s WHERE username = %s"

_SESSION = "id, user_id, refresh_hash, expires_at, ended_at"
# The lock on the user's row is what a password change waits for, or is waited for: it ends every session that is there.
_INSERT_SESSION = (
    "INSERT INTO session (id, user_id, refresh_hash, created_at, refreshed_at, expires_at, ended_at) "
    "SELECT %s, u.id, %s, %s, %s, %s, NULL FROM user u WHERE u.id = %s AND u.password_hash = %s "
    "AND u.generation = %s AND u.disabled_at IS NULL LOCK IN SHARE MODE"
)
_SESSION_BY_ID = f"SELECT {_SESSION} FROM session WHERE id = %s"
_ROTATE = (
    "UPDATE session SET refresh_hash = %s, refreshed_at = %s, expires_at = %s "
    "WHERE id = %s AND refresh_hash = %s AND ended_at IS NULL"
)
_END_SESSION = "UPDATE session SET ended_at = %s WHERE id = %s AND ended_at IS NULL"
# Reads the owner's index only, and stops at the limit that the caller compares with.
_COUNT_ENDED = "SELECT COUNT(*) FROM (SELECT 1 FROM session WHERE user_id = %s AND ended_at > %s LIMIT %s) ended"
_IS_LIVE = (
    "SELECT 1 FROM session s JOIN user u ON u.id = s.user_id WHERE s.id = %s AND u.id = %s AND s.ended_at IS NULL "
    "AND u.disabled_at IS NULL AND u.generation <= %s"
)
_END_SESSIONS = "UPDATE session SET ended_at = %s WHERE user_id = %s AND ended_at IS NULL"
_PRUNE_SESSIONS = "DELETE FROM session WHERE expires_at < %s LIMIT 1000"


def _user(row: Row) -> User:
    values = list(row)
    for moment in (6, 7):
        values[moment] = from_nullable(values[moment])
    return User(*values)


def insert_user(db: Statements, user: User) -> None:
    """Raises DuplicateRow if the username is taken."""
    db.execute(
        _INSERT_USER,
        (
            user.id,
            user.username,
            user.password_hash,
            user.role,
            user.tier,
            user.generation,
            to_row(user.created_at),
        ),
    )


def user_by_name(db: Statements, username: str) -> User | None:
    """The account of that name, disabled ones too."""
    row = db.one(_USER_BY_NAME, (username,))
    # to the collation "ann" and "ann  " are equal: another spelling would get a separate count of failures
    return _user(row) if row and row[1] == username else None


def user_by_id(db: Statements, user_id: bytes) -> User | None:
    """The account, disabled ones too."""
    row = db.one(_USER_BY_ID, (user_id,))
    return _user(row) if row else None


def lock_user(db: Statements, user_id: bytes) -> User | None:
    """The account, locked until the transaction ends: makes what counts per user exact."""
    row = db.one(_LOCK_USER, (user_id,))
    return _user(row) if row else None


def lock_live(db: Statements, user_id: bytes) -> bool:
    """Locks an enabled user's row. Returns False if the user is disabled or missing."""
    return db.one(_LOCK_LIVE, (user_id,)) is not None


def any_user(db: Statements) -> bool:
    """Whether there is an account at all."""
    return db.one(_ANY_USER, (bytes(16),)) is not None


def set_password(db: Statements, user: User, password_hash: str) -> bool:
    """Replaces ``user``'s argon2 hash. Returns False if another hash was stored meanwhile."""
    return db.execute(_SET_PASSWORD, (password_hash, user.id, user.password_hash)) == 1


def next_generation(tx: Statements, user_id: bytes) -> int:
    """Starts a new generation of an account's tokens and returns it. The account's row stays locked."""
    tx.execute(_NEXT_GENERATION, (user_id,))
    user = lock_user(tx, user_id)
    assert user is not None
    return user.generation


def disable(db: Statements, user_id: bytes, now: datetime) -> bool:
    """Disables an account. Returns False if it was disabled before."""
    return db.execute(_DISABLE, (to_row(now), user_id)) == 1


def enable(db: Statements, user_id: bytes) -> bool:
    """Enables an account. Returns False if it was enabled before."""
    return db.execute(_ENABLE, (user_id,)) == 1


def set_tier(db: Statements, username: str, tier: str) -> None:
    """Gives the account of that name a tier."""
    db.execute(_SET_TIER, (tier, username))


def insert_session(db: Statements, session: Session, user: User, now: datetime) -> bool:
    """Writes a new session. Returns False if the account is no longer as ``user`` says."""
    moment, expires_at = to_row(now), to_row(session.expires_at)
    account = (user.id, user.password_hash, user.generation)
    return db.execute(_INSERT_SESSION, (session.id, session.refresh_hash, moment, moment, expires_at, *account)) == 1


def session_by_id(db: Statements, session_id: bytes) -> Session | None:
    """The session, ended ones too."""
    row = db.one(_SESSION_BY_ID, (session_id,))
    return Session(row[0], row[1], row[2], from_row(row[3]), from_nullable(row[4])) if row else None


def rotate_refresh(
    db: Statements, session_id: bytes, old_hash: bytes, new_hash: bytes, now: datetime, expires_at: datetime
) -> bool:
    """Replaces the session's ``old_hash`` by ``new_hash``. Returns False if ``old_hash`` is no longer valid."""
    args = (new_hash, to_row(now), to_row(expires_at), session_id, old_hash)
    return db.execute(_ROTATE, args) == 1


def end_session(db: Statements, session_id: bytes, now: datetime) -> bool:
    """Ends a session. Returns False if it had ended before."""
    return db.execute(_END_SESSION, (to_row(now), session_id)) == 1


def end_sessions(db: Statements, user_id: bytes, now: datetime) -> None:
    """Ends every live session of a user."""
    db.execute(_END_SESSIONS, (to_row(now), user_id))


def count_ended(db: Statements, user_id: bytes, after: datetime, most: int) -> int:
    """How many sessions of a user have ended since then, up to ``most``."""
    row = db.one(_COUNT_ENDED, (user_id, to_row(after), most))
    assert row is not None
    return int(row[0])


def is_live(db: Statements, user_id: bytes, session_id: bytes, generation: int) -> bool:
    """Whether a session's tokens of a generation are still valid."""
    return db.one(_IS_LIVE, (session_id, user_id, generation)) is not None


def prune_sessions(db: Statements, before: datetime) -> int:
    """Deletes up to 1,000 sessions that expired before then."""
    return db.execute(_PRUNE_SESSIONS, (to_row(before),))
