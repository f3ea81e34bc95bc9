"""How many rows of a kind there are: for metrics, so none counts without an end."""

from __future__ import annotations

from collections.abc import Sequence

from api.db.pool import Statements

MOST = 100_000
"""Rows of one kind that are counted; more are told as this many."""

UPLOAD_STATES = ("proving", "uploading", "finalizing", "done", "failed", "aborted", "expired")

_UPLOADS = "SELECT COUNT(*) FROM (SELECT 1 FROM upload WHERE state = %s ORDER BY expires_at LIMIT 100000) counted"


def uploads(db: Statements) -> Sequence[tuple[str, int]]:
    """(state, uploads in it); ended ones go after 7 days."""
    return [(state, db.value(_UPLOADS, (state,))) for state in UPLOAD_STATES]
