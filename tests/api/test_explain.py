"""Every statement uses an index: each statement of each call is explained on tables that are not empty."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest

import api
from api.core.config import load
from tests.api.conftest import Gateway, fresh_database, settings
from tests.api.driving import drive
from tests.conftest import Servers

FEW = 50
"""Maximum of rows of a table that a statement may scan."""

ALIASES = {
    "b": "blob",
    "c": "upload",
    "d": "blob_digest",
    "f": "file",
    "i": "transfer_item",
    "j": "job",
    "o": "upload",
    "p": "upload_part",
    "r": "replica",
    "t": "transfer",
    "u": "upload",
}
ROWS = 3000
FILL = (
    # a third of all rows that belong to a user are {user}'s; most uploads have ended, and few rows have expired
    "INSERT INTO user (id, username, password_hash, role, tier, created_at) SELECT {id}, CONCAT('u', seq), 'x', "
    "'user', 'default', NOW(6) FROM {seq}",
    "INSERT INTO session SELECT {id}, {id}, REPEAT('h', 32), NOW(6), NOW(6), NOW(6) + INTERVAL seq + 900 HOUR, "
    "IF(seq % 5, NULL, NOW(6)) FROM {seq}",
    "INSERT INTO `blob` SELECT {id}, seq, {digest}, REPEAT('\\0', 16), 'verified', NULL, NOW(6), NOW(6) FROM {seq}",
    "INSERT INTO blob_parts SELECT {id}, {digest} FROM {seq}",
    "INSERT INTO blob_digest SELECT {digest}, REPEAT('\\0', 16), {id} FROM {seq}",
    "INSERT INTO replica (blob_id, storage, object_key, created_at) SELECT {id}, 'local', CONCAT('k', seq), NOW(6) "
    "FROM {seq}",
    "INSERT INTO file SELECT {id}, IF(seq % 3, {id}, UNHEX('{user}')), REPEAT('\\0', 16), CONCAT('name ', seq), {id}, "
    "'a/b', 1, NOW(6), NOW(6), IF(seq % 7, NULL, NOW(6)) FROM {seq}",
    "INSERT INTO upload (id, user_id, state, name, folder_id, content_type, size, part_size, part_count, storage, "
    "object_key, multipart_id, open_key, binds_hash, parts_kept, lease_until, created_at, updated_at, expires_at) "
    "SELECT {id}, IF(seq % 3, {id}, UNHEX('{user}')), ELT(1 + seq % 100, 'proving', 'finalizing', 'uploading', "
    "'failed', 'aborted', 'expired'), seq, REPEAT('\\0', 16), 'a/b', 1, 8388608, 1, 'local', CONCAT('u', seq), "
    "'local', {digest}, 0, 1, NOW(6) + INTERVAL 30 DAY, NOW(6), NOW(6), NOW(6) + INTERVAL 30 DAY FROM {seq} "
    "WHERE seq % 100 < 6",
    "INSERT INTO upload (id, user_id, state, name, folder_id, content_type, size, part_size, part_count, storage, "
    "object_key, binds_hash, parts_kept, created_at, updated_at, expires_at) SELECT {id}, IF(seq % 3, {id}, "
    "UNHEX('{user}')), 'done', seq, REPEAT('\\0', 16), 'a/b', 1, 8388608, 1, 'local', CONCAT('u', seq), 0, 0, NOW(6), "
    "NOW(6) + INTERVAL 9 DAY, NOW(6) + INTERVAL 30 DAY FROM {seq} WHERE seq % 100 >= 6",
    "INSERT INTO upload_part (upload_id, part_number, sha256) SELECT id, seq, REPEAT('h', 32) FROM upload "
    "JOIN seq_1_to_20 WHERE parts_kept",
    "INSERT INTO doomed SELECT seq, 'local', CONCAT('d', seq), NOW(6), NULL FROM {seq}",
    "INSERT INTO usage_day SELECT 'user', IF(seq % 3, {id}, UNHEX('{user}')), CURDATE() - INTERVAL 300 DAY + "
    "INTERVAL seq DAY, 1, 1 FROM {seq} WHERE seq < 700",
    "INSERT INTO usage_report SELECT {id}, seq, NOW(6) + INTERVAL 9 DAY FROM {seq}",
    "INSERT INTO job (kind, subject, state, due_at, enqueued_at, created_at, updated_at) SELECT ELT(1 + seq % 4, "
    "'finalize', 'verify', 'transfer', 'scrub'), {id}, IF(seq % 50, 'waiting', 'dead'), NOW(6) - INTERVAL 200 SECOND "
    "+ INTERVAL seq SECOND, NULL, NOW(6), NOW(6) FROM {seq}",
    "INSERT INTO transfer (id, source, destination, delete_source, keep_for, delay, state, planned_at, planned_blob, "
    "window_at, created_at, updated_at, ended_at) SELECT {id}, 'local', 'other', 0, 0, 0, 'done', NOW(6), {id}, "
    "NOW(6), NOW(6), NOW(6), NOW(6) FROM seq_1_to_20",
    "INSERT INTO transfer_item (id, transfer_id, blob_id, size, state, phase, storage, object_key, upload_id, due_at, "
    "created_at) SELECT {id}, UNHEX(MD5(1 + seq % 20)), {id}, 1, ELT(1 + seq % 3, 'waiting', 'queued', 'failed'), "
    "'copy', 'other', CONCAT('t', seq), {id}, NOW(6), NOW(6) FROM {seq}",
    "INSERT INTO revocation SELECT 'session', {id}, 1, NOW(6) - INTERVAL seq MINUTE, NOW(6) + INTERVAL 20 DAY "
    "FROM {seq}",
)


def constants() -> Iterable[tuple[str, str, str]]:
    """(module, name, text) of every statement, or beginning of one, in a module of rows."""
    for info in pkgutil.walk_packages(api.__path__, "api."):
        if not info.name.endswith("rows") and not info.name.startswith("api.db."):
            continue
        module = importlib.import_module(info.name)
        for name, text in vars(module).items():
            if isinstance(text, str) and re.match("(SELECT|INSERT|UPDATE|DELETE|REPLACE) ", text):
                yield info.name, name, text


@pytest.fixture(scope="module")
def gateway(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """An API with tables of a few thousand rows, a third of which belong to one user."""
    made = Gateway(load(settings(fresh_database(servers), servers, tmp_path_factory.mktemp("explain"))))
    user = made.user("rich")
    for sql in FILL:
        text = sql.replace("{id}", "UNHEX(MD5(seq))").replace("{digest}", "UNHEX(SHA2(seq, 256))")
        made.db.execute(text.replace("{user}", user.id).replace("{seq}", f"seq_1_to_{ROWS}"))
    made.statements.clear()
    drive(made, user)
    driven = made.statements[:]
    made.rows(f"ANALYZE TABLE {', '.join(f'`{table}`' for table in tables(made))}")
    made.statements = driven
    yield made
    made.db.close()


@pytest.fixture(scope="module")
def driven(gateway: Gateway) -> dict[str, Sequence[object]]:
    """Every distinct statement of every call, with its first arguments."""
    return {sql: args for sql, args in reversed(gateway.statements) if sql not in ("BEGIN", "COMMIT")}


def tables(gateway: Gateway) -> list[str]:
    return [table for (table,) in gateway.rows("SHOW TABLES") if "yoyo" not in table]


def explain(gateway: Gateway, sql: str, args: Sequence[object]) -> list[dict[str, Any]]:
    """The rows of a statement's plan that read a table."""
    columns = ("id", "select_type", "table", "type", "possible_keys", "key", "key_len", "ref", "rows", "extra")
    plan = [dict(zip(columns, row, strict=True)) for row in gateway.rows(f"EXPLAIN {sql}", *args)]
    return [step for step in plan if step["table"] and step["select_type"] != "INSERT"]


def test_no_statement_reads_through_a_table(gateway: Gateway, driven: dict[str, Sequence[object]]) -> None:
    large = {t for t in tables(gateway) if gateway.rows(f"SELECT COUNT(*) FROM `{t}`")[0][0] > FEW}  # noqa: S608
    assert {"user", "session", "blob", "file", "upload", "upload_part", "replica", "revocation", "job"} <= large
    sizes = {t: gateway.rows(f"SELECT COUNT(*) FROM `{t}`")[0][0] for t in large}  # noqa: S608
    slow, explained = [], 0
    for sql, args in driven.items():
        for step in explain(gateway, sql, args):
            explained += 1
            table = ALIASES.get(step["table"], step["table"])
            through = step["type"] in ("ALL", "index", "index_merge") or step["key"] is None
            # a range over most of a table is no better than a scan, unless its order lets a LIMIT end it early
            wide = "LIMIT" not in sql or "ORDER BY" not in sql or "filesort" in (step["extra"] or "")
            if table in large and (through or (wide and int(step["rows"]) > sizes[table] / 2)):
                slow.append(f"{step['table']}: {step['type']}, key {step['key']}, {step['rows']} rows\n    {sql}")
    assert explained > 60
    assert not slow, "\n".join(slow)


def test_plain_lists_need_no_sorting(gateway: Gateway, driven: dict[str, Sequence[object]]) -> None:
    # search results, files of one digest, a user's trash and a user's uploads of one state may be sorted: they are few
    unlike = ("LIKE", "b.digest = %s", "trashed_at IS NOT NULL", "u.state = %s", "GROUP_CONCAT")
    lists = [sql for sql in driven if " ORDER BY " in sql and not any(word in sql for word in unlike)]
    assert len(lists) >= 8
    sorting = [
        sql for sql in lists for step in explain(gateway, sql, driven[sql]) if "filesort" in (step["extra"] or "")
    ]
    assert not sorting, "\n".join(sorting)


def test_every_statement_that_is_written_down_was_driven(gateway: Gateway, driven: dict[str, Sequence[object]]) -> None:
    texts = {text for _, _, text in constants()}
    run = {max((text for text in texts if sql.startswith(text)), key=len, default="") for sql in driven}
    never = [f"{module}.{name}" for module, name, text in constants() if text not in run]
    assert len(texts) > 50
    assert not never, never


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT id FROM user WHERE tier = %s", True),
        ("SELECT id FROM user ORDER BY id", True),
        ("SELECT id FROM user WHERE id = %s", False),
        ("DELETE FROM session WHERE refreshed_at < %s", True),
        ("UPDATE upload SET name = 'x' WHERE name = %s", True),
    ],
)
def test_the_guard_sees_a_full_scan(gateway: Gateway, sql: str, found: bool) -> None:
    steps = explain(gateway, sql, ["x"] * sql.count("%s"))
    assert any(step["type"] in ("ALL", "index") or step["key"] is None for step in steps) == found
