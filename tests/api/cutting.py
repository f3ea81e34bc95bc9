"""A proxy before the database that cuts the connection at a given statement, like a killed server."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

_QUERY = 3  # COM_QUERY, MySQL client/server protocol


class Proxy:
    """Listens on a unix socket. Once cut, every connection is lost and new ones fail until `restore`."""

    def __init__(self, folder: Path, target: str) -> None:
        self.path = folder / "proxy.sock"
        self.tripped = False
        self._target = target
        self._lock = threading.Lock()
        self._down = False
        self._left = 0
        self._answered = False
        self._open: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, number: int, *, after: bool) -> None:
        """Cuts the connection at the n-th statement from now: before it runs, or before its result is sent."""
        with self._lock:
            self._left, self._answered, self.tripped = number, after, False

    def restore(self) -> None:
        """Accepts connections again."""
        with self._lock:
            self._down, self._left = False, 0

    def close(self) -> None:
        self._listener.close()
        self._lose_all()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._down:
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._target)
                with self._lock:
                    self._open |= {client, server}
                swallow = threading.Event()
                for pump, one, other in ((self._questions, client, server), (self._answers, server, client)):
                    threading.Thread(target=self._run, args=(pump, one, other, swallow), daemon=True).start()

    def _run(self, pump: object, one: socket.socket, other: socket.socket, swallow: threading.Event) -> None:
        with contextlib.suppress(OSError):
            pump(one, other, swallow)  # type: ignore[operator]
        with self._lock:
            self._open -= {one, other}
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _questions(self, client: socket.socket, server: socket.socket, swallow: threading.Event) -> None:
        with client.makefile("rb") as stream:
            while header := stream.read(4):
                payload = stream.read(int.from_bytes(header[:3], "little"))
                if header[3] == 0 and payload[:1] == bytes([_QUERY]) and payload[1:4] != b"SET" and self._is_it():
                    if not self._answered:
                        self._die()
                        return
                    swallow.set()
                server.sendall(header + payload)

    def _answers(self, server: socket.socket, client: socket.socket, swallow: threading.Event) -> None:
        while data := server.recv(65536):
            if swallow.is_set():
                self._die()
                return
            client.sendall(data)

    def _is_it(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left == 0

    def _die(self) -> None:
        self.tripped = self._down = True
        self._lose_all()

    def _lose_all(self) -> None:
        with self._lock:
            lost, self._open = self._open, set()
        for end in lost:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    """A proxy before the database's socket, in a folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        made = Proxy(Path(folder), target)
        try:
            yield made
        finally:
            made.close()
