"""The services, without HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from api.accounts.revocations import Revocations
from api.accounts.service import Accounts
from api.accounts.usage import Usage
from api.blobs.rescue import Rescuer
from api.context import Context
from api.core.config import Config
from api.core.models import Clock
from api.core.tokens import Tokens
from api.files.service import Files
from api.jobs.base import Job
from api.jobs.feeder import Feeder
from api.jobs.queue import Queue
from api.jobs.runner import Runner
from api.operations.doctor import Doctor
from api.operations.figures import Figures
from api.operations.health import Health
from api.sweep import Sweep
from api.transfers.service import Transfers
from api.uploads.service import Uploads


@dataclass(frozen=True, slots=True)
class Services:
    """All services of a process; `api.app` creates them."""

    context: Context
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
    rescuer: Rescuer
    jobs: Mapping[str, Job]
    queue: Queue
    runner: Runner
    feeder: Feeder
    figures: Figures
