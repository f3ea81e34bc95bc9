"""The bench's requests at a fixed rate: times count from when a request was due, and only successes count."""

import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from loadtest.benchmarks.paced import times
from loadtest.benchmarks.wrk import Load

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"


@contextmanager
def serving(answer: Callable[[int], bytes]) -> Iterator[int]:
    """A server whose response depends on the request's number on its connection. Yields its port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            number = 0
            while self.request.recv(65536):
                self.request.sendall(answer(number))
                number += 1

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_each_is_asked_as_often() -> None:
    with serving(lambda number: GOOD) as port:
        found = times([Load(port, ["/a"], connections=2)] * 3, 100, 0.2)
    assert [len(each) for each in found] == [20] * 3


def test_waiting_for_a_connection_is_measured() -> None:
    def answer(number: int) -> bytes:
        time.sleep(0.05 if number else 0)  # a response that takes 50 ms is what the test needs
        return GOOD

    with serving(answer) as port:
        (found,) = times([Load(port, ["/a"], connections=1)], 1000, 0.005)
    assert all(each >= 0.05 * (number + 1) - 0.01 for number, each in enumerate(found))


def test_another_answer_is_none() -> None:
    with serving(lambda number: GOOD if not number else GOOD.replace(b"200", b"404")) as port:
        load = Load(port, ["/a"], connections=1)
        with pytest.raises(SystemExit, match="404"):
            times([load], 100, 0.1)
