"""What the API's stand-in says of tiers, and tokens of users who have them."""

import dataclasses
import uuid
from typing import Any

from api.core.tiers import Tier


def document(
    signup: tuple[float, int] = (1000, 1000), signin: tuple[float, int] = (1000, 1000), flush: int = 1, **tiers: Tier
) -> dict[str, Any]:
    """The answer of /internal/tiers, with the built-in ``default``."""
    made = {name: dataclasses.asdict(tier) for name, tier in ({"default": Tier()} | tiers).items()}
    return {"tiers": made, "signup": signup, "signin": signin, "flush": flush}


def new_user(tier: str) -> dict[str, Any]:
    """The claims that tell one user from another."""
    return {"sub": uuid.uuid4().hex, "tier": tier}
