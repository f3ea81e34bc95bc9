"""The composition root: the only module that knows all parts and connects them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import falcon
from argon2 import PasswordHasher

from api import routes
from api.accounts.revocations import Revocations
from api.accounts.service import Accounts
from api.accounts.usage import Usage
from api.blobs.mend import Mender
from api.blobs.replicas import Replicas
from api.blobs.rescue import Rescuer
from api.blobs.scrub import Scrubber
from api.blobs.verify import Verifier
from api.context import Context
from api.core import budget, logs, metrics
from api.core import config as settings
from api.core.cache import Cache
from api.core.config import Config
from api.core.keys import Keyring
from api.core.models import Clock, utc_now
from api.core.settings import origin
from api.core.tokens import Tokens
from api.db import deployment
from api.db.pool import Database, Observer
from api.files.service import Files
from api.http import adapter, error_handlers
from api.http.call import Desk
from api.http.middleware import Authentication, Metrics, RequestId
from api.http.openapi import Document
from api.jobs.base import Job
from api.jobs.feeder import Feeder
from api.jobs.queue import Queue
from api.jobs.runner import Runner
from api.operations.doctor import Doctor
from api.operations.figures import Figures
from api.operations.health import Health
from api.services import Services
from api.storage.base import MultipartStorage
from api.storage.local.storage import LocalStorage
from api.storage.stores import Stores
from api.sweep import Sweep
from api.sweep.moments import of_this_machine
from api.transfers.job import TransferJob
from api.transfers.plan import TransferPlanner
from api.transfers.service import Transfers
from api.uploads import part_urls
from api.uploads.finalize import Finalizer
from api.uploads.proof import Instant
from api.uploads.service import Uploads

# OWASP's second choice for argon2id (Password Storage Cheat Sheet): 19 MiB, two passes, one lane.
HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


def make_storages(config: Config, tokens: Tokens, prefix: Callable[[], str]) -> dict[str, MultipartStorage]:
    """Creates every configured storage, by name. The first takes new uploads."""
    made: dict[str, MultipartStorage] = {}
    for name, kind in config.storages.items():
        if kind == "s3":
            from api.storage.s3.storage import S3Storage  # imported here, since boto3 takes 0.3 s to import

            part_url = part_urls.through_edge(tokens, config.public_url, name)
            made[name] = S3Storage(config.s3[name], prefix, part_url=part_url)
        elif kind == "oss":
            from api.storage.oss.storage import OSSStorage  # likewise

            made[name] = OSSStorage(config.oss[name], prefix)
        else:
            assert config.storage_root is not None
            signs = part_urls.at_edge(tokens, config.public_url)
            made[name] = LocalStorage(config.storage_root, signs, config.min_free, prefix)
        metrics.observe_storage(name, made[name])
    return made


def compose(
    config: Config,
    *,
    db: Database | None = None,
    storage: MultipartStorage | Mapping[str, MultipartStorage] | None = None,
    clock: Clock = utc_now,
    hasher: PasswordHasher = HASHER,
    queue: Queue | None = None,
    observe: Observer = lambda sql, args: None,
) -> Services:
    """Creates the services, without using the database or a storage. Tests pass other parts."""
    db = db or Database(config.database_url, config.database_pool, observe)
    metrics.DATABASE_CONNECTIONS_MOST.set(config.database_pool)
    cache, tokens = Cache(config.redis_url), Tokens(Keyring(config.secret_keys, config.secret_keys_file))
    prefix = functools.cache(lambda: deployment.identity(db))
    given = {"local": storage} if isinstance(storage, MultipartStorage) else storage
    storages = given or make_storages(config, tokens, prefix)
    stores = Stores(storages, config.storages, config.tier_storages)
    queue = queue or Queue(config.queue_url or config.redis_url)
    context = Context(config, db, stores, queue, tokens, clock, prefix)
    instant = Instant(context)
    finalizer = Finalizer(context, instant)
    verifier = Verifier(context)
    revocations = Revocations(context)
    files = Files(context, revocations, Replicas(context))
    usage = Usage(context)
    planner = TransferPlanner(context)
    transfer = TransferJob(context)
    scrubber = Scrubber(context)
    mender = Mender(context, scrubber)
    kinds: dict[str, Job] = {job.kind: job for job in (finalizer, verifier, planner, transfer, scrubber, mender)}
    runner = Runner(db, kinds, queue, clock, config.job_tries)
    rescues = {finalizer.kind: (5.0, finalizer.rescue), verifier.kind: (60.0, verifier.rescue)}
    rescues[scrubber.kind] = (60.0, scrubber.plan)
    rescues[planner.kind] = (float(config.sweep_interval), planner.ensure)
    return Services(
        context=context,
        config=config,
        clock=clock,
        tokens=tokens,
        accounts=Accounts(context, revocations, cache, hasher),
        uploads=Uploads(context, instant, finalizer),
        files=files,
        transfers=Transfers(context, planner),
        revocations=revocations,
        sweep=Sweep(context, usage, of_this_machine(db, clock) if clock is utc_now else None),
        usage=usage,
        health=Health(db, cache, stores),
        doctor=Doctor(context, files),
        rescuer=Rescuer(context),
        jobs=kinds,
        queue=queue,
        runner=runner,
        feeder=Feeder(db, queue, clock, runner.run, rescues),
        figures=Figures(db),
    )


def create_app(services: Services) -> falcon.App[Any, Any]:
    """The WSGI application over these services."""
    app: falcon.App[Any, Any] = falcon.App()
    app.add_middleware(RequestId())
    app.add_middleware(Metrics())
    app.add_middleware(Authentication(services.accounts.identify, services.config.edge_key))
    # an empty query parameter is an error, not a missing one
    app.req_options.keep_blank_qs_values = True
    app.req_options.auto_parse_qs_csv = False
    error_handlers.install(app)
    desk = Desk(services.tokens, services.clock, origin(services.config.public_url))
    offered = [Document(routes.ROUTES), *(getattr(services, field.name) for field in fields(services))]
    for path, endpoint in adapter.endpoints(routes.ROUTES, offered, desk).items():
        app.add_route(path, endpoint)
    return app


def get_app() -> falcon.App[Any, Any]:
    """The application for gunicorn, with settings from the environment."""
    config = settings.load()
    logs.configure("api", config.log_level)
    db = Database(config.database_url, config.database_pool, statement_seconds=budget.STATEMENT_SECONDS)
    services = compose(config, db=db)
    services.health.probe_in_background()
    return create_app(services)
