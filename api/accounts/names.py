"""The names that accounts may have."""

from __future__ import annotations

import re
from typing import Final

from api.core import errors
from api.core.errors import Problem

_USERNAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{2,63}")


def check_username(username: str) -> str:
    """A username in lower case. Raises Problem USERNAME_INVALID."""
    lowered = username.lower()
    if not _USERNAME.fullmatch(lowered):
        raise Problem(errors.USERNAME_INVALID)
    return lowered
