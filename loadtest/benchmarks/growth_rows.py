"""Generated databases: each file with blob, parts, digest and replica, made inside the server (growth.sql)."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import pymysql

_SQL = Path(__file__).with_name("growth.sql")
_USERS = (
    "INSERT IGNORE INTO user (id, username, password_hash, role, tier, created_at) SELECT "
    "UNHEX(CONCAT('02', LPAD(HEX(seq), 30, '0'))), CONCAT('grown', seq), '', 'user', 'default', UTC_TIMESTAMP(6) "
    "FROM seq_0_to_999"
)
_SIZES = "SELECT table_name, data_length, index_length FROM information_schema.tables WHERE table_schema = 'sluice'"
_TABLES = ("blob", "blob_parts", "blob_digest", "replica", "file", "upload", "upload_part")


def digest_of(number: int) -> str:
    """The stand-in for the digest of a generated file."""
    return hashlib.sha256(f"content {number}".encode()).hexdigest()


def size_of(number: int) -> int:
    """The size of a generated file."""
    return (1000 if number % 10 else 20_000_000) + number


class Rows:
    """Fills a stack's database.

    Args:
        user_id: the owner of half of the files, in hexadecimal; 1,000 others share the rest.
    """

    def __init__(self, connection: pymysql.Connection[Any], user_id: str) -> None:
        self._connection = connection
        self._user_id = user_id
        self.count = 0
        self._run("SET SESSION unique_checks = 0, foreign_key_checks = 0")
        self._run(_USERS)

    def _run(self, sql: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)

    def grow_to(self, count: int) -> float:
        """Adds files up to this number. Returns the seconds it took."""
        began = time.monotonic()
        sql = _SQL.read_text().format(
            user=self._user_id,
            first=self.count + 1,
            last=count,
            first_open=self.count // 100 + 1,
            last_open=count // 100,
        )
        for statement in sql.split(";\n"):
            if statement.strip():
                self._run(statement)
        for table in _TABLES:
            self._run(f"ANALYZE TABLE `{table}`")
        self.count = count
        return time.monotonic() - began

    def sizes(self) -> dict[str, tuple[float, float]]:
        """(data, indexes) of each table in MiB."""
        with self._connection.cursor() as cursor:
            cursor.execute(_SIZES)
            found = {name: (int(data) / 2**20, int(index) / 2**20) for name, data, index in cursor.fetchall()}
        return {table: found[table] for table in _TABLES}
