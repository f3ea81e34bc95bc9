"""Applies the numbered SQL files under ``migrations/`` with yoyo.

If two processes migrate at the same time, they take turns with a named lock of the server. The lock ends with its
connection, so unlike yoyo's lock row it never outlives a killed process.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pymysql
import yoyo

from api.core.errors import DatabaseUnavailable
from api.db import deployment
from api.db.pool import Database, connect_arguments

_FOLDER = Path(__file__).parent / "migrations"


def wait(url: str, timeout: float) -> None:
    """Waits until the database accepts connections.

    Raises:
        DatabaseUnavailable: it did not accept any within ``timeout`` seconds.
    """
    ends = time.monotonic() + timeout
    while True:
        try:
            pymysql.connect(**connect_arguments(url)).close()
        except pymysql.err.MySQLError as ex:
            if time.monotonic() > ends:
                raise DatabaseUnavailable(f"no connection after {timeout:.0f} s: {ex.args[-1]}") from ex
            time.sleep(0.2)
        else:
            return


@contextlib.contextmanager
def _alone(url: str) -> Iterator[None]:
    connection = pymysql.connect(**connect_arguments(url) | {"read_timeout": 310})
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT GET_LOCK('sluice-migrate', 300)")
            if cursor.fetchone() != (1,):
                raise DatabaseUnavailable("another process has been migrating for 5 minutes")
        yield
    finally:
        connection.close()


def migrate(url: str, timeout: float = 60) -> list[str]:
    """Applies all pending migrations. Returns their names."""
    wait(url, timeout)
    os.environ.setdefault("LOGNAME", str(os.getuid()))  # yoyo records the user's name, but not every uid has one
    with _alone(url):
        parts = urlsplit(url)
        backend = yoyo.get_backend(urlunsplit(parts))
        try:
            backend.break_lock()
            pending = backend.to_apply(yoyo.read_migrations(str(_FOLDER)))
            names = [migration.id for migration in pending]
            backend.apply_migrations(pending)
        finally:
            backend.connection.close()
    database = Database(url, 1)
    deployment.settle(database, "id", os.urandom(4).hex())
    database.close()
    return names
