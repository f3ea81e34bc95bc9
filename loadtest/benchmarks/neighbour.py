"""How one account can slow another down: calls of one account while another sends the worst that its limits allow."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from loadtest.benchmarks.bench import Bench, Benchmark
from loadtest.benchmarks.client import PASSWORD, Client
from loadtest.benchmarks.measure import Row, Spread

_AT_ONCE = 64
"""Connections of the attack."""
_MOST = 3.0
"""Limit: p99 of the neighbour's calls under attack, divided by p99 at rest."""
_PAUSE = 0.01
_PART = 8 * 1024**2
_PARTS, _UPLOADS = 2_000, 40


@dataclass(frozen=True)
class Attack:
    """Requests that one account sends without a pause, on many connections.

    Attributes:
        requests: complete requests as sent; connection n begins with the n-th.
        reads: whether responses are read.
    """

    name: str
    what: str
    requests: Sequence[bytes]
    reads: bool = True


def _request(method: str, path: str, client: Client | None, body: object = None, **headers: str) -> bytes:
    text = b"" if body is None else json.dumps(body).encode()
    fields = {"Host": "bench", "Content-Length": str(len(text)), "Content-Type": "application/json", **headers}
    if client:
        fields["Authorization"] = f"Bearer {client.token}"
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + text


def _send_again_and_again(port: int, attack: Attack, number: int) -> None:
    """One connection of an attack, until the process ends."""
    at = number * len(attack.requests) // _AT_ONCE
    own = [*attack.requests[at:], *attack.requests[:at]]
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                for request in [*own, *own]:
                    connection.sendall(request)
                    if not attack.reads:
                        time.sleep(3600)  # an attacker that reads nothing; it is killed at the end
                    if not _skip_answer(connection):
                        break
        except OSError:
            time.sleep(0.05)  # before it connects again


def _skip_answer(connection: socket.socket) -> bool:
    """Reads a response to its end. Returns False if the connection closes with it."""
    head = b""
    while b"\r\n\r\n" not in head:
        if not (data := connection.recv(65536)):
            return False
        head += data
    head, _, rest = head.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
    left = length - len(rest)
    while left > 0 and (data := connection.recv(min(left, 262_144))):
        left -= len(data)
    if head.startswith(b"HTTP/1.1 429"):
        time.sleep(0.05)  # a pause after a refusal; without it the attacker's work slows the attack itself
    return b"connection: close" not in head.lower()


def _senders(port: int, attack: Attack, first: int, count: int) -> None:
    """Half of an attack's connections, in threads of one process."""
    threads = [
        threading.Thread(target=_send_again_and_again, args=(port, attack, first + n), daemon=True)
        for n in range(count)
    ]
    os.nice(5)  # a real attacker has another machine; here it shares the server's
    for thread in threads:
        thread.start()
    threads[0].join()


@contextmanager
def _under(port: int, attack: Attack) -> Iterator[None]:
    """Runs the attack while the block runs."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_senders, args=(port, attack, 0, _AT_ONCE), daemon=True)
    process.start()
    try:
        time.sleep(1.5)  # until all connections of the attack are made
        yield
    finally:
        process.kill()
        process.join()
        time.sleep(2)  # the API finishes the requests that it has begun


# -- the attacks


def _fill(bench: Bench, client: Client) -> str:
    """Creates many files, by SQL. Returns the digest of all of them."""
    content = bench.content(1000)
    client.upload(content, "first")
    with bench.stack.database() as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO file (id, user_id, folder_id, name, blob_id, content_type, created_at, updated_at) "
            "SELECT UNHEX(MD5(CONCAT(seq, f.id))), f.user_id, f.folder_id, CONCAT('name ', seq, REPEAT('x', 200)), "
            "f.blob_id, f.content_type, NOW(6), NOW(6) FROM seq_1_to_20000 JOIN file f ON f.id = "
            "(SELECT g.id FROM file g JOIN user u ON u.id = g.user_id WHERE u.username = %s LIMIT 1)",
            [client.username],
        )
    return content.digest()


def _completes(client: Client) -> Attack:
    """Uploads with 2,000 recorded hashes and no stored bytes."""
    ids = []
    for number in range(_UPLOADS):
        upload = client.call("POST", "/uploads", {"name": f"u{number}", "size": _PARTS * _PART})
        ids.append(upload["id"])
        for first in range(1, _PARTS + 1, 1000):
            parts = {str(n): f"{n:064x}" for n in range(first, first + 1000)}
            client.call("POST", f"/uploads/{upload['id']}/parts", {"parts": parts})
    batch = _request("POST", "/api/v1/uploads/batch/complete", client, {"ids": ids})
    return Attack("completes", "batches that complete 40 uploads of 2,000 parts without a byte", [batch])


def _attacks(bench: Bench) -> Iterator[Attack]:
    client = bench.client()
    yield _completes(client)
    digest = _fill(bench, client)
    yield Attack("searches", "searches in 20,000 names", [_request("GET", "/api/v1/files?q=nowhere", client)])
    yield Attack("lists", "lists of 1,000 files", [_request("GET", "/api/v1/files?limit=1000", client)])
    yield Attack("digests", "lists of a digest", [_request("GET", f"/api/v1/files?digest={digest}&order=name", client)])
    guess = {"username": client.username, "password": PASSWORD[:-1]}
    yield Attack(
        "sign-ins",
        "wrong passwords from 1,000 addresses",
        [
            _request("POST", "/api/v1/sessions", None, guess, X_Forwarded_For=f"10.{n // 250}.{n % 250}.1")
            for n in range(1000)
        ],
    )
    link = client.link(client.upload(bench.content(1000), "linked"))
    tag = '"' + "0123456789abcdef" * 4 + '"'
    header = (tag + "x ") * 110
    yield Attack("headers", "links with 7 kB of entity tags", [_request("GET", link, None, If_None_Match=header)])
    large = client.link(client.upload(bench.content(40 * 1024**2), "large"))
    yield Attack("slow readers", "64 downloads whose client does not read", [_request("GET", large, None)], reads=False)


# -- the neighbour


def _p99(client: Client, seconds: float) -> float:
    """p99 in seconds of a neighbour's calls: a list, and an upload that is begun."""
    taken: list[float] = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for call in (_look, _begin):
            began = time.monotonic()
            call(client)
            taken.append(time.monotonic() - began)
            time.sleep(_PAUSE)  # the pace of the calls
    return sorted(taken)[-max(1, len(taken) // 100)]


def _look(client: Client) -> None:
    client.call("GET", "/files?limit=20")


def _begin(client: Client) -> None:
    upload = client.call("POST", "/uploads", {"name": "n", "size": 9, "parts": {"1": "0" * 64}})
    client.call("DELETE", f"/uploads/{upload['id']}")


def run(bench: Bench) -> Iterator[Row]:
    """A row for each attack: the neighbour's calls under attack, and at rest in the same minute."""
    neighbour = bench.client()
    for number in range(20):
        neighbour.upload(bench.content(100), f"file {number}")
    seconds = 2.0 * bench.seconds
    for attack in _attacks(bench):
        _p99(neighbour, 1)
        idle, under = [], []
        for _ in range(bench.rounds):
            idle.append(_p99(neighbour, seconds))
            with _under(bench.stack.port, attack):
                under.append(_p99(neighbour, seconds))
            time.sleep(1)  # until the attack's last requests have ended
        ratio = Spread.of([a / b for a, b in zip(under, idle, strict=True)])
        yield Row(
            name=f"noisy-neighbour: {attack.name}",
            what=f"p99 of another account's calls under {attack.what}; at rest",
            unit="ms",
            ours=Spread.of([1e3 * value for value in under]),
            peer=Spread.of([1e3 * value for value in idle]),
            ratio=ratio,
            limit=f"≤ {_MOST:.0f}",
            holds=ratio.median <= _MOST,
            notes=f"{_AT_ONCE} connections",
        )


SETTINGS: Mapping[str, str] = {
    "SLUICE_TIERS": "",
    "SLUICE_ADDRESS_RATE": "2000",
    "SLUICE_ADDRESS_CONNECTIONS": "1000",
    "SLUICE_SIGNIN_RATE": "120",
    # so that the requests really come from that many addresses
    "SLUICE_TRUSTED_PROXIES": "127.0.0.0/8",
}
BENCHMARK = Benchmark("noisy-neighbour", "another account's calls under one that attacks", run, settings=SETTINGS)
