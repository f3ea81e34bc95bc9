"""Counts of rows for metrics; each count has a limit."""

from __future__ import annotations

from collections.abc import Sequence

from api.db.pool import Statements

MOST = 100_000
"""Most rows that are counted; larger numbers are reported as this number."""

UPLOAD_STATES = ("proving", "uploading", "finalizing", "done", "failed", "aborted", "expired")

_UPLOADS = "SELECT COUNT(*) FROM (SELECT 1 FROM upload WHERE state = %s ORDER BY expires_at LIMIT 100000) counted"


def uploads(db: Statements) -> Sequence[tuple[str, int]]:
    """(state, number of uploads); ended uploads are deleted after 7 days."""
    return [(state, db.value(_UPLOADS, (state,))) for state in UPLOAD_STATES]
