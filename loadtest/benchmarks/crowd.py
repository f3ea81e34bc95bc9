"""The cost of strangers and crowds at the edge: forged tokens, a million tokens, thousands of connections."""

from __future__ import annotations

import hashlib
import hmac
import multiprocessing
import re
import secrets
import signal
import socket
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from urllib.request import urlopen

from loadtest.benchmarks.bench import Bench, Benchmark
from loadtest.benchmarks.measure import Pairs, Row, Spread, memory_growth, resident_bytes
from loadtest.benchmarks.stack import many_files
from loadtest.benchmarks.wrk import Load

_TOKENS, _CLIENTS, _BATCH = 1_000_000, 2, 200
_IDLE, _ACTIVE, _USERS = 5000, 500, 25
_MIB = 1024**2
# A worker keeps at most 6,144 links, with claims of about 2.5 KiB (identity/verified.lua). LuaJIT's heap has slack.
_LRU_LIMIT = 64 * _MIB
_CONNECTION_LIMIT = 48 * 1024


def run(bench: Bench) -> Iterator[Row]:
    """Each attack against the same edge at rest."""
    yield from _forged(bench)
    yield _tokens(bench)
    yield _connections(bench)


def _calls_of_api(bench: Bench) -> float:
    with urlopen(f"http://127.0.0.1:{bench.stack.port}/metrics") as answer:
        found = re.findall(
            r'^sluice_edge_upstream_seconds_count\{upstream="api"\} (\d+)$', answer.read().decode(), re.M
        )
    return float(found[0]) if found else 0.0


def _forged(bench: Bench) -> Iterator[Row]:
    """A forged token beside a warm valid one. It causes no API call, and its log line is no longer than others."""
    client = bench.client()
    link = client.link(client.upload(bench.content(1024), "forged"))
    head, dot, signature = link.rpartition(".")
    place = signature.index("/")
    forged = [f"{head}{dot}{number:043d}{signature[place:]}" for number in range(16)]
    time.sleep(1.5)  # until the counts have been flushed
    calls, log = _calls_of_api(bench), bench.stack.data / "log" / "access.log"
    before = log.stat().st_size
    refused, hit = Load(bench.stack.port, forged, refused=True), Load(bench.stack.port, [link])
    pairs = Pairs.take(
        bench.rounds,
        lambda: refused.put(bench.seconds, bench.stack.edge),
        lambda: hit.put(bench.seconds, bench.stack.edge),
    )
    time.sleep(1.5)  # nginx writes its log once per second
    with log.open("rb") as file:
        if log.stat().st_size > before:  # otherwise the log was rotated meanwhile
            file.seek(before)
        longest = max(len(line) for line in file)
    row = pairs.row(
        "forged-token", "a link whose signature is forged; the same link, good and warm", "requests/s", "µs", 1e6
    )
    assert row.cpu_ratio
    reached = _calls_of_api(bench) - calls
    holds = row.cpu_ratio.median <= 1 and reached == 0 and longest < 1000
    notes = f"{reached:.0f} calls of the API; longest log line {longest} bytes"
    yield replace(row, limit="CPU ≤ 1, no call, a line < 1000 bytes", holds=holds, notes=notes)


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True)
class _Signer:
    """Makes valid links from an existing one, each with a unique id."""

    claims: bytes
    key: bytes

    @classmethod
    def of(cls, bench: Bench, link: str) -> _Signer:
        value = link.split("/")[2].split(".")[0]
        claims = urlsafe_b64decode(value)
        key = (bench.stack.data / "secrets" / "token_keys").read_text().split()[-1]
        return cls(claims, hmac.digest(key.encode(), b"link", hashlib.sha256))

    def links(self, count: int) -> Iterator[str]:
        moment = _encode(int(time.time()).to_bytes(4))
        for _ in range(count):
            # the link's id stands behind the first byte (api/core/claims.py)
            signed = f"{_encode(self.claims[:1] + secrets.token_bytes(8) + self.claims[9:])}.{moment}"
            yield f"/d/{signed}.{_encode(hmac.digest(self.key, signed.encode(), hashlib.sha256))}/x"


def _ask_each(signer: _Signer, port: int, count: int) -> None:
    """Pipelined HEADs, each with another link. Every response must be a success."""
    paths = signer.links(count)
    while batch := list(islice(paths, _BATCH)):
        requests = [f"HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n" for path in batch]
        requests[-1] = requests[-1].replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall("".join(requests).encode())
            # reads all responses at the end of the connection, which costs the client fewer wake-ups
            answers = connection.recv(_MIB, socket.MSG_WAITALL)
        if answers.count(b"HTTP/1.1 200 ") != len(batch):
            raise RuntimeError("a good link was refused: " + answers[-300:].decode(errors="replace"))


def _tokens(bench: Bench) -> Row:
    """Memory of the workers after many distinct links."""
    client = bench.client()
    signer = _Signer.of(bench, client.link(client.upload(bench.content(1024), "tokens")))
    _ask_each(signer, bench.stack.port, 1000)
    # A pool's processes end by SIGTERM when its context ends, and inherit the handler from here.
    clients = multiprocessing.Pool(_CLIENTS, signal.signal, (signal.SIGTERM, signal.SIG_DFL))
    with memory_growth(bench.stack.edge) as growth, clients as pool:
        pool.starmap(_ask_each, [(signer, bench.stack.port, _TOKENS // _CLIENTS)] * _CLIENTS)
    with urlopen(f"http://127.0.0.1:{bench.stack.port}/metrics") as answer:
        text = answer.read().decode()
    sizes = dict(re.findall(r'^sluice_edge_dict_bytes\{dict="(\w+)"\} (\d+)$', text, re.M))
    dicts = sum(int(size) for size in sizes.values()) / _MIB
    grown = growth.total / _MIB
    return Row(
        name="distinct-tokens",
        what=f"growth of all workers' memory by {_TOKENS:,} links to one file, touched dict pages included",
        unit="MiB",
        ours=Spread(grown, grown, grown),
        limit=f"≤ {_LRU_LIMIT // _MIB} per worker, plus the dicts' size",
        holds=grown <= len(bench.stack.edge) * (_LRU_LIMIT / _MIB + dicts),
        notes=f"{len(bench.stack.edge)} workers, dicts of {dicts:.0f} MiB in all",
    )


def _connections(bench: Bench) -> Row:
    """Memory per connection, and the speed of other requests meanwhile."""
    many_files()
    content = bench.content(8 * _MIB)
    small = bench.client()
    others = Load(bench.stack.port, [small.link(small.upload(bench.content(1024), "small"))])
    slow = []
    for _ in range(_USERS):
        client = bench.client()
        slow.append(client.link(client.upload(content, "slow")))
    alone = [others.put(bench.seconds, bench.stack.edge) for _ in range(bench.rounds)]
    before = sum(resident_bytes(pid) for pid in bench.stack.edge)
    with ExitStack() as stack:
        for number in range(_IDLE + _ACTIVE):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", bench.stack.port), timeout=30))
            path = "/healthz" if number < _IDLE else slow[number % _USERS]
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            if connection.recv(500)[:15] != b"HTTP/1.1 200 OK":
                raise SystemExit(f"connection {number} was refused")
        grown = sum(resident_bytes(pid) for pid in bench.stack.edge) - before
        crowded = [others.put(bench.seconds, bench.stack.edge) for _ in range(bench.rounds)]
    pairs = Pairs(crowded, alone)
    row = pairs.row(
        "crowd",
        f"a small download beside {_IDLE} idle and {_ACTIVE} slow connections; without them",
        "requests/s",
        "µs",
        1e6,
    )
    each = grown / (_IDLE + _ACTIVE)
    assert row.cpu_ratio
    return replace(
        row,
        limit=f"CPU ≤ 1.2, memory ≤ {_CONNECTION_LIMIT // 1024} KiB a connection",
        holds=row.cpu_ratio.median <= 1.2 and each <= _CONNECTION_LIMIT,
        notes=f"{each / 1024:.1f} KiB of the workers' memory per connection",
    )


BENCHMARK = Benchmark("crowd", "forged tokens, a million tokens, 5,500 connections", run)
