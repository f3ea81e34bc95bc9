"""Conditions after any outage: everything exists exactly once, and no object is without a row."""

from __future__ import annotations

from typing import Any

from api.jobs.rows import LEASE
from tests.api.conftest import Content, Gateway, User


def consistent(gateway: Gateway, content: Content, files: int) -> None:
    """Asserts one blob with exactly one of each row, this many files on it, and no object without a row."""
    one = gateway.rows(
        "SELECT COUNT(DISTINCT b.id), COUNT(DISTINCT d.blob_id), COUNT(DISTINCT p.blob_id), "
        "COUNT(DISTINCT r.object_key), COUNT(DISTINCT f.id) FROM `blob` b "
        "LEFT JOIN blob_digest d ON d.blob_id = b.id LEFT JOIN blob_parts p ON p.blob_id = b.id "
        "LEFT JOIN replica r ON r.blob_id = b.id LEFT JOIN file f ON f.blob_id = b.id "
        "WHERE b.digest = UNHEX(%s)",
        content.digest,
    )[0]
    assert one == (1, 1, 1, 1, files)
    known = gateway.rows(
        "SELECT object_key FROM replica UNION SELECT object_key FROM doomed UNION SELECT object_key FROM upload "
        "WHERE state = 'finalizing'"
    )
    assert set(gateway.storage.objects) <= {key for (key,) in known}


def count(gateway: Gateway, sql: str, *args: object) -> int:
    return int(gateway.rows(f"SELECT COUNT(*) FROM {sql}", *args)[0][0])  # noqa: S608


def finish(gateway: Gateway, user: User, upload: dict[str, Any]) -> dict[str, Any]:
    """Finalizes if that is still to be done, as a worker does after the lease has expired."""
    gateway.clock.turn(LEASE.total_seconds() + 1)
    gateway.work("finalize")
    seen: dict[str, Any] = user.get(f"/uploads/{upload['id']}").json
    return seen
