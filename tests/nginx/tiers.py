"""Tiers that the API's stand-in returns, and tokens of users who have them."""

import dataclasses
import uuid
from typing import Any

from api.core.tiers import Tier


def document(
    signup: tuple[float, int] = (1000, 1000), signin: tuple[float, int] = (1000, 1000), flush: int = 1, **tiers: Tier
) -> dict[str, Any]:
    """The response of /internal/tiers, with the built-in ``default``."""
    made = {name: dataclasses.asdict(tier) for name, tier in ({"default": Tier()} | tiers).items()}
    return {"tiers": made, "signup": signup, "signin": signin, "flush": flush}


def new_user(tier: str) -> dict[str, Any]:
    """The claims that identify a user."""
    return {"sub": uuid.uuid4().hex, "tier": tier}
