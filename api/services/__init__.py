"""The rules of the product; nothing here knows about HTTP."""

from __future__ import annotations

from dataclasses import dataclass

from api.config import Config
from api.models import Clock
from api.services.accounts import Accounts
from api.services.doctor import Doctor
from api.services.figures import Figures
from api.services.files import Files
from api.services.finalize import Finalizer
from api.services.health import Health
from api.services.revocations import Revocations
from api.services.sweep import Sweep
from api.services.uploads import Uploads
from api.services.usage import Usage
from api.services.verify import Verifier
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
    finalizer: Finalizer
    verifier: Verifier
    revocations: Revocations
    sweep: Sweep
    usage: Usage
    health: Health
    doctor: Doctor
    figures: Figures
