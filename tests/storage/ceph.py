"""A real Ceph for the run, started by scripts/ceph; if Ceph is not installed, tests are skipped with a message."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers import free_port
from tests.waiting import await_true

SCRIPT = Path(__file__).parents[2] / "scripts" / "ceph"


@dataclass(frozen=True)
class Ceph:
    """A running Ceph.

    Attributes:
        environ: the environment that points `scripts/ceph` at this Ceph.
        settings: SLUICE_S3_* to use it.
    """

    folder: Path
    environ: dict[str, str]
    settings: dict[str, str]

    def run(self, *arguments: str) -> str:
        """Runs the script."""
        return subprocess.run(
            [SCRIPT, *arguments], env=os.environ | self.environ, check=True, capture_output=True, text=True
        ).stdout

    def tool(self, *command: str) -> str:
        """Runs one of Ceph's programs on it."""
        name, *arguments = command
        command = (name, "-c", str(self.folder / "ceph.conf"), *arguments)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def kill(self, daemon: str) -> None:
        """Kills mon.a, osd.0 or client.rgw; ``run("start")`` brings it back."""
        pid = int((self.folder / "run" / f"{daemon}.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        await_true(lambda: not _runs(pid), 30, f"{daemon} cannot be killed")


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@contextmanager
def running(folder: Path) -> Iterator[Ceph]:
    """Runs a new Ceph in a folder, and ends it."""
    # below the ephemeral ports, so that no other test takes one by chance
    base = 16_000 + os.getpid() % 100 * 100
    environ = {
        "CEPH_ROOT": str(folder),
        "RGW_PORT": str(free_port()),
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
    """Whether Ceph's packages are installed."""
    return shutil.which("radosgw") is not None
