"""Every figure that the API and the worker count, each declared once.

With ``SLUICE_METRICS_FOLDER`` all processes of a machine count into files of that folder, and each process reports the
sums of all: one scrape reaches only one of several API processes, and a worker has no port. Without the folder a
process reports only what it counted itself.

Figures that are rows' (uploads by state, jobs that wait) are not counted here but looked up when they are asked for:
`api.operations.figures`.
"""

from __future__ import annotations

import fcntl
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    start_http_server,
    values,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from api.core.metric_files import NOWHERE, AllocatedDict

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# A process takes the first free place and continues the counters of its predecessor there, so that no counter ever
# falls. If the files were named by process id, as the library does it, files of dead processes would pile up.
_MOST_PLACES: Final = 256
_folder: Path | None = None


@functools.cache
def _place(process: int) -> str:
    """The place in the folder of this process, held by a lock for as long as it lives; NOWHERE if none can be had."""
    assert _folder is not None
    for number in range(_MOST_PLACES):
        try:
            descriptor = os.open(_folder / f"place{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # a full disk has no inode for it
            break
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        for path in _folder.glob(f"gauge_*_place{number}.db"):
            path.unlink(missing_ok=True)  # gauges count open or running work, which ended with the process
        return f"place{number}"
    return NOWHERE


def _is_held(place: str) -> bool:
    assert _folder is not None
    try:
        descriptor = os.open(_folder / f"{place}.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _use_folder(name: str) -> None:
    """Lets every figure that is declared from here on count in files. A folder that cannot be used stops no process."""
    global _folder
    folder = Path(name)
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "place0.lock").touch(mode=0o600)
        _folder = folder
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = name  # where the library looks for it
        setattr(values, "MmapedDict", AllocatedDict)  # noqa: B010 - the library has no other way
        values.ValueClass = values.MultiProcessValue(lambda: _place(os.getpid()))  # type: ignore[no-untyped-call]


if os.environ.get("SLUICE_METRICS_FOLDER"):
    _use_folder(os.environ["SLUICE_METRICS_FOLDER"])

# Without this the library adds an unused "created" series for each other series.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SHORT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG: Final = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)

REGISTRY: Final = CollectorRegistry()
DECLARED: Final[list[tuple[str, str, tuple[str, ...], str]]] = []
"""Name, kind, labels and meaning of every figure that is counted, for the documents."""


def _counter(name: str, text: str, *labels: str) -> Counter:
    DECLARED.append((f"sluice_{name}_total", "counter", labels, text))
    return Counter(f"sluice_{name}", text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, *labels: str, buckets: Sequence[float] = _SHORT) -> Histogram:
    DECLARED.append((f"sluice_{name}", "histogram", labels, text))
    return Histogram(f"sluice_{name}", text, labels, registry=REGISTRY, buckets=buckets)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    DECLARED.append((f"sluice_{name}", "gauge", labels, text))
    return Gauge(f"sluice_{name}", text, labels, registry=REGISTRY, multiprocess_mode="sum")


def _shared_gauge(name: str, text: str, *labels: str) -> Gauge:
    """One thing that several processes look at: the newest look counts."""
    DECLARED.append((f"sluice_{name}", "gauge", labels, text))
    return Gauge(f"sluice_{name}", text, labels, registry=REGISTRY, multiprocess_mode="mostrecent")


# -- calls of the API

API_CALLS = _counter("api_calls", "Calls that the API answered", "method", "path", "status")
API_SECONDS = _histogram("api_seconds", "Seconds of a call in the API", "method", "path")

# -- jobs: kind as in api.jobs; outcome is done, more, later, busy, failed or dead

JOB_RUNS = _counter("job_runs", "Runs of jobs by how they ended", "kind", "outcome")
JOB_SECONDS = _histogram("job_seconds", "Seconds of one run of a job", "kind", buckets=_LONG)
JOB_BYTES = _counter("job_bytes", "Bytes that jobs read or copied", "kind")
QUEUE_DEPTH = _shared_gauge("queue_depth", "Messages that wait in the queue, as the feeder last saw it", "queue")
SCRUBBED = _counter("scrubbed", "Replicas that the scrub read: right, healed, damaged or gone", "storage", "result")
REPLICA_REPORTS = _counter("replica_reports", "Replicas that edges could not read, by reason", "storage", "reason")
REPLICAS_LOST = _counter("replicas_lost", "Replicas that were judged: they hold no bytes", "storage")
SWEPT = _counter("swept", "What sweeps did, by kind", "what")

# -- storages and database, as every process uses them

STORAGE_SECONDS = _histogram("storage_seconds", "Seconds of a call to a storage", "storage", "call")
STORAGE_FAILURES = _counter("storage_failures", "Calls to a storage that failed", "storage", "call", "error")
DATABASE_CONNECTIONS = _gauge("database_connections", "Database connections in use")
DATABASE_CONNECTIONS_MOST = _gauge("database_connections_most", "Size of the database connection pool")
DATABASE_WAIT_SECONDS = _histogram("database_wait_seconds", "Seconds until a database connection was to be had")
DATABASE_FAILURES = _counter("database_failures", "Statements that found no database")

_STORAGE_CALLS: Final = (
    "stat", "open", "delete", "create", "write_part", "list_parts", "complete", "abort", "check", "drop_dead_bodies",
)  # fmt: skip


@contextmanager
def job_run(kind: str) -> Iterator[None]:
    """Times one run of a job. The code that knows the outcome counts it."""
    began = time.monotonic()
    try:
        yield
    finally:
        JOB_SECONDS.labels(kind).observe(time.monotonic() - began)


def observe_storage(name: str, storage: object) -> None:
    """Times the calls of a storage from now on. The methods keep their behavior, and ``isinstance`` its result."""
    for call in _STORAGE_CALLS:
        method = getattr(storage, call, None)
        if method is not None:
            setattr(storage, call, _timed(name, call, method))


def _timed(name: str, call: str, method: Callable[..., Any]) -> Callable[..., Any]:
    seconds = STORAGE_SECONDS.labels(name, call)

    @functools.wraps(method)
    def timed(*args: Any, **keywords: Any) -> Any:
        began = time.monotonic()
        try:
            return method(*args, **keywords)
        except Exception as ex:
            STORAGE_FAILURES.labels(name, call, type(ex).__name__).inc()
            raise
        finally:
            seconds.observe(time.monotonic() - began)

    return timed


# -- answering


Figure = Metric


class Source(Protocol):
    """Gives figures at the moment that they are asked for."""

    def collect(self) -> Iterator[Figure]: ...


def looked_up(name: str, text: str, labels: Sequence[str], rows: Sequence[tuple[Sequence[str], float]]) -> Figure:
    """A figure that is not counted but looked up: its value by label values."""
    family = GaugeMetricFamily(f"sluice_{name}", text, labels=list(labels))
    for label_values, value in rows:
        family.add_metric(list(label_values), value)
    return family


class _OfAllProcesses:
    def collect(self) -> Iterator[Figure]:
        assert _folder is not None
        files = [
            str(path)
            for path in sorted(_folder.glob("*.db"))
            if path.stat().st_size  # a full disk had no room for it
            and (not path.name.startswith("gauge_") or _is_held(path.stem.rpartition("_")[2]))
        ]
        yield from MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]


def text(*sources: Source) -> bytes:
    """The figures of all processes that share the folder, and those of ``sources``, in Prometheus' text format."""
    registry: Any = REGISTRY
    if _folder is not None:
        registry = CollectorRegistry()
        registry.register(_OfAllProcesses())
    found = bytes(generate_latest(registry))
    for source in sources:
        extra = CollectorRegistry()
        extra.register(source)
        found += generate_latest(extra)
    return found


def serve(bind: str) -> None:
    """Serves the metrics at ``HOST:PORT``, at any path, in a separate thread.

    For a worker on a machine without an API.
    """
    host, _, port = bind.rpartition(":")
    registry: Any = REGISTRY
    if _folder is not None:
        registry = CollectorRegistry()
        registry.register(_OfAllProcesses())
    start_http_server(int(port), host.strip("[]") or "0.0.0.0", registry=registry)  # noqa: S104 - SLUICE_METRICS_BIND


def names() -> set[str]:
    """The name of every sample that is counted here."""
    found: set[str] = set()
    for family in REGISTRY.collect():
        if family.type == "histogram":
            found.update(f"{family.name}{suffix}" for suffix in ("_bucket", "_sum", "_count"))
        else:
            found.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return found
