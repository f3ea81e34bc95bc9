"""Half-received bodies of a killed nginx worker are deleted while nginx runs; bodies in transfer are not."""

import contextlib
import os
import signal
import time
from pathlib import Path

import httpx

from tests.e2e.client import Client, Json
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART, Sources
from tests.e2e.wire import Wire
from tests.waiting import await_true

# The sweep cannot see which files are open, so it deletes a body only after a day.
SETTINGS = {"STACK_HANG_SECONDS": "3"}


def bodies(gateway: Gateway) -> set[Path]:
    return set((gateway.storage / "incoming").iterdir())


def age(paths: set[Path]) -> None:
    """Makes them look as if their last byte had come an hour ago."""
    for path in paths:
        os.utime(path, (time.time() - 3600,) * 2)


def kill_workers(gateway: Gateway) -> None:
    """Kills every worker of nginx; the master starts others."""
    for pid in set(gateway.pids("nginx")) - {gateway.stack.pid("nginx")}:
        os.kill(pid, signal.SIGKILL)


def is_stored(user: Client, part: Json, body: bytes) -> bool:
    """Whether a PUT of a part succeeds; a worker that dies meanwhile ends it without an answer."""
    try:
        return user.put(part, body).is_success
    except httpx.TransportError:
        return False


def test_a_killed_workers_bodies_are_freed_and_a_slow_one_arrives(
    gateway: Gateway, user: Client, sources: Sources
) -> None:
    source = sources.make(2 * PART)
    upload = user.create(source)
    parts = user.sign(upload, source, [1, 2])
    with Wire(parts[1]["url"]) as dead:
        dead.begin("PUT", Content_Length=str(PART)).send(source.part(1)[: PART // 2])
        await_true(lambda: len(bodies(gateway)) == 1)
        (left,) = bodies(gateway)
        kill_workers(gateway)
    with Wire(parts[2]["url"]) as slow:
        slow.begin("PUT", Content_Length=str(PART)).send(source.part(2)[: PART // 2])
        await_true(lambda: len(bodies(gateway)) == 2)
        nginx = gateway.stack.pid("nginx")
        age(bodies(gateway))
        await_true(lambda: left not in bodies(gateway), 30)
        assert len(bodies(gateway)) == 1
        status, _ = slow.send(source.part(2)[PART // 2 :]).answer()
        assert status in (200, 201, 204)
        assert gateway.stack.pid("nginx") == nginx
    user.send(user.want(200, "GET", f"/uploads/{upload['id']}"), source)
    assert user.holds(user.complete(upload), source)


def test_a_part_whose_bodies_died_with_their_workers_can_be_sent(
    gateway: Gateway, user: Client, sources: Sources
) -> None:
    source = sources.make(2 * PART, "four bodies")
    upload = user.create(source)
    part = user.sign(upload, source, [1])[1]
    with contextlib.ExitStack() as wires:
        for _ in range(4):  # the limit of bodies in transfer for one part
            wire = wires.enter_context(Wire(part["url"]))
            wire.begin("PUT", Content_Length=str(PART)).send(source.part(1)[: PART // 2])
        await_true(lambda: len(bodies(gateway)) == 4)
        kill_workers(gateway)
    age(bodies(gateway))
    await_true(lambda: is_stored(user, part, source.part(1)), 15)
    user.send(user.want(200, "GET", f"/uploads/{upload['id']}"), source)
    assert user.holds(user.complete(upload), source)
