"""gunicorn's settings: a few threads in a few processes, on a unix socket behind nginx."""

import logging
import os
import signal
import sys
import threading
from typing import Any

from api.core.logs import JSONFormatter
from api.operations import draining


def number(name: str, default: int) -> int:
    """A setting that is read here alone."""
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        sys.exit(f"{name} is a whole number")
    return int(text)


bind = os.environ.get("SLUICE_API_BIND", "127.0.0.1:8000")
drain = number("SLUICE_API_DRAIN", 0)
workers = number("SLUICE_API_WORKERS", 2)
threads = number("SLUICE_API_THREADS", 8)
worker_class = "gthread"
worker_tmp_dir = "/dev/shm"  # noqa: S108 - heartbeats; a busy disk must not look like a dead worker
timeout = 60
graceful_timeout = 20
keepalive = 75  # longer than nginx keeps its end, so that nginx never sends into a closing connection
umask = 0o077
# nginx has bounded the request already (nginx/snippets/limits.conf) and says so in JSON; gunicorn would say it in HTML.
# A path may reach gunicorn three times as long as nginx took it: percent-encoded.
limit_request_line = 0
limit_request_fields = 32768
limit_request_field_size = 0
# Headers of clients' that gunicorn would believe, or refuse when they contradict each other.
secure_scheme_headers: dict[str, str] = {}
accesslog = None  # nginx has one, with more in it
loglevel = "warning"
control_socket_disable = True


def when_ready(server: Any) -> None:
    """A first SIGTERM only says that the end is near (`draining`); gunicorn gets it later, or a second one."""

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
    """gunicorn's own lines look like all others."""
    for handler in logging.getLogger("gunicorn.error").handlers:
        handler.setFormatter(JSONFormatter("api"))
