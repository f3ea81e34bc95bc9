"""Health, and what the edge alone may ask."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import ClassVar

import falcon

from api.accounts.revocations import Revocations
from api.accounts.usage import Usage
from api.blobs.replicas import REASONS
from api.core import errors, metrics
from api.core.errors import Problem
from api.files import schema as files
from api.files.service import Files
from api.http.base import Access, Resource, answer, row_id
from api.operations import draining
from api.operations.figures import Figures
from api.operations.health import Health


class Healthz(Resource):
    """/healthz: the process runs, and was not told to stop."""

    access: ClassVar = {"GET": Access.PUBLIC}

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        if draining.begun():
            answer(resp, {"status": "stopping"}, 503)
            resp.set_header("Retry-After", "1")
            return
        answer(resp, {"status": "ok"})

    on_head = on_get


class Readyz(Resource):
    """/readyz: it can do its work; nginx lets only allowed networks ask."""

    access: ClassVar = {"GET": Access.PUBLIC}

    def __init__(self, health: Health) -> None:
        self._health = health

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        ready, checks = self._health.ready()
        # a full disk takes no uploads, but gives downloads and takes deletions: requests should still come
        if not ready:
            status = "unready"
        elif self._health.full():
            status = "full"
        else:
            status = "ok" if all(state == "ok" for state in checks.values()) else "degraded"
        state = {"status": status, "checks": checks, "notes": self._health.notes()}
        answer(resp, state, 200 if ready else 503)
        if not ready:
            resp.set_header("Retry-After", "1")

    on_head = on_get


class Metrics(Resource):
    """/internal/metrics: in Prometheus' format; the edge puts its own before it."""

    access: ClassVar = {"GET": Access.EDGE}

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = metrics.CONTENT_TYPE
        resp.data = self._figures.text()


class RevocationFeed(Resource):
    """/internal/revocations: and, since every edge asks each second, how much room local storage has, and a name that
    changes with the tiers."""

    access: ClassVar = {"GET": Access.EDGE}

    def __init__(self, revocations: Revocations, health: Health, usage: Usage) -> None:
        self._revocations = revocations
        self._health = health
        self._usage = usage

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        after = req.get_param("after", default="0")
        if not re.fullmatch(r"[0-9]{1,19}", after):
            raise Problem(errors.PARAMETER_INVALID, "after is a row's id.")
        rows, last_id, more = self._revocations.since(int(after))
        found = [(row.id, row.kind, row.subject.hex(), row.generation, int(row.expires_at.timestamp())) for row in rows]
        room = self._health.room()
        state = {"last_id": last_id, "more": more, "room": room, "tiers": self._usage.tiers_version}
        answer(resp, state | {"revocations": found})


class BlobTarget(Resource):
    """/internal/targets/{blob_id}: ``failed`` names storages that the edge tried in vain, ``reason`` says why the last
    one failed."""

    access: ClassVar = {"GET": Access.EDGE}

    def __init__(self, files: Files, storages: Collection[str]) -> None:
        self._files = files
        self._storages = storages

    def on_get(self, req: falcon.Request, resp: falcon.Response, blob_id: str) -> None:
        failed = [name for name in req.get_param("failed", default="").split(",") if name]
        reason = req.get_param("reason")
        # a storage may have been taken out of the settings since the edge was told of it
        known = [name for name in failed if name in self._storages]
        if reason is not None and (reason not in REASONS or not failed):
            raise Problem(errors.PARAMETER_INVALID, "reason says why a storage failed.")
        found = self._files.target(row_id(blob_id, errors.FILE_NOT_FOUND), known, reason if known == failed else None)
        answer(resp, files.target(found))
