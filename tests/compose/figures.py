"""What a run measured, shown at its end; docs/performance.md holds a run's figures."""

from __future__ import annotations

import json

from tests.compose.engine import BASE, run

IMAGES = ("sluice-edge", "sluice-api", "sluice-ceph")
_noted: list[tuple[str, str]] = []


def note(what: str, value: str) -> None:
    _noted.append((what, value))


def note_images() -> None:
    """Each image's size, and what of it is ours: beyond the base."""
    size = {name: json.loads(run("docker", "image", "inspect", name))[0]["Size"] / 1e6 for name in (BASE, *IMAGES)}
    for name in IMAGES:
        note(f"image {name}", f"{size[name]:.0f} MB, {size[name] - size[BASE]:.0f} MB beyond its base")


def lines() -> list[str]:
    return [f"| {what} | {value} |" for what, value in _noted]
