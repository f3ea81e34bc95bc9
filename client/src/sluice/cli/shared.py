"""What every sub-command has: its options, its client, its way of answering."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from sluice.client import Client
from sluice.config import Config
from sluice.errors import LocalError
from sluice.partial import local_errors

F = TypeVar("F", bound=Callable[..., Any])
_CLOCK_SECONDS = 300.0


def common(command: F) -> F:
    """The options of every sub-command."""
    options = [
        click.option("--profile", "-p", help="One of several servers or accounts; see docs/client.md."),
        click.option("--url", help="The server, instead of the profile's."),
        click.option("--quiet", "-q", is_flag=True, help="Say nothing but errors."),
        click.option("--json", "as_json", is_flag=True, help="Answer in JSON, a line each."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def transfer(command: F) -> F:
    """The options of put and get."""
    options = [
        click.option("--parallel", type=int, help="Parts or small files on their way at once (4)."),
        click.option("--limit-rate", metavar="BYTES", help="Bytes a second, such as 500K or 10M."),
    ]
    for option in reversed(options):
        command = option(command)
    return common(command)


class Answer:
    """How a sub-command speaks: lines for people, JSON for programs, or nothing."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._lock = threading.Lock()

    def say(self, value: Any, text: str) -> None:
        """One result: ``value`` for programs, ``text`` for people."""
        if self.as_json:
            line = json.dumps(plain(value), ensure_ascii=False)
        elif not self.quiet:
            line = printable(text)
        else:
            return
        with self._lock, output_errors():  # lines come from many threads
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

    def note(self, text: str) -> None:
        """Something by the way, for people."""
        if not self.quiet and not self.as_json:
            print(f"sluice: {printable(text)}", file=sys.stderr)


class OutputGone(Exception):
    """Whoever read our output has gone. An error of our own: click would end the program for the system's."""


@contextlib.contextmanager
def output_errors() -> Iterator[None]:
    """Around what writes to standard output."""
    try:
        with local_errors(Path("standard output")):
            yield
    except LocalError as ex:
        if isinstance(ex.__cause__, BrokenPipeError):
            raise OutputGone from ex
        raise


def printable(text: str) -> str:
    """A name may hold what a terminal would obey, or what it cannot show."""
    shown = "".join(character if character.isprintable() or character in "\t\n" else "\ufffd" for character in text)
    encoding = sys.stdout.encoding or "utf-8"
    return shown.encode(encoding, "replace").decode(encoding)


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


@contextlib.contextmanager
def client_of(config: Config, answer: Answer) -> Iterator[Client]:
    """A client of the profile; what it learned of the network is kept."""
    url = config.url
    username, password = config.get("username"), config.get("password")
    with Client(
        url,
        config.get("token"),
        username=username if password else None,
        password=password,
        store=config.store(),
        settings=config.settings(),
    ) as client:
        known = client.network_speed = config.network_speed()
        yield client
        if client.network_speed != known:
            config.keep_network_speed(client.network_speed)
        if abs(client.clock_offset) > _CLOCK_SECONDS:
            answer.note(
                f"this machine's clock differs from the server's by {abs(client.clock_offset) / 60:.0f} minutes"
            )


def amount(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
