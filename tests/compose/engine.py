"""A private container engine: dockerd in a folder.

If the machine has an engine, it is not touched. All that is started is ended and removed again. If DOCKER_HOST
is set, that engine is used instead.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BRIDGE = "sluicetest0"
NETWORKS = ipaddress.ip_network("10.213.0.0/16")


class CannotStart(Exception):
    """No engine can be started here; the message says why."""


def run(*command: str, **more: object) -> str:
    """Runs a command. Returns its output.

    Raises:
        subprocess.CalledProcessError: it failed; its output is shown.
    """
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **more)  # type: ignore[call-overload]
    if result.returncode:
        print(result.stdout[-8000:])
        raise subprocess.CalledProcessError(result.returncode, command, result.stdout)
    return str(result.stdout)


@contextmanager
def engine(folder: Path) -> Iterator[str]:
    """Runs an engine. Yields its DOCKER_HOST.

    Args:
        folder: keeps images and layers.

    Raises:
        CannotStart: with the reason.
    """
    if given := os.environ.get("DOCKER_HOST"):
        yield given
        return
    if os.geteuid() != 0:
        raise CannotStart("only root can start an engine")
    folder.mkdir(parents=True, exist_ok=True)
    host = f"unix://{folder}/docker.sock"
    gateway = f"{NETWORKS[-2]}/24"
    if subprocess.run(["ip", "link", "add", BRIDGE, "type", "bridge"], capture_output=True, check=False).returncode:
        remove_bridge()  # of a killed run
        result = subprocess.run(["ip", "link", "add", BRIDGE, "type", "bridge"], capture_output=True, check=False)
        if result.returncode:
            raise CannotStart(f"no bridge can be made here: {result.stderr.decode().strip()}")
    run("ip", "address", "add", gateway, "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    log = folder / "log"
    command = ["dockerd", "--data-root", f"{folder}/root", "--exec-root", f"{folder}/exec", "-H", host]
    command += ["--pidfile", f"{folder}/pid", "--bridge", BRIDGE]
    command += ["--default-address-pool", f"base={NETWORKS},size=24"]
    (folder / "pid").unlink(missing_ok=True)
    # An engine deletes networks that it finds from earlier, and docker0 with them, even another engine's.
    shutil.rmtree(folder / "root" / "network", ignore_errors=True)
    with open(log, "wb") as output:
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_for_engine(daemon, host, log)
        yield host
    finally:
        remove_everything(host)
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        # its folder is mounted on itself, and may still be after its end
        subprocess.run(["umount", f"{folder}/root"], capture_output=True, check=False)
        remove_bridge()


def remove_everything(host: str) -> None:
    """Removes what a failed or killed test left; a network's bridge would outlive the engine."""
    docker = f"docker -H {host}"
    for command in (
        f"{docker} ps -aq | xargs -r {docker} rm -fv",
        f"{docker} network prune -f",
        f"{docker} volume ls -q | xargs -r {docker} volume rm -f",
    ):
        subprocess.run(["bash", "-c", command], capture_output=True, check=False)


def remove_bridge() -> None:
    subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True, check=False)


def wait_for_engine(daemon: subprocess.Popen[bytes], host: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while subprocess.run(["docker", "-H", host, "info"], capture_output=True, check=False).returncode:
        if daemon.poll() is not None or time.monotonic() > deadline:
            said = [line for line in log.read_text().splitlines() if "level=error" in line or "failed" in line]
            raise CannotStart(f"dockerd does not start: {said[-1] if said else 'no answer'}")
        time.sleep(0.2)  # a poll: dockerd sends no event
