"""Health, and calls that only the edge may make."""

from __future__ import annotations

from api.accounts.revocations import Revocations, microseconds
from api.accounts.usage import Usage
from api.blobs.replicas import REASONS
from api.core import errors
from api.core.config import Config
from api.core.errors import Problem
from api.edge.schema import (
    AliveAnswer,
    ReadyAnswer,
    RevocationQuery,
    RevocationsAnswer,
    SessionAnswer,
    SessionQuery,
    TargetQuery,
)
from api.files.schema import TargetAnswer
from api.files.service import Files
from api.http.call import Call
from api.http.route import Reply
from api.operations import draining
from api.operations.figures import Figures
from api.operations.health import Health

_SOON = {"Retry-After": "1"}


def healthz(call: Call) -> Reply[AliveAnswer]:
    """Whether the process runs; 503 if it was told to stop and serves on for a while."""
    if draining.begun():
        return Reply(AliveAnswer("stopping"), 503, _SOON)
    return Reply(AliveAnswer("ok"))


def readyz(call: Call, health: Health) -> Reply[ReadyAnswer]:
    """Whether the gateway can do its work; for SLUICE_READY_NETWORKS.

    Every dependency by name, and what was found out about storages by trying (`notes`). `status` is `ok`, `degraded`
    (200: Redis or a storage that takes no new uploads is away), `full` (200: no room for new uploads) or `unready`
    (503).
    """
    ready, checks = health.ready()
    if not ready:
        return Reply(ReadyAnswer("unready", checks, health.notes()), 503, _SOON)
    # a full disk takes no uploads, but gives downloads and takes deletions: requests should still come
    if health.full():
        return Reply(ReadyAnswer("full", checks, health.notes()))
    well = all(state == "ok" for state in checks.values())
    return Reply(ReadyAnswer("ok" if well else "degraded", checks, health.notes()))


def metrics(call: Call, figures: Figures) -> bytes:
    """Metrics of the API and its workers in Prometheus' text format; the edge puts the edge's metrics before them."""
    return figures.text()


def revoked(
    call: Call, query: RevocationQuery, revocations: Revocations, health: Health, usage: Usage
) -> RevocationsAnswer:
    """Revocations; and, since every edge asks each second, the free space of local storage and the tiers' name."""
    rows, position, more = revocations.since(query.after)
    found = [
        (row.kind, row.subject.hex(), row.generation, microseconds(row.noted_at), int(row.expires_at.timestamp()))
        for row in rows
    ]
    return RevocationsAnswer(position, more, health.room(), usage.tiers_version, found)


def session(call: Call, query: SessionQuery, revocations: Revocations) -> SessionAnswer:
    """Whether a token of a session is still good, for an edge that cannot tell."""
    return SessionAnswer(not revocations.is_over(bytes.fromhex(query.user), call.id, query.generation))


def target(call: Call, query: TargetQuery, files: Files, config: Config) -> TargetAnswer:
    """The facts that the edge needs to send a file, and its place, except storages that the edge tried in vain."""
    failed = [name for name in query.failed.split(",") if name]
    # a storage may have been taken out of the settings since the edge was told of it
    known = [name for name in failed if name in config.storages]
    if query.reason is not None and (query.reason not in REASONS or not failed):
        raise Problem(errors.PARAMETER_INVALID, "reason says why a storage failed.")
    return TargetAnswer.of(files.target(call.id, known, query.reason if known == failed else None))
