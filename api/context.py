"""The shared parts that every service needs; `api.app` creates them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from api.core.config import Config
from api.core.models import Clock
from api.core.tokens import Tokens
from api.db.pool import Database
from api.jobs.queue import Queue
from api.storage.stores import Stores


@dataclass(frozen=True, slots=True)
class Context:
    """The parts that services share.

    Attributes:
        prefix: returns the prefix of this deployment's object keys; reads it from the database once.
    """

    config: Config
    db: Database
    stores: Stores
    queue: Queue
    tokens: Tokens
    clock: Clock
    prefix: Callable[[], str]
