"""Measurements of a run, printed at its end; loadtest/README.md shows those of one run.

They are lines of the file TEST_FIGURES, because the tests of a run are several processes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.compose.engine import run
from tests.compose.images import BASE, has_image

IMAGES = ("sluice-edge", "sluice-api", "sluice-ceph")


def _file() -> Path:
    return Path(os.environ["TEST_FIGURES"])


def begin() -> None:
    _file().write_text("")


def note(what: str, value: str) -> None:
    with _file().open("a") as file:
        file.write(f"| {what} | {value} |\n")


def note_images() -> None:
    """Each image's size, and its size beyond the base image."""
    base = _megabytes(BASE)
    for name in filter(has_image, IMAGES):
        note(f"image {name}", f"{_megabytes(name):.0f} MB, {_megabytes(name) - base:.0f} MB beyond its base")


def _megabytes(image: str) -> float:
    return float(json.loads(run("docker", "image", "inspect", image))[0]["Size"]) / 1e6


def lines() -> list[str]:
    return _file().read_text().splitlines()
