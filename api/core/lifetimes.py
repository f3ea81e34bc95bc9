"""How long tokens, URLs and rows live, in seconds. Each lifetime is defined only here.

Settings change some of them (`api.core.config`); these are the defaults and the bounds.
"""

from __future__ import annotations

from typing import Final

ACCESS: Final = 900
"""An access token: as long as an edge that lost its revocations may still accept tokens."""
REFRESH: Final = 30 * 86_400
"""A refresh token, and an unused session."""
LINK: Final = 3600
"""A link, if its maker names no other life."""
LINK_MOST: Final = 7 * 86_400
"""A link at most. A key that signed one is needed that long."""
CURSOR: Final = 7 * 86_400
"""A cursor of a list."""
PART_URL: Final = 900
"""The URL of a part: as long as a slow client needs to send one."""
UPLOAD: Final = 7 * 86_400
"""An unfinished upload, as docs/api.md promises."""
TARGET: Final = 86_400
"""A GET that is signed for the edge; the edge asks again long before."""


def longest_token(refresh: int) -> int:
    """The life of the token that lives longest, by which a key may be retired.

    Args:
        refresh: SLUICE_REFRESH_TTL.
    """
    return max(refresh, ACCESS, LINK_MOST, CURSOR, PART_URL)
