"""Every route of the API, on one screen."""

from __future__ import annotations

from api.accounts import resource as accounts
from api.edge import system, traffic
from api.files import resource as files
from api.http.base import Resource
from api.http.cursors import Cursors
from api.services import Services
from api.transfers import resource as transfers
from api.uploads import resource as uploads


def routes(services: Services) -> list[tuple[str, Resource]]:
    """(path, resource) of every route; who may call it stands in the resource's ``access``."""
    s, cursors, url = services, Cursors(services.tokens, services.clock), services.config.public_url
    v1: list[tuple[str, Resource]] = [
        ("/users", accounts.Users(s.accounts)),
        ("/users/me", accounts.Me(s.accounts, s.usage)),
        ("/sessions", accounts.Sessions(s.accounts, url)),
        ("/sessions/refresh", accounts.RefreshSession(s.accounts, url)),
        ("/sessions/current", accounts.CurrentSession(s.accounts, url)),
        ("/uploads", uploads.UploadList(s.uploads, cursors)),
        ("/uploads/batch", uploads.UploadBatch(s.uploads)),
        ("/uploads/batch/complete", uploads.UploadBatchComplete(s.uploads)),
        ("/uploads/{upload_id}", uploads.UploadItem(s.uploads)),
        ("/uploads/{upload_id}/proof", uploads.UploadProof(s.uploads)),
        ("/uploads/{upload_id}/parts", uploads.UploadParts(s.uploads)),
        ("/uploads/{upload_id}/complete", uploads.UploadComplete(s.uploads)),
        ("/files", files.FileList(s.files, cursors)),
        ("/files/{file_id}", files.FileItem(s.files)),
        ("/files/{file_id}/restore", files.FileRestore(s.files)),
        ("/files/{file_id}/links", files.FileLinks(s.files)),
        ("/files/{file_id}/content", files.FileContent(s.files)),
        ("/transfers", transfers.TransferList(s.transfers, cursors)),
        ("/transfers/{transfer_id}", transfers.TransferItem(s.transfers)),
        ("/transfers/{transfer_id}/retry", transfers.TransferRetry(s.transfers)),
    ]
    return [
        *((f"/api/v1{path}", resource) for path, resource in v1),
        ("/healthz", system.Healthz()),
        ("/readyz", system.Readyz(s.health)),
        ("/internal/revocations", system.RevocationFeed(s.revocations, s.health, s.usage)),
        ("/internal/metrics", system.Metrics(s.figures)),
        ("/internal/tiers", traffic.Tiers(s.usage)),
        ("/internal/usage", traffic.UsageReports(s.usage)),
        ("/internal/usage/{kind}/{subject}", traffic.UsageTotals(s.usage)),
        ("/internal/targets/{blob_id}", system.BlobTarget(s.files, s.config.storages)),
    ]
