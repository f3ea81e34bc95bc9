"""Starts the servers in order, keeps them running, and stops them in the opposite order.

One thread, one loop: it sleeps until a signal (a child's end is one) or the next thing that is due.
"""

import select
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable
from types import FrameType

from scripts.stack import logs
from scripts.stack.process import ServiceError, describe_end, end_group, end_leftover, stop
from scripts.stack.services import Service

DEATHS_MAX = 5
DEATHS_WITHIN = 60.0
BACKOFF = (0.1, 5.0)  # seconds before the second try, and at most; doubled each time
LOGS_EVERY = 10.0

Say = Callable[[str], None]


class Stopped(BaseException):
    """The person (or the machine) wants the stack to stop; raised out of any wait."""


class _Child:
    def __init__(self, service: Service, process: "subprocess.Popen[bytes]") -> None:
        self.service = service
        self.process = process
        self.deaths: deque[float] = deque(maxlen=DEATHS_MAX)
        self.start_at: float | None = None  # set while it waits to be started again


class Supervisor:
    """Holds the running servers.

    Use as a context manager: leaving it, for whatever reason, stops all that was started.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._children: list[_Child] = []
        self._wanted_to_stop = False
        self._wake, waker = socket.socketpair()
        waker.setblocking(False)
        self._waker = waker  # kept from being closed

    def __enter__(self) -> "Supervisor":
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # enough to wake the loop
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup asks to outlive the terminal
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._on_stop)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for child in reversed(self._children):
            stop(child.process, child.service.stop_signal, child.service.stop_seconds)
            (child.service.paths.pids / child.service.name).unlink(missing_ok=True)
        self._children.clear()

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._wanted_to_stop = True

    def pause(self, seconds: float) -> None:
        """Sleep until a signal comes or the time is over.

        Raises:
            Stopped: the signal was one that ends the stack.
        """
        if not self._wanted_to_stop and select.select([self._wake], [], [], max(0.0, seconds))[0]:
            self._wake.recv(4096)
        if self._wanted_to_stop:
            raise Stopped

    def end_leftovers(self, services: list[Service]) -> None:
        """End what a killed supervisor left; the edge first, the database last."""
        for service in reversed(services):
            record = service.paths.pids / service.name
            if count := end_leftover(record, service.paths.data, service.stop_seconds):
                self._say(f"ended {count} process(es) of {service.name} that a killed run had left")

    def prepare(self, service: Service) -> None:
        service.prepare(self.pause)

    def start(self, *services: Service) -> None:
        """Start servers at the same time and wait until all of them answer.

        Raises:
            ServiceError: one did not.
        """
        children = []
        for service in services:
            child = _Child(service, service.spawn())
            self._children.append(child)
            children.append(child)
        for child in children:
            child.service.await_ready(child.process, self.pause)

    def watch(self) -> None:
        """Start again whatever ends, until told to stop.

        Raises:
            Stopped: when told.
            ServiceError: a server ended too often.
        """
        logs_at = time.monotonic() + LOGS_EVERY
        while True:
            now = time.monotonic()
            for child in self._children:
                self._look_after(child, now)
            if now >= logs_at:
                logs_at = now + LOGS_EVERY
                logs.cap(self._children[0].service.paths.log)
            due = [logs_at, *(child.start_at for child in self._children if child.start_at is not None)]
            self.pause(min(due) - time.monotonic())

    def _look_after(self, child: _Child, now: float) -> None:
        if child.start_at is not None:
            if now >= child.start_at:
                child.start_at = None
                child.process = child.service.spawn()
            return
        if child.process.poll() is None:
            return
        end_group(child.process)
        child.deaths.append(now)
        name, how = child.service.name, describe_end(child.process.returncode)
        recent = [death for death in child.deaths if now - death < DEATHS_WITHIN]
        if len(recent) >= DEATHS_MAX:
            raise ServiceError(
                f"{name} {how}, for the {DEATHS_MAX}th time within {DEATHS_WITHIN:.0f} s", child.service.log
            )
        first, most = BACKOFF
        child.start_at = now + min(most, first * 2 ** (len(recent) - 1))
        self._say(f"{name} {how}; starting it again")
