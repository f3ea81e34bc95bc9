"""Tiers: named sets of limits for accounts, links and shares. Tokens carry a tier's name.

``SLUICE_TIERS`` holds them in one line: ``name:limit=value,…; name:…``. If a tier leaves out a limit, it has that of
the tier ``default``, which may be changed too. The edge gets all tiers from the API, so a changed tier needs no new
tokens. If a token has an unknown tier, the limits of ``default`` apply.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_UNITS: Final = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_SIZE: Final = re.compile(r"([0-9]{1,15})([KMGT]?)")
_PACE: Final = re.compile(r"([0-9]{1,7})(?:\.([0-9]{1,3}))?/([0-9]{1,7})")


@dataclass(frozen=True, slots=True)
class Tier:
    """The limits of a tier; 0 means no limit.

    Attributes:
        connections: concurrent downloads.
        rate: bytes per second of all downloads together, and of all parts that nginx receives.
        api, part, download: requests as (rate per second, burst).
        daily, monthly: bytes of downloads per day and per month, in UTC.
        calls: concurrent API calls; further ones wait.
    """

    # 16 parallel parts, 1,000 signings, or a loop over a list stay far below these defaults
    connections: int = 32
    rate: int = 0
    api: tuple[float, int] = (500, 2000)
    part: tuple[float, int] = (1000, 4000)
    download: tuple[float, int] = (1000, 4000)
    daily: int = 0
    monthly: int = 0
    calls: int = 3


DEFAULT: Final = "default"
_LIMITS: Final = tuple(field.name for field in dataclasses.fields(Tier))


def _size(text: str) -> int:
    """A number of bytes: 1500, 64K, 10M, 5G, 1T."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError("is a number of bytes, such as 1500, 64K, 4M or 10G")
    return int(found[1]) * _UNITS[found[2]]


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,7}", text):
        raise ValueError("is a whole number")
    return int(text)


def _pace(text: str) -> tuple[float, int]:
    """A request rate per second and a burst, such as 20/40 or 0.5/10; 0 means no limit."""
    if text == "0":
        return (0, 0)
    found = _PACE.fullmatch(text)
    if not found:
        raise ValueError("is requests per second / burst, such as 20/40 or 0.5/10")
    pace, burst = float(f"{found[1]}.{found[2] or 0}"), int(found[3])
    if not pace or not burst:
        raise ValueError("has a rate and a burst above 0 (0 alone is no limit)")
    return (pace, burst)


_PARSERS: Final[Mapping[str, Any]] = {
    "connections": _count,
    "calls": _count,
    "rate": _size,
    "api": _pace,
    "part": _pace,
    "download": _pace,
    "daily": _size,
    "monthly": _size,
}


def parse(value: str) -> dict[str, Tier]:
    """Parses ``SLUICE_TIERS``. The result always has ``default``.

    Raises:
        ValueError: with all problems.
    """
    given: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    for entry in filter(None, (item.strip() for item in value.split(";"))):
        name, _, limits = (text.strip() for text in entry.partition(":"))
        if not _NAME.fullmatch(name):
            problems.append(f"{name or entry!r} is no name of a tier")
        elif name in given:
            problems.append(f"{name} is there twice")
        else:
            given[name] = _limits(name, limits, problems)
    if problems:
        raise ValueError("has problems: " + "; ".join(problems))
    default = Tier(**given.pop(DEFAULT, {}))
    return {DEFAULT: default} | {name: dataclasses.replace(default, **own) for name, own in given.items()}


def _limits(tier: str, text: str, problems: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (part.strip() for part in item.partition("="))
        if name not in _PARSERS or not equals:
            problems.append(f"{tier}: {item} is none of {', '.join(f'{limit}=…' for limit in _LIMITS)}")
        elif name in found:
            problems.append(f"{tier}: {name} is there twice")
        else:
            try:
                found[name] = _PARSERS[name](value)
            except ValueError as ex:
                problems.append(f"{tier}: {name} {ex}")
    return found


def show(tiers: Mapping[str, Tier]) -> str:
    """The tiers in the format of SLUICE_TIERS, which ``parse`` reads."""
    return "; ".join(f"{name}:{','.join(_show(tier))}" for name, tier in tiers.items())


def _show(tier: Tier) -> list[str]:
    shown = []
    for name in _LIMITS:
        value = getattr(tier, name)
        if isinstance(value, tuple):
            value = f"{value[0]:.3f}".rstrip("0").rstrip(".") + f"/{value[1]}" if value[0] else 0
        shown.append(f"{name}={value}")
    return shown


def document(tiers: Mapping[str, Tier], **more: object) -> tuple[str, dict[str, Any]]:
    """The document for edges, and a version that changes with its content."""
    told = {"tiers": {name: dataclasses.asdict(tier) for name, tier in tiers.items()}, **more}
    return hashlib.sha256(msgspec.json.encode(told, order="sorted")).hexdigest()[:16], told
