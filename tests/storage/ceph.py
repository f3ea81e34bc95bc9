"""A real Ceph for the run, by the project's own script; skipped loudly where Ceph is not installed."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "ceph"


@dataclass(frozen=True)
class Ceph:
    """A running Ceph.

    Attributes:
        environ: what `scripts/ceph` takes to mean this one.
        settings: SLUICE_S3_* to use it.
    """

    folder: Path
    environ: dict[str, str]
    settings: dict[str, str]

    def run(self, verb: str) -> str:
        """Runs the script."""
        return subprocess.run(
            [SCRIPT, verb], env=os.environ | self.environ, check=True, capture_output=True, text=True
        ).stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(folder: Path) -> Iterator[Ceph]:
    """A new Ceph in a folder, and its end."""
    # below the ephemeral ports, where nothing that the tests do takes one by chance
    base = 16_000 + os.getpid() % 100 * 100
    environ = {
        "CEPH_ROOT": str(folder),
        "RGW_PORT": str(_free_port()),
        "CEPH_PORT": str(base),
        "OSD_GB": "4",
        "RGW_MIN_PART": "65536",
    }
    ceph = Ceph(folder, environ, {})
    try:
        ceph.run("start")
        words = shlex.split(ceph.run("env"))[1:]
        yield Ceph(folder, environ, dict(word.split("=", 1) for word in words))
    finally:
        ceph.run("wipe")


def installed() -> bool:
    """Whether Ceph's packages are there."""
    return shutil.which("radosgw") is not None
