"""The results of uploads."""

from __future__ import annotations

from dataclasses import dataclass

from sluice.models import File


@dataclass(frozen=True)
class UploadResult:
    """The result of an upload.

    Attributes:
        instant: the server had the content: any bytes that were sent were not needed.
        existing: the file was there before, name and all: nothing was stored.
        sent: bytes that were sent.
        kept: bytes that an earlier run, or another machine, had sent.
    """

    file: File
    instant: bool
    sent: int
    kept: int
    existing: bool = False
