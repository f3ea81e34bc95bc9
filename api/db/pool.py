"""Connections, statements and transactions. The only module that imports PyMySQL and DBUtils.

Connections use autocommit and READ COMMITTED, so a single statement costs one round trip. `transaction` wraps several
statements into BEGIN and COMMIT, and repeats all of them if the server chose the transaction as a deadlock's victim.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import random
import select
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import pymysql
from dbutils.pooled_db import PooledDB

from api.core import budget, metrics
from api.core.errors import DatabaseTooSlow, DatabaseUnavailable, DuplicateRow

T = TypeVar("T")
Row = Any
"""A named tuple: a column is an attribute, by its name or alias."""

_DEADLOCK, _LOCK_TIMEOUT, _DUPLICATE, _NO_TABLE = 1213, 1205, 1062, 1146
# ER_STATEMENT_TIMEOUT of MariaDB, ER_QUERY_TIMEOUT of MySQL
_TOO_SLOW: Final = (1969, 3024)
_ATTEMPTS: Final = 3
_SESSION: Final = (
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    # an upload's hashes are read as one value: 10,000 parts of 32 bytes
    "SET SESSION time_zone = '+00:00', group_concat_max_len = 1048576, innodb_lock_wait_timeout = 10, "
    "sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO'",
)
# Each server executes one of the comments. MariaDB limits any statement, in seconds; MySQL a SELECT, in milliseconds.
_STATEMENT_SECONDS: Final = (
    "SET SESSION innodb_lock_wait_timeout = 10 /*M!100101 , max_statement_time = {0} */ "
    "/*!80000 , max_execution_time = {0}000 */"
)

# Lock names are shared by all databases of a server, and have at most 64 characters.
_LOCK_NAME: Final = "CONCAT('sluice.', %s, '.', MD5(DATABASE()))"
_GET_LOCK: Final = f"SELECT GET_LOCK({_LOCK_NAME}, %s)"
_RELEASE_LOCK: Final = f"SELECT RELEASE_LOCK({_LOCK_NAME})"

Observer = Callable[[str, Sequence[object]], None]
"""Called with every statement and its arguments; benchmarks count them, tests run EXPLAIN."""


class Statements(Protocol):
    """Runs statements: the database itself, or one of its transactions."""

    def all(self, sql: str, args: Sequence[object] = ()) -> Sequence[Row]:
        """Every row."""

    def one(self, sql: str, args: Sequence[object] = ()) -> Row | None:
        """The only row, or None."""

    def column(self, sql: str, args: Sequence[object] = ()) -> list[Any]:
        """The values of a SELECT of one column."""

    def value(self, sql: str, args: Sequence[object] = ()) -> Any:
        """The first column of the only row; None without a row."""

    def execute(self, sql: str, args: Sequence[object] = ()) -> int:
        """The number of rows that changed (an upsert counts 1 for an insert, 2 for an update)."""


@functools.lru_cache(maxsize=512)
def _row(names: tuple[str, ...]) -> Callable[[Sequence[object]], Row]:
    """Creates rows with these columns. A column such as ``COUNT(*)`` is no identifier and has no attribute."""
    kind: Any = collections.namedtuple("Row", names, rename=True)  # type: ignore[misc]  # the names are known at run time only
    make: Callable[[Sequence[object]], Row] = kind._make
    return make


class _Transaction:
    """Statements on one connection."""

    def __init__(self, connection: Any, observe: Observer) -> None:
        self._connection = connection
        self._observe = observe

    def _run(self, sql: str, args: Sequence[object]) -> Any:
        if budget.is_spent():
            raise DatabaseTooSlow("the call's time for statements is used up")
        self._observe(sql, args)
        cursor = self._connection.cursor()
        cursor.execute(sql, args or None)
        return cursor

    def all(self, sql: str, args: Sequence[object] = ()) -> Sequence[Row]:
        cursor = self._run(sql, args)
        make = _row(tuple([column[0] for column in cursor.description or ()]))
        return tuple([make(values) for values in cursor.fetchall()])

    def one(self, sql: str, args: Sequence[object] = ()) -> Row | None:
        cursor = self._run(sql, args)
        values = cursor.fetchone()
        return None if values is None else _row(tuple([column[0] for column in cursor.description]))(values)

    def column(self, sql: str, args: Sequence[object] = ()) -> list[Any]:
        return [value for (value,) in self._run(sql, args).fetchall()]

    def value(self, sql: str, args: Sequence[object] = ()) -> Any:
        values = self._run(sql, args).fetchone()
        return None if values is None else values[0]

    def execute(self, sql: str, args: Sequence[object] = ()) -> int:
        return int(self._run(sql, args).rowcount)


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    """Translates the driver's errors, except those after which a transaction is repeated."""
    try:
        yield
    except pymysql.err.IntegrityError as ex:
        if ex.args and ex.args[0] == _DUPLICATE:
            raise DuplicateRow(str(ex.args[1])) from ex
        raise
    except pymysql.err.ProgrammingError as ex:
        if ex.args and ex.args[0] == _NO_TABLE:
            raise DatabaseUnavailable("not migrated") from ex
        raise
    except (pymysql.err.OperationalError, pymysql.err.InterfaceError, pymysql.err.InternalError) as ex:
        if _is_conflict(ex):
            raise
        if ex.args and ex.args[0] in _TOO_SLOW:
            raise DatabaseTooSlow("a statement was ended by the server") from ex
        metrics.DATABASE_FAILURES.inc()
        raise DatabaseUnavailable(f"{type(ex).__name__} {ex.args[0] if ex.args else ''}") from ex


def _is_conflict(ex: BaseException) -> bool:
    return isinstance(ex, pymysql.err.MySQLError) and bool(ex.args) and ex.args[0] in (_DEADLOCK, _LOCK_TIMEOUT)


def connect_arguments(url: str) -> dict[str, Any]:
    """PyMySQL's arguments for ``mysql://user:password@host:port/name?unix_socket=…``."""
    parts = urlsplit(url)
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    return {
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "host": parts.hostname or "localhost",
        "port": parts.port or 3306,
        "database": parts.path.lstrip("/"),
        "unix_socket": query.get("unix_socket"),
        # a unix socket cannot be intercepted, and preparing TLS costs each connection 30 ms
        "ssl_disabled": "unix_socket" in query,
        "charset": "utf8mb4",
        "connect_timeout": 3,
        "read_timeout": 30,
        "write_timeout": 30,
        "autocommit": True,
    }


def _is_open(connection: Any) -> bool:
    """Whether an idle connection is still open, without a round trip.

    PyMySQL's ping costs as much as a small statement, so this looks at its private socket. No statement is running on
    the connection, so if there is anything to read, the server has closed it or says why it will.
    """
    try:
        poll = select.poll()
        poll.register(connection._sock, select.POLLIN)
        return not poll.poll(0)
    except (AttributeError, OSError, TypeError, ValueError):
        return False


class Database:
    """The primary database, with a pool that opens connections on demand.

    Args:
        url: see `connect_arguments`.
        size: most connections; if none is free, a thread waits for one.
        observe: called with every statement.
        statement_seconds: the server aborts statements that take longer; 0 means no limit.
    """

    def __init__(
        self, url: str, size: int, observe: Observer = lambda sql, args: None, *, statement_seconds: int = 0
    ) -> None:
        self._observe = observe
        self._pool = PooledDB(
            pymysql,
            maxconnections=size,
            maxcached=size,
            blocking=True,
            reset=False,
            ping=_is_open,
            setsession=[*_SESSION, *([_STATEMENT_SECONDS.format(statement_seconds)] if statement_seconds else [])],
            **connect_arguments(url),
        )

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Any]:
        with _translated_errors():
            began = time.monotonic()
            connection = self._pool.connection()
            metrics.DATABASE_WAIT_SECONDS.observe(time.monotonic() - began)
            metrics.DATABASE_CONNECTIONS.inc()
            try:
                yield connection
            finally:
                metrics.DATABASE_CONNECTIONS.dec()
                connection.close()

    def _alone(self, run: Callable[[_Transaction], T]) -> T:
        """Runs a single statement. Repeats it after a lock conflict, since it has changed nothing then."""
        for attempt in range(_ATTEMPTS):
            try:
                with self._connection() as connection:
                    return run(_Transaction(connection, self._observe))
            except pymysql.err.MySQLError as ex:
                self._pause_or_give_up(ex, attempt)
        raise AssertionError("unreachable")

    def all(self, sql: str, args: Sequence[object] = ()) -> Sequence[Row]:
        return self._alone(lambda statement: statement.all(sql, args))

    def one(self, sql: str, args: Sequence[object] = ()) -> Row | None:
        return self._alone(lambda statement: statement.one(sql, args))

    def column(self, sql: str, args: Sequence[object] = ()) -> list[Any]:
        return self._alone(lambda statement: statement.column(sql, args))

    def value(self, sql: str, args: Sequence[object] = ()) -> Any:
        return self._alone(lambda statement: statement.value(sql, args))

    def execute(self, sql: str, args: Sequence[object] = ()) -> int:
        return self._alone(lambda statement: statement.execute(sql, args))

    def transaction(self, body: Callable[[Statements], T]) -> T:
        """Runs ``body`` in a transaction, up to three times. ``body`` must have no other effects.

        Raises:
            DatabaseUnavailable: the connection was lost (it is then unknown whether COMMIT took effect), or there
                was a deadlock or lock timeout (1213, 1205) three times.
            DuplicateRow: a unique key was violated; everything is rolled back.
        """
        for attempt in range(_ATTEMPTS):
            try:
                with self._connection() as connection:
                    self._observe("BEGIN", ())
                    connection.begin()
                    try:
                        result = body(_Transaction(connection, self._observe))
                        self._observe("COMMIT", ())
                        connection.commit()
                    except BaseException:
                        with contextlib.suppress(pymysql.err.Error):
                            connection.rollback()
                        raise
                    return result
            except pymysql.err.MySQLError as ex:
                self._pause_or_give_up(ex, attempt)
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def named_lock(self, name: str, seconds: int) -> Iterator[bool]:
        """Holds a lock that all processes with this database share. Yields False if it was not free in time.

        If the connection is lost, the lock is lost silently. So use it to save work, never to protect data.
        """
        with self._connection() as connection:
            lock = _Transaction(connection, self._observe)
            held = lock.value(_GET_LOCK, (name, seconds)) == 1
            try:
                yield held
            finally:
                if held:
                    with contextlib.suppress(pymysql.err.Error):
                        lock.one(_RELEASE_LOCK, (name,))

    @staticmethod
    def _pause_or_give_up(ex: pymysql.err.MySQLError, attempt: int) -> None:
        if not _is_conflict(ex):
            raise ex
        if attempt == _ATTEMPTS - 1:
            raise DatabaseUnavailable(f"lost a lock {_ATTEMPTS} times ({ex.args[0]})") from ex
        time.sleep(random.uniform(0.005, 0.05) * (attempt + 1))  # noqa: S311 - jitter, not a secret

    def close(self) -> None:
        """Closes idle connections. Connections in use are closed when they return to the pool."""
        self._pool.close()


def placeholders(count: int, row: str = "%s") -> str:
    """``row`` repeated ``count`` times with commas, for IN lists and multi-row VALUES."""
    return ",".join([row] * count)
