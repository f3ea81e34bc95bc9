"""Named values of this deployment, such as its id."""

from __future__ import annotations

from api.core.errors import DatabaseUnavailable
from api.db.pool import Statements

_PUT = "INSERT INTO deployment (name, value) VALUES (%s, %s) ON DUPLICATE KEY UPDATE value = deployment.value"
_SET = "INSERT INTO deployment (name, value) VALUES (%s, %s) ON DUPLICATE KEY UPDATE value = %s"
_GET = "SELECT value FROM deployment WHERE name = %s"


def settle(db: Statements, name: str, proposal: str) -> str:
    """The value of ``name``. If there is none, saves and returns ``proposal``."""
    db.execute(_PUT, (name, proposal))
    row = db.one(_GET, (name,))
    assert row is not None
    return str(row[0])


def identity(db: Statements) -> str:
    """This deployment's id, the prefix of every object key.

    Raises:
        DatabaseUnavailable: the database was not migrated yet.
    """
    row = db.one(_GET, ("id",))
    if row is None:
        raise DatabaseUnavailable("not migrated")
    return str(row[0])


def value(db: Statements, name: str) -> str | None:
    """The value of ``name``; None if there is none."""
    row = db.one(_GET, (name,))
    return None if row is None else str(row[0])


def put(db: Statements, name: str, text: str) -> None:
    """Sets the value of ``name``."""
    db.execute(_SET, (name, text, text))
