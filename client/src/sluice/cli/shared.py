"""The parts that all sub-commands share: options, client and output."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sluice.cli.streams import complain, say, say_json

if TYPE_CHECKING:
    from sluice.client import Client
    from sluice.config import Config

F = TypeVar("F", bound=Callable[..., Any])
_CLOCK_SECONDS = 300.0
_TOLD_AGAIN_SECONDS = 30.0


class Answer:
    """How a sub-command speaks: lines for people, JSON for programs, or nothing."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._lock = threading.Lock()
        self._waits: dict[str, float] = {}

    def say(self, value: Any, text: str) -> None:
        """One result: ``value`` for programs, ``text`` for people."""
        if self.quiet and not self.as_json:
            return
        with self._lock:  # lines come from many threads
            if self.as_json:
                say_json(json.dumps(plain(value), ensure_ascii=False))
            else:
                say(text)

    def note(self, text: str) -> None:
        """Something by the way, for people."""
        if not self.quiet and not self.as_json:
            complain(f"sluice: {text}")

    def waits(self, text: str, left: float) -> None:
        """Whom the command waits for: said when it begins, and again from time to time."""
        with self._lock:
            now = time.monotonic()
            if now - self._waits.get(text, -_TOLD_AGAIN_SECONDS) < _TOLD_AGAIN_SECONDS:
                return
            self._waits[text] = now
        self.note(f"{text}; waiting, for {max(1, round(left))} s at most")

    def failed(self, name: str, ex: Exception) -> None:
        """One of several things went wrong."""
        if self.as_json:
            self.say({"name": name, "error": str(ex), "exit_code": getattr(ex, "exit_code", 1)}, "")
        else:
            complain(f"sluice: {name}: {ex}")


class Run:
    """One run of a sub-command.

    Attributes:
        answer: how it speaks.
        options: settings from the command line; None for a setting that it does not name.
    """

    def __init__(self, options: dict[str, Any], *, quiet: bool, as_json: bool, verbose: bool) -> None:
        self.answer = Answer(as_json=as_json, quiet=quiet)
        self.options = options
        self.verbose = verbose

    @functools.cached_property
    def config(self) -> Config:
        """The settings."""
        from sluice.config import Config

        return Config(self.options.get("profile"), {k: v for k, v in self.options.items() if k != "profile"})

    @contextlib.contextmanager
    def client(self, url: str | None = None) -> Iterator[Client]:
        """A client of the profile's server, as the user that the profile knows.

        Args:
            url: another server, which is spoken to without any credentials.
        """
        from sluice.client import Client

        config = self.config
        username, password = config.get("username"), config.get("password")
        if url is not None:
            made = Client(url, settings=config.settings())
        else:
            made = Client(
                config.url,
                config.get("token"),
                username=username if password else None,
                password=password,
                store=config.store(self.answer.note if password else None),
                settings=config.settings(),
            )
        with made as client:
            self.attend(client)
            yield client
            if abs(client.clock_offset) > _CLOCK_SECONDS:
                minutes = abs(client.clock_offset) / 60
                self.answer.note(f"this machine's clock differs from the server's by {minutes:.0f} minutes")

    def attend(self, client: Client) -> None:
        """Tells of what the client waits for, and with -v of every request."""
        client.on_wait(self.answer.waits)
        if self.verbose:
            client.on_request(lambda text: complain(f"sluice: {text}"))


def common(command: F) -> F:
    """Gives a sub-command the options that all have; it is called with a `Run` first."""
    return _with(command, ())


def transfer(command: F) -> F:
    """Gives put and get the options that all have, and those of transfers."""
    return _with(command, _TRANSFER)


_COMMON = (
    click.option("--profile", "-p", help="One of several servers or accounts; see docs/client.md."),
    click.option("--url", help="The server, instead of the profile's."),
    click.option("--quiet", "-q", is_flag=True, help="Say nothing but errors."),
    click.option("--verbose", "-v", is_flag=True, help="Tell of every request, on standard error."),
    click.option("--json", "as_json", is_flag=True, help="Answer in JSON, a line each."),
)
_TRANSFER = (
    click.option("--parallel", type=int, help="Parts or small files on their way at once (4)."),
    click.option("--limit-rate", metavar="BYTES", help="Bytes a second, such as 500K or 10M."),
)


def _with(command: F, more: tuple[Callable[[Any], Any], ...]) -> F:
    @functools.wraps(command)
    def run(*, quiet: bool, as_json: bool, verbose: bool, **given: Any) -> Any:
        options = {name: given.pop(name, None) for name in ("profile", "url", "parallel", "limit_rate", "instant")}
        return command(Run(options, quiet=quiet, as_json=as_json, verbose=verbose), **given)

    found: Any = run
    for option in reversed((*more, *_COMMON)):
        found = option(found)
    return found  # type: ignore[no-any-return]


def examples(*lines: str) -> str:
    """Returns the examples below a sub-command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    from dataclasses import asdict, is_dataclass
    from datetime import datetime

    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


def amount(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
