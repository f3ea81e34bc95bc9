"""Each process is killed during an upload; then another machine finishes it, and sends only the missing parts."""

import hashlib
import os
import signal
import threading

import pytest

from tests.e2e.client import Client, code, numbers_of
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART, Sources
from tests.e2e.wire import Wire
from tests.waiting import await_true

SETTINGS = {"SLUICE_TEST_FINALIZE_INLINE": str(4 * PART)}
"""Uploads of five parts or more are finalized by the worker."""

KILLS = [
    ("api", False),
    ("api", True),
    ("nginx", True),
    ("nginx", False),
    ("mariadb", False),
    ("redis", False),
    ("worker", False),
]


@pytest.mark.parametrize(
    ("service", "child"), KILLS, ids=[f"{name} {'worker' if child else 'master'}" for name, child in KILLS]
)
def test_an_upload_continues_after_a_kill(gateway: Gateway, sources: Sources, service: str, child: bool) -> None:
    first = gateway.user()
    source = sources.make(5 * PART + 4321, f"{service} {child}")
    upload = first.create(source)
    first.send(upload, source, [4, 2])
    running = first.sign(upload, source, [3])[3]
    with Wire(running["url"]) as wire:
        wire.begin("PUT", Content_Length=str(PART)).send(source.part(3)[: PART // 2])
        await_true(lambda: any((gateway.storage / "incoming").iterdir()))
        await_back = gateway.kill(service, child)
        await_back()
        if service == "nginx":
            arrived = {2, 4}
            gateway.age_bodies()
        else:
            status, _ = wire.send(source.part(3)[PART // 2 :]).answer()
            assert status in (200, 201, 204), "a part needs no API"
            arrived = {2, 3, 4}

    second = gateway.client().sign_in(first.username, first.password)
    found = second.create(source)
    assert found["id"] == upload["id"]
    assert set(numbers_of(found["received"])) == arrived
    second.send(found, source)
    assert sorted(second.sent) == sorted(set(source.numbers) - arrived)
    file = second.complete(found)
    assert second.holds(file, source)
    assert first.want(200, "GET", "/files")["items"] == [file]
    gateway.await_nothing_lost()


def test_a_complete_whose_api_is_killed_is_safe_to_repeat(gateway: Gateway, sources: Sources) -> None:
    user = gateway.user()
    source = sources.make(2 * PART + 5, "complete")
    upload = user.create(source)
    user.send(upload, source)
    answers = []
    call = threading.Thread(target=lambda: answers.append(user.call("POST", f"/uploads/{upload['id']}/complete")))
    with gateway.database() as cursor:
        cursor.execute("LOCK TABLES file WRITE")
        call.start()
        await_true(lambda: any("metadata lock" in str(row) for row in gateway.query("SHOW PROCESSLIST")))
        await_back = gateway.kill("api")
        call.join(30)
    await_back()
    assert code(answers[0]) == (503, "API_UNAVAILABLE")
    file = user.complete(upload)
    assert user.holds(file, source)
    assert user.complete(upload)["id"] == file["id"]
    assert user.want(200, "GET", "/files")["items"] == [file]
    gateway.await_nothing_lost()


def test_a_download_outlives_the_api_the_database_and_redis(gateway: Gateway, user: Client, sources: Sources) -> None:
    source = sources.make(4 * PART, "download")
    link = user.link(user.upload(source))
    user.fetch(link, Range="bytes=0-0")
    whole = hashlib.sha256()
    with user.http.stream("GET", link) as response:
        data = response.iter_raw(1024**2)
        whole.update(next(data))
        for service in ("api", "mariadb", "redis"):
            gateway.kill(service)()
        for block in data:
            whole.update(block)
    assert whole.hexdigest() == source.sha256


def test_a_whole_stack_that_is_killed_finds_its_uploads_again(gateway: Gateway, sources: Sources) -> None:
    user = gateway.user()
    source = sources.make(5 * PART + 1, "everything")
    upload = user.create(source)
    user.send(upload, source, [1, 5])
    os.kill(gateway.stack.process.pid, signal.SIGKILL)
    gateway.restart_after_kill()
    found = user.create(source)
    assert (found["id"], numbers_of(found["missing"])) == (upload["id"], [2, 3, 4, 6])
    user.send(found, source)
    assert user.holds(user.complete(found), source)
