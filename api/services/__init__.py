"""The rules of the product; nothing here knows about HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from api.config import Config
from api.jobs.base import Job
from api.jobs.feeder import Feeder
from api.jobs.queue import Queue
from api.jobs.runner import Runner
from api.models import Clock
from api.services.accounts import Accounts
from api.services.doctor import Doctor
from api.services.figures import Figures
from api.services.files import Files
from api.services.health import Health
from api.services.revocations import Revocations
from api.services.sweep import Sweep
from api.services.transfers import Transfers
from api.services.uploads import Uploads
from api.services.usage import Usage
from api.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a process may need, put together by `api.app`."""

    config: Config
    clock: Clock
    tokens: Tokens
    accounts: Accounts
    uploads: Uploads
    files: Files
    transfers: Transfers
    revocations: Revocations
    sweep: Sweep
    usage: Usage
    health: Health
    doctor: Doctor
    jobs: Mapping[str, Job]
    queue: Queue
    runner: Runner
    feeder: Feeder
    figures: Figures
