"""The settings of a run: weights of users, sizes of files, limits for the exit code, and the host."""

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
    """Bytes of a size such as ``20MiB``."""
    found = re.fullmatch(r"(\d+)(|KiB|MiB|GiB)", text.strip())
    if found is None or int(found[1]) * _UNITS[found[2]] > MOST_BYTES:
        raise ArgumentTypeError(f"{text!r} is not a size such as 64KiB or 20MiB")
    return int(found[1]) * _UNITS[found[2]]


def shares(text: str) -> dict[str, float]:
    """Numbers by name, from ``reader=6,uploader=3``."""
    try:
        return {name.strip(): float(figure) for name, figure in (item.rsplit("=", 1) for item in text.split(","))}
    except ValueError as ex:
        raise ArgumentTypeError(f"{text!r} is not a list such as reader=6,uploader=3") from ex


def sizes(text: str) -> dict[int, float]:
    """How often each size is uploaded, from ``64KiB=6,20MiB=1``."""
    return {size(name): share for name, share in shares(text).items()}


def add_arguments(parser: ArgumentParser) -> None:
    """The options of this file, in addition to locust's."""
    parser.set_defaults(run_time=RUN_TIME, num_users=10, spawn_rate=5.0, stop_timeout="10s")
    # access to the web page or the master allows choosing the target
    parser.set_defaults(web_host="127.0.0.1", master_bind_host="127.0.0.1")
    group = parser.add_argument_group("Sluice")
    words = {
        "--weights": ("reader=6,uploader=4,stranger=1,abuser=1", "share of users of each kind"),
        "--sizes": ("16KiB=6,1MiB=3,20MiB=1", "sizes of files, and the weight of each"),
        "--most-failed": ("0.01", "share of requests that may fail; if more fail, the exit code is 1"),
        "--p95": ("", "limits in ms by the beginning of a request's name, for example 'GET /files=200,PUT part=2000'"),
        "--least-requests": ("1", "smallest number of requests; if there are fewer, the exit code is 1"),
        "--allow-host": ("", "a host outside this machine to load; only name your own"),
    }
    for name, (default, text) in words.items():
        group.add_argument(name, default=default, env_var=f"LOADTEST_{name[2:].upper().replace('-', '_')}", help=text)


def check(options: Namespace) -> None:
    """Raises ArgumentTypeError or ValueError if an option is invalid."""
    shares(options.weights)
    sizes(options.sizes)
    float(options.most_failed)
    int(options.least_requests)
    if options.p95:
        shares(options.p95)


def is_allowed(url: str, allowed: str) -> bool:
    """Whether a server may be loaded: it is on the loopback, or was named by --allow-host."""
    host = urlsplit(url).hostname or ""
    if host and host == allowed:
        return True
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(address).is_loopback for address in found)


def chosen(by_name: Mapping[int, float], figure: float) -> int:
    """Chooses a size by its weight, from a number between 0 and 1."""
    left = figure * sum(by_name.values())
    for value, share in by_name.items():
        left -= share
        if left < 0:
            return value
    return next(iter(by_name))
