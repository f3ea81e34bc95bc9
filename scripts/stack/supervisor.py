"""Starts the servers in order, keeps them running, and stops them in reverse order.

One loop sleeps until a signal (SIGCHLD included) or the next due action. One thread per server asks whether it
answers (`pulse`). The loop needs no disk space: on a full disk, a server that ended is still started again.
"""

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from types import FrameType

from scripts.stack import logs
from scripts.stack.process import NotReady, ServiceError, describe_end, end_group, end_leftover, reap_adopted, stop
from scripts.stack.pulse import Pulse
from scripts.stack.services import HANG_SECONDS, Service

BACKOFF = (0.1, 30.0)  # seconds before the second try, and the maximum; doubled each time
# Seconds. The backoff is reset after a server has run and answered for longer than this; tests set less.
WELL_AFTER = float(os.environ.get("STACK_WELL_SECONDS", "60"))
LOOK_EVERY = 1.0
LOGS_EVERY = 10.0
SAY_EVERY = 30.0

Say = Callable[[str], None]


class Stopped(BaseException):
    """The user (or the machine) wants the stack to stop. Raised out of any wait."""


class _Child:
    def __init__(self, service: Service) -> None:
        self.service = service
        self.pulse = Pulse(service)
        self.process: subprocess.Popen[bytes] | None = None
        self.deaths = 0  # consecutive
        self.started_at = 0.0
        self.start_at: float | None = None  # set while it waits for a restart
        self.was_ready = False  # during startup of the stack

    def spawn(self) -> None:
        self.start_at = None
        self.started_at = time.monotonic()
        self.pulse.restarted()
        self.process = self.service.spawn()

    @property
    def hangs(self) -> bool:
        """Whether it has given no answer for too long. The first answer may take as long as its start."""
        patience = HANG_SECONDS if self.pulse.answered else max(HANG_SECONDS, self.service.ready_seconds)
        return self.pulse.silent > patience


class Supervisor:
    """Holds the running servers.

    Use as a context manager: leaving the block, for any reason, stops all servers.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._children: list[_Child] = []
        self._wanted_to_stop = False
        self._wake, waker = socket.socketpair()
        waker.setblocking(False)
        self._waker = waker  # a reference, so that it is not closed

    def __enter__(self) -> "Supervisor":
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # this wakes the loop
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # With nohup, the stack outlives the terminal.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._on_stop)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for child in reversed(self._children):
            if child.process:
                stop(child.process, child.service.stop_signal, child.service.stop_seconds)
            (child.service.paths.pids / child.service.name).unlink(missing_ok=True)
        self._children.clear()

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._wanted_to_stop = True

    def pause(self, seconds: float) -> None:
        """Sleep until a signal arrives or the time is over.

        Raises:
            Stopped: the signal asks the stack to stop.
        """
        if not self._wanted_to_stop and select.select([self._wake], [], [], max(0.0, seconds))[0]:
            self._wake.recv(4096)
        if self._wanted_to_stop:
            raise Stopped

    def end_leftovers(self, services: list[Service]) -> None:
        """End processes that a killed supervisor left; the edge first, the database last."""
        for service in reversed(services):
            record = service.paths.pids / service.name
            if count := end_leftover(record, service.paths.data, service.stop_seconds):
                self._say(f"ended {count} process(es) of {service.name} that a killed run had left")

    def prepare(self, service: Service) -> None:
        service.prepare(self.pause)

    def start(self, *services: Service) -> None:
        """Start servers at the same time and wait until all of them answer.

        Raises:
            ServiceError: one ended. It is kept: `watch` would start it again.
            NotReady: one gave no answer in time.
        """
        children = [_Child(service) for service in services]
        for child in children:
            child.spawn()
            self._children.append(child)
        for child in children:
            self._await_ready(child)

    def _await_ready(self, child: _Child) -> None:
        service, begun = child.service, time.monotonic()
        say_at = begun + SAY_EVERY
        while not service.ready():
            assert child.process
            if child.process.poll() is not None:
                raise ServiceError(f"{service.name} {describe_end(child.process.returncode)} at its start", service.log)
            now = time.monotonic()
            if now - begun > service.ready_seconds:
                trouble = service.trouble() or "it gave no answer"
                raise NotReady(
                    f"{service.name} is not ready after {service.ready_seconds:.0f} s: {trouble}", service.log
                )
            for other in self._children:
                if other.was_ready:
                    self._look_after(other, now)
            if now > say_at:
                say_at = now + SAY_EVERY
                self._say(f"{service.name} is not ready after {now - begun:.0f} s; still waiting")
            self.pause(0.05)
        child.was_ready = True

    def start_later(self, service: Service) -> None:
        """Let `watch` start a server, with retries."""
        child = _Child(service)
        child.start_at = time.monotonic()
        self._children.append(child)

    def watch(self) -> None:
        """Restart servers that end or hang, until told to stop.

        Raises:
            Stopped: told to stop. No other exception ends it.
        """
        for child in self._children:
            child.pulse.start()
        logs_at = time.monotonic() + LOGS_EVERY
        told: dict[str, str] = {}
        while True:
            now = time.monotonic()
            for child in self._children:
                self._look_after(child, now)
                self._tell_trouble(child, told)
            reap_adopted({child.process.pid for child in self._children if child.process})
            if now >= logs_at:
                logs_at = now + LOGS_EVERY
                logs.cap(self._children[0].service.paths.log)
            due = [now + LOOK_EVERY, *(child.start_at for child in self._children if child.start_at is not None)]
            self.pause(min(due) - time.monotonic())

    def _look_after(self, child: _Child, now: float) -> None:
        name = child.service.name
        if child.start_at is not None:
            if now < child.start_at:
                return
            try:
                child.spawn()
            except OSError as ex:
                self._start_later(child, now, f"{name} cannot be started: {ex}")
            return
        assert child.process
        if child.process.poll() is None:
            if child.hangs:
                self._say(f"{name} gave no answer for {child.pulse.silent:.0f} s: it is killed")
                child.pulse.restarted()  # only once: a process that waits for a failed disk may take long to end
                child.process.kill()
            elif child.pulse.answered and now - child.started_at > WELL_AFTER:
                child.deaths = 0
            return
        end_group(child.process)
        self._start_later(child, now, f"{name} {describe_end(child.process.returncode)}")

    def _start_later(self, child: _Child, now: float, why: str) -> None:
        first, most = BACKOFF
        wait = min(most, first * 2 ** min(child.deaths, 20))
        child.deaths += 1
        child.start_at = now + wait
        again = "starting it again" if wait < 1 else f"for the {child.deaths}th time: starting it again in {wait:.0f} s"
        self._say(f"{why}; {again}")
        if wait >= most:
            for line in logs.last_lines(child.service.log, 3):
                self._say(f"  | {line}")

    def _tell_trouble(self, child: _Child, told: dict[str, str]) -> None:
        """Print a server's problem once, and once more when it is over."""
        name, trouble = child.service.name, child.pulse.trouble
        if trouble != told.get(name, ""):
            told[name] = trouble
            self._say(f"not well: {trouble}" if trouble else "all is well again")
