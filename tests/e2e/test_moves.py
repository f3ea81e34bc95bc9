"""A move by policy, from the local disk to a real Ceph, while the files are downloaded without a pause."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.e2e.conftest import running
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART, Sources
from tests.storage.ceph import Ceph
from tests.waiting import await_true

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def gateway(ceph: Ceph) -> Iterator[Gateway]:
    settings = {name: value for name, value in ceph.settings.items() if name.startswith("SLUICE_S3_")} | {
        "SLUICE_STORAGES": "local:local,main:s3",
        "SLUICE_TRANSFER_POLICIES": "move:local>main after 2s keep 2s",
        "SLUICE_TARGET_TTL": "2",
        "SLUICE_LINK_GRACE": "1",
        "SLUICE_TEST_TRANSFER_DRAIN": "2",
    }
    with running(settings) as made:
        yield made


class Downloads:
    """Downloads links continuously, whole and in ranges, and records errors."""

    def __init__(self, gateway: Gateway, links: dict[str, bytes]) -> None:
        self._gateway = gateway
        self._links = links
        self._stop = threading.Event()
        self.wrong: list[str] = []
        self.count = 0
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def __enter__(self) -> Downloads:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *what: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with closing(self._gateway.client()) as client:
            while not self._stop.is_set():
                for url, data in self._links.items():
                    whole = client.fetch(url)
                    if (whole.status_code, whole.content) != (200, data):
                        self.wrong.append(f"{whole.status_code}, {len(whole.content)} bytes")
                    middle = len(data) // 2
                    part = client.fetch(url, Range=f"bytes={middle}-{middle + 99}")
                    if (part.status_code, part.content) != (206, data[middle : middle + 100]):
                        self.wrong.append(f"range: {part.status_code}")
                    self.count += 1


def test_downloads_go_on_at_every_moment_of_a_move(gateway: Gateway, sources: Sources) -> None:
    user = gateway.user()
    links = {}
    for number, size in enumerate((PART + 1000, 3 * PART, 1000)):
        source = sources.make(size, f"moved {number}")
        links[user.link(user.upload(source))] = source.path.read_bytes()

    def moved() -> bool:
        where = gateway.query("SELECT storage, COUNT(*) FROM replica GROUP BY storage")
        return where == [("main", 3)] and not gateway.query("SELECT 1 FROM doomed") and not gateway.objects()

    with Downloads(gateway, links) as downloads:
        await_true(moved, 120)
        seen = downloads.count
        await_true(lambda: downloads.count > seen + 10, 60)
    assert downloads.wrong == []
    assert downloads.count > 20
    # an instant upload is proved with the remaining replica
    other, source = gateway.user(), sources.make(3 * PART, "moved 1")
    upload = other.create(source)
    proof = {"proof": source.proof(upload["challenge"]), "parts": source.hashes}
    assert other.want(200, "POST", f"/uploads/{upload['id']}/proof", proof)["state"] == "done"
    assert other.sent == []
