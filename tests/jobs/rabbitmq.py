"""A private RabbitMQ node: separate folder, ports, Erlang port mapper and cookie. It does not touch the system's."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.stack.paths import Paths
from scripts.stack.process import make_folder
from scripts.stack.services import Pause, Service
from tests.servers import free_ports

# Debian's command of that name runs as the user rabbitmq only.
_SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"


class RabbitMQ(Service):
    """A node, see the module's docstring.

    Args:
        folder: the data folder; a node that is restarted on it keeps its durable queues.
    """

    name = "rabbitmq"
    ready_seconds = 120

    def __init__(self, folder: Path | Paths) -> None:
        super().__init__(folder)
        self.port, self._mapper, self._distribution = free_ports(3)
        self._home = self.paths.data / "rabbitmq"

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def prepare(self, pause: Pause) -> None:
        make_folder(self._home)
        (self._home / "enabled_plugins").write_text("[].\n")
        (self._home / "enabled_plugins").chmod(0o644)

    def command(self) -> Sequence[str]:
        # erl would start a port mapper that outlives it; this one is in the node's process group, and ends with it
        return ["bash", "-c", f"epmd -address 127.0.0.1 -port {self._mapper} & exec {_SERVER}"]

    def environment(self) -> Mapping[str, str]:
        return {
            "HOME": str(self._home),
            "ERL_EPMD_PORT": str(self._mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self._home / "none"),
            "RABBITMQ_NODENAME": f"sluice{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": str(self._home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._home / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._home / "enabled_plugins"),
            # one scheduler that does not spin, because the machine has other work
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def ready(self) -> bool:
        """Whether it answers AMQP's greeting with Connection.Start, a method frame (AMQP 0-9-1, section 4.2)."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"
        except OSError:
            return False
