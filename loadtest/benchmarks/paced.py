"""Requests at a fixed rate, independent of responses: measures from when each was due to the last byte of its response.

One stream of requests goes to several servers in random turns, so that pauses of the machine affect all of them.
"""

from __future__ import annotations

import random
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack

from loadtest.benchmarks.wrk import Load

_BYTES = 65536


class _Arm:
    """One server's kept connections, and their pending requests."""

    def __init__(self, load: Load, stack: ExitStack) -> None:
        self._requests = [f"{load.method} {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode() for path in load.paths]
        self._stack = stack
        self.connections = [self._connect(load.port) for _ in range(load.connections)]
        self._free = deque(self.connections)
        self._due: deque[float] = deque()
        self._asked: dict[int, float] = {}
        self._missing: dict[int, int] = {}
        self._count = 0
        self._length = self._warm_up()
        self.times: list[float] = []

    def _connect(self, port: int) -> socket.socket:
        connection = self._stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _warm_up(self) -> int:
        """Sends one request on each connection. Returns the length that every response must have."""
        for connection in self.connections:
            connection.sendall(self._requests[0])
            answer = connection.recv(_BYTES)
            head, _, body = answer.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split()[0])
            while len(body) < length:
                body += connection.recv(_BYTES)
        return len(head) + 4 + length

    def ask(self, due: float) -> None:
        """Sends a request on a free connection, or on the next one that becomes free."""
        self._due.append(due)
        self._send()

    def _send(self) -> None:
        if self._due and self._free:
            connection = self._free.popleft()
            self._asked[connection.fileno()] = self._due.popleft()
            self._missing[connection.fileno()] = self._length
            connection.sendall(self._requests[self._count % len(self._requests)])
            self._count += 1

    def read(self, connection: socket.socket) -> bool:
        """Whether the response is complete. Raises SystemExit if it is an error."""
        data = connection.recv(_BYTES)
        number = connection.fileno()
        if (self._missing[number] == self._length and not data.startswith(b"HTTP/1.1 200 ")) or not data:
            raise SystemExit(f"not an answer: {data[:100]!r}")
        self._missing[number] -= len(data)
        if self._missing[number] > 0:
            return False
        self.times.append(time.perf_counter() - self._asked[number])
        self._free.append(connection)
        self._send()
        return True


def times(loads: Sequence[Load], rate: int, seconds: float) -> list[list[float]]:
    """Response times in seconds, by server. Each server gets `rate` requests per second."""
    with ExitStack() as stack:
        poll = stack.enter_context(select.epoll())
        arms = [_Arm(load, stack) for load in loads]
        waiting = {connection.fileno(): (arm, connection) for arm in arms for connection in arm.connections}
        for number in waiting:
            poll.register(number, select.EPOLLIN)
        turns = [arm for _ in range(int(rate * seconds)) for arm in random.sample(arms, len(arms))]
        step, begin, asked, answered = 1 / (rate * len(arms)), time.perf_counter(), 0, 0
        while answered < len(turns):
            while asked < len(turns) and begin + asked * step <= time.perf_counter():
                turns[asked].ask(begin + asked * step)
                asked += 1
            for number, _ in poll.poll(0):  # never sleeps: a wake-up would be part of the measured time
                arm, connection = waiting[number]
                answered += arm.read(connection)
    return [arm.times for arm in arms]
