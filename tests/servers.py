"""Servers for tests: free ports, and a server that can be killed and started again."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

from scripts.stack.process import end_group, make_folder
from scripts.stack.services import Service


def free_ports(count: int) -> list[int]:
    """Free ports of the loopback."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def free_port() -> int:
    """A free port of the loopback."""
    (port,) = free_ports(1)
    return port


class MortalServer:
    """A server that tests kill and start again."""

    def __init__(self, service: Service) -> None:
        self.service = service
        for folder in (service.paths.data, service.paths.run, service.paths.log, service.paths.pids):
            make_folder(folder)
        service.prepare(time.sleep)
        self.start()

    def start(self) -> None:
        self.process = self.service.spawn()
        self.service.await_ready(self.process, time.sleep)

    def kill(self) -> None:
        end_group(self.process)  # SIGKILL
