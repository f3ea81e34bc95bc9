"""The composition root: the only place that knows every part, and what it is made of."""

from __future__ import annotations

import functools
from typing import Any

import falcon
from argon2 import PasswordHasher

from api import config as settings
from api import error_handlers, logs, routes
from api.cache import Cache
from api.config import Config
from api.db import deployment
from api.db.pool import Database, Observer
from api.middleware import Authentication, RequestId
from api.models import Clock, utc_now
from api.services import Services
from api.services.accounts import Accounts
from api.services.creation import Creation
from api.services.files import Files
from api.services.finalize import Finalizer
from api.services.health import Health
from api.services.instant import Instant
from api.services.progress import Progress
from api.services.revocations import Revocations
from api.services.stores import Stores
from api.services.sweep import Sweep
from api.services.uploads import Uploads
from api.storage.base import MultipartRef, MultipartStorage
from api.storage.local import LocalStorage, PartURL
from api.tokens import Tokens

# OWASP's second choice for argon2id (Password Storage Cheat Sheet): 19 MiB, two passes, one lane.
HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


def edge_part_url(tokens: Tokens, public_url: str) -> PartURL:
    """Signs the URLs at which nginx takes parts for storage ``local``."""

    def sign(ref: MultipartRef, number: int, length: int, expires_at: int) -> str:
        claims = {
            "upload": ref.upload_id,
            "part": number,
            "size": length,
            "sub": ref.user_id,
            "gen": ref.generation,
            "exp": expires_at,
        }
        return f"{public_url}/p/{tokens.sign('part', claims)}"

    return sign


def compose(
    config: Config,
    *,
    db: Database | None = None,
    storage: MultipartStorage | None = None,
    clock: Clock = utc_now,
    hasher: PasswordHasher = HASHER,
    observe: Observer = lambda sql, args: None,
) -> Services:
    """Puts the services together; nothing is asked of database or storage yet. Tests pass parts of their own."""
    db = db or Database(config.database_url, config.database_pool, observe)
    cache, tokens = Cache(config.redis_url), Tokens(config.secret_keys)
    if storage is None:
        part_url = edge_part_url(tokens, config.public_url)
        storage = LocalStorage(config.storage_root, part_url, config.min_free)
    stores = Stores({"local": storage}, "local")
    instant = Instant(db, stores, tokens, config, clock)
    finalizer = Finalizer(db, stores, instant, clock)
    prefix = functools.cache(lambda: deployment.identity(db))
    progress = Progress(db, stores, instant, clock)
    creation = Creation(db, stores, instant, progress, config, clock, prefix)
    return Services(
        config=config,
        clock=clock,
        tokens=tokens,
        accounts=Accounts(db, cache, tokens, config, clock, hasher),
        uploads=Uploads(db, cache, stores, instant, finalizer, creation, progress, config, clock),
        files=Files(db, stores, tokens, config, clock),
        finalizer=finalizer,
        revocations=Revocations(db, clock),
        sweep=Sweep(db, stores, config, clock),
        health=Health(db, cache, stores),
    )


def create_app(services: Services) -> falcon.App[Any, Any]:
    """The WSGI application over these services."""
    app: falcon.App[Any, Any] = falcon.App()
    app.add_middleware(RequestId())
    app.add_middleware(Authentication(services.accounts, services.config.edge_key))
    # an empty parameter is said to be wrong, not taken for one that is not there
    app.req_options.keep_blank_qs_values = True
    app.req_options.auto_parse_qs_csv = False
    error_handlers.install(app)
    for path, resource in routes.routes(services):
        app.add_route(path, resource)
    return app


def get_app() -> falcon.App[Any, Any]:
    """What gunicorn serves, from the environment's settings."""
    config = settings.load()
    logs.configure("api", config.log_level)
    return create_app(compose(config))
