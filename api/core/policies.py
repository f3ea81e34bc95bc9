"""Transfer policies: when blobs are copied or moved from one storage to another.

Example: ``replicate:main>archive after 0s; move:local>main after 1h keep 7d``. ``→`` and ``->`` mean the same as ``>``.
``after`` is the age of a replica when it is copied. ``keep`` is how long the source of a moved blob is kept beside its
copy. Both are 0 by default. A time is a number of seconds, or a number with s, m, h or d.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_POLICY: Final = re.compile(
    r"(?P<verb>replicate|move)\s*:\s*(?P<source>[a-z][a-z0-9_]{0,31})\s*(?:>|->|→)\s*(?P<destination>[a-z][a-z0-9_]{0,31})"
    r"(?:\s+after\s+(?P<after>\S+))?(?:\s+keep\s+(?P<keep>\S+))?"
)
_SPAN: Final = re.compile(r"(\d{1,10})([smhd]?)")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
LONGEST: Final = 10 * 366 * 86_400
"""Longest time in a policy, in seconds."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy.

    Attributes:
        after: age of a replica at which it is copied, in seconds.
        keep: seconds for which the source is kept after the copy; for a move only.
    """

    source: str
    destination: str
    move: bool
    after: int
    keep: int

    @property
    def name(self) -> str:
        """Identifies the policy and its rows, also if its times are changed."""
        return f"{'move' if self.move else 'replicate'}:{self.source}>{self.destination}"

    def __str__(self) -> str:
        return f"{self.name} after {self.after}s" + (f" keep {self.keep}s" if self.move else "")


def span(text: str) -> int:
    """Seconds of ``90``, ``90s``, ``15m``, ``1h`` or ``7d``. Raises ValueError."""
    match = _SPAN.fullmatch(text)
    if match is None or int(match[1]) * _UNITS[match[2]] > LONGEST:
        raise ValueError(f"has {text!r} where a time such as 0s, 15m, 1h or 7d (at most 10 years) belongs")
    return int(match[1]) * _UNITS[match[2]]


def policies(value: str) -> tuple[Policy, ...]:
    """Parses the setting. Raises ValueError with all problems."""
    found: list[Policy] = []
    problems: list[str] = []
    for item in filter(None, (part.strip() for part in value.split(";"))):
        try:
            policy = _parse(item)
        except ValueError as ex:
            problems.append(str(ex))
            continue
        if policy.name in {other.name for other in found}:
            problems.append(f"names {policy.name} twice")
        found.append(policy)
    problems += _circles(found)
    if problems:
        raise ValueError("; it ".join(problems))
    return tuple(found)


def _parse(item: str) -> Policy:
    match = _POLICY.fullmatch(item)
    if match is None:
        raise ValueError(
            f"has {item!r}, which is not like replicate:main>archive after 0s or move:a>b after 1h keep 7d"
        )
    move = match["verb"] == "move"
    if match["source"] == match["destination"]:
        raise ValueError(f"has {item!r}: from a storage to itself")
    if match["keep"] and not move:
        raise ValueError(f"has {item!r}: keep is for a move, what is replicated stays")
    return Policy(match["source"], match["destination"], move, span(match["after"] or "0"), span(match["keep"] or "0"))


def _circles(found: Sequence[Policy]) -> Iterable[str]:
    """Problems of moves whose blobs would return to their source and be moved forever."""
    ways: dict[str, set[str]] = {}
    for policy in found:
        ways.setdefault(policy.source, set()).add(policy.destination)
    for policy in found:
        reached, new = set[str](), {policy.destination}
        while new:
            reached |= new
            new = set().union(*(ways.get(name, set()) for name in new)) - reached
        if policy.move and policy.source in reached:
            yield f"has {policy.name}, whose blobs would come back to {policy.source}"


def unknown(found: Sequence[Policy], storages: Iterable[str]) -> list[str]:
    """A problem for every storage of a policy that is not configured."""
    known = set(storages)
    return [
        f"SLUICE_TRANSFER_POLICIES names {name} in {policy.name}, which SLUICE_STORAGES does not"
        for policy in found
        for name in (policy.source, policy.destination)
        if name not in known
    ]
