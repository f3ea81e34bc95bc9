"""What a run is made of: weights of users, sizes of files, limits that decide the exit code, and where it may go."""

from __future__ import annotations

import ipaddress
import re
import socket
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

RUN_TIME: Final = "60s"
_UNITS: Final = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
MOST_BYTES: Final = 4 * 1024**3


def size(text: str) -> int:
    """Bytes of ``20MiB``."""
    found = re.fullmatch(r"(\d+)(|KiB|MiB|GiB)", text.strip())
    if found is None or int(found[1]) * _UNITS[found[2]] > MOST_BYTES:
        raise ArgumentTypeError(f"{text!r} is not a size such as 64KiB or 20MiB")
    return int(found[1]) * _UNITS[found[2]]


def shares(text: str) -> dict[str, float]:
    """Figures by name of ``reader=6,uploader=3``."""
    try:
        return {name.strip(): float(figure) for name, figure in (item.rsplit("=", 1) for item in text.split(","))}
    except ValueError as ex:
        raise ArgumentTypeError(f"{text!r} is not a list such as reader=6,uploader=3") from ex


def sizes(text: str) -> dict[int, float]:
    """How often each size is uploaded, of ``64KiB=6,20MiB=1``."""
    return {size(name): share for name, share in shares(text).items()}


def add_arguments(parser: ArgumentParser) -> None:
    """The run's own options, beside locust's."""
    parser.set_defaults(run_time=RUN_TIME, num_users=10, spawn_rate=5.0, stop_timeout="10s")
    # who reaches the page or the master says what is loaded
    parser.set_defaults(web_host="127.0.0.1", master_bind_host="127.0.0.1")
    group = parser.add_argument_group("Sluice")
    words = {
        "--weights": ("reader=6,uploader=4,stranger=1,abuser=1", "how many users of each kind, as shares"),
        "--sizes": ("16KiB=6,1MiB=3,20MiB=1", "sizes of files and how often each is uploaded"),
        "--most-failed": ("0.01", "requests that may fail, as a share; more of them and the exit code is 1"),
        "--p95": ("", "limits in ms by the beginning of a request's name, as 'GET /files=200,PUT part=2000'"),
        "--least-requests": ("1", "fewer requests than these make the exit code 1"),
        "--allow-host": ("", "a host beyond the loopback that may be loaded: yours, and nobody else's"),
    }
    for name, (default, text) in words.items():
        group.add_argument(name, default=default, env_var=f"LOADTEST_{name[2:].upper().replace('-', '_')}", help=text)


def check(options: Namespace) -> None:
    """Raises ArgumentTypeError or ValueError where an option cannot be meant."""
    shares(options.weights)
    sizes(options.sizes)
    float(options.most_failed)
    int(options.least_requests)
    if options.p95:
        shares(options.p95)


def is_allowed(url: str, allowed: str) -> bool:
    """Whether a server may be loaded: one on the loopback, or the one that was named."""
    host = urlsplit(url).hostname or ""
    if host and host == allowed:
        return True
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(address).is_loopback for address in found)


def chosen(by_name: Mapping[int, float], figure: float) -> int:
    """The size that a figure from 0 to 1 falls to."""
    left = figure * sum(by_name.values())
    for value, share in by_name.items():
        left -= share
        if left < 0:
            return value
    return next(iter(by_name))
