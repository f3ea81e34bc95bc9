"""gunicorn's settings: a few threads in a few processes, on a unix socket behind nginx.

The edge's internal requests (/internal/…, /healthz) use a second listener with separate threads, so that many API calls
of clients cannot delay the revocation feed. Its address follows from the first: the socket's path with `.internal`, or
the next TCP port (`lua/sluice/platform/instances.lua` does the same).
"""

import logging
import os
import selectors
import signal
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from api.core.logs import JSONFormatter
from api.operations import draining


def number(name: str, default: int) -> int:
    """A whole number from the environment; for settings that only this file reads."""
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        sys.exit(f"{name} is a whole number")
    return int(text)


def internal(listener: str) -> str:
    """The address of the internal listener, from that of the public one."""
    if listener.startswith("unix:"):
        return f"{listener}.internal"
    host, _, port = listener.rpartition(":")
    if not port.isdecimal():
        sys.exit("SLUICE_API_BIND is HOST:PORT or unix:PATH")
    return f"{host}:{int(port) + 1}"


INTERNAL_THREADS: Final = 2
"""Threads per process for internal requests, in addition to SLUICE_API_THREADS for API calls."""

_public = os.environ.get("SLUICE_API_BIND", "127.0.0.1:8000")
bind = [_public, internal(_public)]


class Worker(ThreadWorker):  # type: ignore[misc]
    """A gthread worker with a separate thread pool for the internal listener, which always accepts connections."""

    def init_process(self) -> None:
        self.internal_pool = ThreadPoolExecutor(INTERNAL_THREADS, thread_name_prefix="internal")
        super().init_process()

    def _is_internal(self, name: Any) -> bool:
        return bool(name == self.sockets[-1].getsockname())

    def enqueue_req(self, conn: Any) -> None:
        """Hands a connection to the pool of its listener."""
        pool = self.internal_pool if self._is_internal(conn.server) else self.tpool
        handled: Future[Any] = pool.submit(self.handle, conn)
        handled.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def set_accept_enabled(self, enabled: bool) -> None:
        """Starts or stops accepting connections. The internal listener accepts until the worker ends."""
        for listener in self.sockets:
            wanted = enabled or (self.alive and listener is self.sockets[-1])
            there = listener in self.poller.get_map()
            if wanted and not there:
                listener.setblocking(False)
                self.poller.register(listener, selectors.EVENT_READ, self.accept)
            elif there and not wanted:
                self.poller.unregister(listener)
        self._accepting = enabled


drain = number("SLUICE_API_DRAIN", 0)
workers = number("SLUICE_API_WORKERS", 2)
threads = number("SLUICE_API_THREADS", 8)
worker_class = Worker
worker_tmp_dir = "/dev/shm"  # noqa: S108 - heartbeats; a busy disk must not look like a dead worker
timeout = 30
graceful_timeout = 20
keepalive = 75  # longer than nginx keeps its end, so that nginx never sends into a closing connection
umask = 0o077
# nginx has already limited the request (nginx/snippets/limits.conf), with errors in JSON; gunicorn would send HTML.
# A percent-encoded path may be three times as long in gunicorn as in nginx.
limit_request_line = 0
limit_request_fields = 32768
limit_request_field_size = 0
# Without this, gunicorn would trust these headers from clients, or refuse contradicting ones.
secure_scheme_headers: dict[str, str] = {}
accesslog = None  # nginx's access log has more details
loglevel = "warning"
control_socket_disable = True


def when_ready(server: Any) -> None:
    """The first SIGTERM starts draining; gunicorn gets it after SLUICE_API_DRAIN. It gets a second one immediately."""

    def stop(number: int, frame: object) -> None:
        if draining.begun():
            server.signal(number, frame)
            return
        draining.begin()
        timer = threading.Timer(drain, server.signal, (number, frame))
        timer.daemon = True
        timer.start()

    if drain:
        signal.signal(signal.SIGTERM, stop)


def post_worker_init(worker: object) -> None:
    """Formats gunicorn's log lines as JSON, and shortens the waits for the interpreter's lock."""
    # a call needs the lock again after each statement, and with Python's default it would wait 5 ms each time
    sys.setswitchinterval(0.0005)
    for handler in logging.getLogger("gunicorn.error").handlers:
        handler.setFormatter(JSONFormatter("api"))
