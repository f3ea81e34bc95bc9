"""The arguments of every benchmark: a stack, a peer, and how long it may take."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.benchmarks.client import Client
from loadtest.benchmarks.content import Content
from loadtest.benchmarks.measure import CallRow, Row, cpu_seconds
from loadtest.benchmarks.peer import Peer
from loadtest.benchmarks.stack import Stack


@dataclass
class Used:
    """CPU seconds used."""

    seconds: float = 0.0


@contextmanager
def cpu_used(pids: Sequence[int]) -> Iterator[Used]:
    """Measures the CPU seconds that processes use while the block runs."""
    used, begin = Used(), cpu_seconds(pids)
    yield used
    used.seconds = cpu_seconds(pids) - begin


@dataclass
class Bench:
    """The environment of one run.

    Attributes:
        folder: for a benchmark's files, on the stack's file system.
        rounds: pairs of samples.
        seconds: duration of one sample under load.
        left_out: rows that could not be measured, with the reason.
    """

    stack: Stack
    peer: Peer
    folder: Path
    rounds: int
    seconds: int
    left_out: list[tuple[str, str]] = field(default_factory=list)
    _seeds: Iterator[int] = field(default_factory=lambda: itertools.count(secrets.randbits(48) << 8))

    def client(self) -> Client:
        """A new user."""
        return Client(self.stack.port)

    def content(self, size: int) -> Content:
        """Content that is stored nowhere yet."""
        return Content(size, next(self._seeds))

    def object_key(self, content: Content) -> str:
        """The path of uploaded content below the stack's objects."""
        with self.stack.database() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT object_key FROM replica JOIN `blob` ON id = blob_id WHERE digest = UNHEX(%s)",
                [content.digest()],
            )
            row = cursor.fetchone()
            assert row
            return str(row[0])


@dataclass(frozen=True)
class Benchmark:
    """A name, a description, and a function that measures.

    Attributes:
        run: yields its rows, each as soon as it is measured, so that a later failure loses none.
        storage: the stack's storage: ``local`` or ``ceph``.
        settings: SLUICE_… of the stack, if not the defaults.
    """

    name: str
    summary: str
    run: Callable[[Bench], Iterable[Row | CallRow]]
    storage: str = "local"
    settings: Mapping[str, str] = field(default_factory=dict)
