"""The images of a run: Sluice's, a bare Debian, and stand-ins for the public images if there is no registry."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.compose.engine import run
from tests.compose.stack import Stack

STANDINS = Path(__file__).parent / "standins"
BASE = "debian:bookworm-slim"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PUBLIC = {
    "mariadb": "mariadb:10.11.11",
    "redis": "redis:7.2.7",
    "rabbitmq": "rabbitmq:3.13.7",
    "prometheus": "prom/prometheus:v2.53.4",
}

# As in Docker's Debian images: no manuals, and no fsync, because a layer is complete or absent.
DPKG = """force-unsafe-io
path-exclude /usr/share/doc/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
"""


def make(folder: Path, standins: bool, short: bool) -> None:
    """Makes the missing images.

    Args:
        folder: for intermediate files.
        standins: makes stand-ins for the public images.
        short: without the images of the profiles.
    """
    profiles = [] if short else ["rabbitmq", "prometheus"]
    if standins:
        make_base(folder)
    # two at a time, because half of the time is waiting for packages
    with ThreadPoolExecutor() as pool:
        ours = pool.submit(build_ours, folder, "edge", "api", *([] if short else ["ceph"]))
        others = pool.submit(make_standins, "mariadb", "redis", *profiles) if standins else None
        ours.result()
        if others:
            others.result()


def build_ours(folder: Path, *services: str) -> None:
    Stack("sluice-build", folder, {"COMPOSE_PROFILES": "ceph"}).compose("build", *services)


def has_image(name: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode == 0


def make_base(folder: Path) -> None:
    """A bare Debian under the public image's name, with this machine's trusted certificates and pip settings."""
    if has_image(BASE):
        return
    root = folder / "base"
    shutil.rmtree(root, ignore_errors=True)
    run("debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(root))
    shutil.copyfile(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
    (root / "etc" / "pip.conf").write_text(f"[global]\ncert = {CERTIFICATES}\n")
    (root / "etc" / "dpkg" / "dpkg.cfg.d" / "docker").write_text(DPKG)
    left_out = [f"--exclude=.{path}" for path in ("/var/cache/apt", "/var/lib/apt/lists")]
    run("bash", "-c", f"tar -C '{root}' {' '.join(left_out)} -c . | docker import - {BASE}")
    shutil.rmtree(root)


def make_standins(*names: str) -> None:
    """The public images, made of Debian's packages: the same variables, data paths and users."""
    for name in names:
        if not has_image(PUBLIC[name]):
            run("docker", "build", "-q", "--target", name, "-t", PUBLIC[name], str(STANDINS))
