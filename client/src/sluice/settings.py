"""The settings of transfers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sluice.errors import ConfigError

INSTANT_MODES = ("auto", "always", "never")


@dataclass(frozen=True)
class Settings:
    """See docs/client.md for each.

    Attributes:
        parallel: parts, ranges or small files that are transferred concurrently.
        hashers: parts that are hashed concurrently.
        instant: whether files are hashed before they are sent, so that content which the server has is not sent:
            ``auto`` (if the network is slower than hashing), ``always``, ``never``, or the least size in bytes.
        limit_rate: bytes per second, all connections together.
        patience: seconds for which something is tried again without any success.
        ca_file: certificates to trust besides the system's.
        sync: whether a downloaded file is written through to the disk before it gets its name.
    """

    parallel: int = 4
    hashers: int = min(4, os.cpu_count() or 1)
    instant: str | int = "auto"
    limit_rate: float | None = None
    patience: float = 120.0
    ca_file: Path | None = None
    sync: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.parallel <= 64:
            raise ConfigError("parallel is from 1 to 64")
        if self.hashers < 1:
            raise ConfigError("hashers is at least 1")
        if isinstance(self.instant, str) and self.instant not in INSTANT_MODES:
            raise ConfigError(f"instant is a size or one of {', '.join(INSTANT_MODES)}")
        if self.limit_rate is not None and self.limit_rate <= 0:
            raise ConfigError("limit_rate is more than nothing")
