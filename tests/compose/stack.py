"""The compose file as a user runs it, in a private project."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.compose.engine import run
from tests.servers import free_port

CODE = Path(__file__).resolve().parents[2]
DEADLINE = 120.0
SERVICES = ("mariadb", "redis", "api", "worker", "edge")


def wait_for(condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """Polls until the condition holds. Returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} after {seconds:.0f} s"
        time.sleep(0.2)  # a poll: containers send no event
    return value


def own_address() -> str:
    """An address of this machine that its containers reach too. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def compose_command() -> list[str]:
    """Compose v2 if it is installed, else docker-compose."""
    v2 = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if v2.returncode == 0:
        return ["docker", "compose"]
    found = shutil.which("docker-compose")
    assert found, "neither `docker compose` nor docker-compose is installed"
    return [found]


def example(profile: str) -> dict[str, str]:
    """A profile's settings in .env.example."""
    text = (CODE / ".env.example").read_text()
    (block,) = [part for part in text.split("\n\n") if f"COMPOSE_PROFILES={profile}\n" in part]
    return dict(re.findall(r"^# ([A-Z0-9_]+)=(.*)$", block, re.M))


class Stack:
    """One project.

    Args:
        name: the project's name.
        folder: for its .env file, and an override if a test needs one.
        settings: lines of the .env file, in addition to a free port.
        override: an additional compose file, as text.
        interval: the interval of the health checks that are waited for, instead of the compose file's.
    """

    def __init__(
        self, name: str, folder: Path, settings: Mapping[str, str], override: str = "", interval: str = ""
    ) -> None:
        self.name = name
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.env_file = folder / f"{name}.env"
        self.settings = {
            "SLUICE_PORT": str(self.port),
            "SLUICE_ADDRESS": "0.0.0.0",  # noqa: S104 - containers reach it there, too
            "SLUICE_PUBLIC_URL": self.address,
            **settings,
        }
        self.files = [CODE / "docker-compose.yml"]
        checks = "".join(f"  {service}: {{healthcheck: {{interval: {interval}}}}}\n" for service in SERVICES)
        for kind, text in (("interval", f"services:\n{checks}" if interval else ""), ("override", override)):
            if text:
                self.files.append(folder / f"{name}.{kind}.yml")
                self.files[-1].write_text(text)

    # -- commands

    def compose(self, *arguments: str, check: bool = True) -> str:
        """The output of a compose command."""
        self.env_file.write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()))
        command = [
            *compose_command(),
            "--env-file",
            str(self.env_file),
            "-p",
            self.name,
            "--project-directory",
            str(CODE),
        ]
        command += [text for file in self.files for text in ("-f", str(file))]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "COMPOSE_"))
        }
        result = subprocess.run(
            [*command, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if check and result.returncode:
            raise AssertionError(
                f"compose {' '.join(arguments)} ended with {result.returncode}:\n{result.stdout[-6000:]}"
            )
        return result.stdout

    def up(self, *arguments: str, check: bool = True) -> str:
        return self.compose("up", "-d", "--no-build", *arguments, check=check)

    def down(self, *arguments: str) -> None:
        self.compose("down", "--remove-orphans", "-t", "30", *arguments)

    def wipe(self) -> None:
        self.compose("down", "--remove-orphans", "-v", "-t", "1", check=False)

    # -- state

    def containers(self, service: str) -> list[str]:
        """Ids of a service's containers, running or not, by their number."""
        filters = [f"label=com.docker.compose.project={self.name}", f"label=com.docker.compose.service={service}"]
        found = run("docker", "ps", "-aq", *(text for item in filters for text in ("--filter", item))).split()
        return sorted(found, key=lambda id_: self.inspect(id_)["Name"])

    def container(self, service: str) -> str:
        (found,) = self.containers(service)
        return found

    def inspect(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(run("docker", "inspect", container))[0]
        return found

    def started(self, *services: str) -> list[str]:
        """When each of these containers was last started."""
        ids = [container for service in services for container in self.containers(service)]
        return [str(self.inspect(id_)["State"]["StartedAt"]) for id_ in ids]

    def health(self, container: str) -> str:
        """healthy, unhealthy or starting; for a stopped container, its state."""
        state = self.inspect(container)["State"]
        return str(state["Health"]["Status"] if state["Running"] else state["Status"])

    def all_healthy(self, *services: str) -> bool:
        return all(
            self.health(container) == "healthy" for service in services for container in self.containers(service)
        )

    def wait_until_ready(self, *more: str, seconds: float = 240) -> None:
        services = (*SERVICES, *more)
        wait_for(lambda: self.all_healthy(*services), f"health of {', '.join(services)}", seconds)

    def seconds_until_ready(self) -> float:
        """Starts missing containers, and waits only for the edge: until it is ready."""
        began = time.monotonic()
        self.up()
        asked = ["docker", "exec", self.container("edge"), "/opt/sluice/deploy/healthy", "http", "8080", "/readyz"]
        wait_for(
            lambda: subprocess.run([*asked, '"status":"ok"'], capture_output=True, check=False).returncode == 0,
            "ready edge",
        )
        return time.monotonic() - began

    def logs(self, service: str) -> str:
        return "".join(run("docker", "logs", container) for container in self.containers(service))

    def volume(self, name: str) -> Path:
        """The path of a volume on this machine."""
        return Path(json.loads(run("docker", "volume", "inspect", f"{self.name}_{name}"))[0]["Mountpoint"])

    def exec(self, container: str, *command: str) -> str:
        return run("docker", "exec", container, *command)


@contextmanager
def running(name: str, folder: Path, override: str = "", interval: str = "2s", **settings: str) -> Iterator[Stack]:
    """A project that is removed afterwards. On failure, the ends of its logs are printed."""
    stack = Stack(name, folder, settings, override, interval)
    stack.wipe()
    try:
        yield stack
    except BaseException:
        print(stack.compose("ps", check=False))
        for service in ("init", "migrate", *SERVICES, "ceph", "ceph-init", "rabbitmq", "prometheus"):
            for container in stack.containers(service):
                state = json.dumps(stack.inspect(container)["State"].get("Health", {}).get("Log", [])[-1:])
                print(f"--- {service}: {run('docker', 'logs', '--tail', '15', container)}{state}")
        raise
    finally:
        stack.wipe()
