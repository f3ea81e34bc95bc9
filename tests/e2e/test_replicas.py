"""A file on the local disk and on a real Ceph, whose local object is broken: served, healed, lost, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.client import Client, code
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
        "SLUICE_TRANSFER_POLICIES": "replicate:local>main after 0s",
        "SLUICE_TARGET_TTL": "1",
        "SLUICE_LINK_GRACE": "1",
    }
    with running(settings) as made:
        yield made


def places(gateway: Gateway) -> dict[str, str]:
    return dict(gateway.query("SELECT storage, object_key FROM replica"))


def path_of(gateway: Gateway) -> Path:
    return gateway.storage / "objects" / places(gateway)["local"]


def check(user: Client, url: str, data: bytes) -> None:
    """The whole, the first bytes, and ranges at both ends: never of another size."""
    whole = user.fetch(url)
    assert (whole.status_code, whole.content) == (200, data)
    head = user.fetch(url, "HEAD")
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(data)))
    for first, last in ((0, 9), (len(data) - 10, len(data) - 1)):
        part = user.fetch(url, Range=f"bytes={first}-{last}")
        assert (part.status_code, part.content) == (206, data[first : last + 1])
        assert part.headers["content-range"] == f"bytes {first}-{last}/{len(data)}"


def spoil(path: Path, how: str, data: bytes) -> None:
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(data[: PART // 2] if how == "shorter" else data + b"grown")


def test_a_good_copy_is_used_and_a_bad_one_healed(gateway: Gateway, sources: Sources) -> None:
    user, source = gateway.user(), sources.make(PART + 1000, "replicated")
    file = user.upload(source)
    url, data = user.link(file), source.path.read_bytes()
    await_true(lambda: set(places(gateway)) == {"local", "main"}, 120)
    for how in ("shorter", "longer", "gone"):
        check(user, url, data)
        broken = path_of(gateway)
        spoil(broken, how, data)
        check(user, url, data)
        assert user.call("GET", f"/files/{file['id']}/content").content == data

        def healed(broken: Path = broken) -> bool:
            check(user, url, data)  # when the edge asks again, it gets the first storage
            return path_of(gateway) != broken and path_of(gateway).exists()

        await_true(healed, 60)
        assert path_of(gateway).read_bytes() == data
        assert gateway.stack.get("/readyz") == 200
    assert gateway.query("SELECT COUNT(*) FROM replica WHERE missing_at IS NULL AND suspect IS NULL") == [(2,)]


def test_content_that_no_storage_has_says_so_until_it_is_back(gateway: Gateway, sources: Sources) -> None:
    user, source = gateway.user(), sources.make(5000, "lost content")
    file = user.upload(source)
    url, data = user.link(file), source.path.read_bytes()
    await_true(lambda: set(places(gateway)) == {"local", "main"}, 120)
    gateway.query("DELETE FROM replica WHERE storage = 'main'")
    check(user, url, data)
    path = path_of(gateway)
    path.write_bytes(data[:1000])
    for method, headers in (("GET", {}), ("HEAD", {}), ("GET", {"Range": "bytes=5-9"}), ("GET", {"Range": "bytes=-1"})):
        answer = user.fetch(url, method, **headers)
        assert answer.status_code in (503, 410)
        assert "content-range" not in answer.headers
    await_true(lambda: code(user.fetch(url)) == (410, "CONTENT_LOST"), 60)
    assert gateway.query("SELECT COUNT(*) FROM replica WHERE missing_at IS NOT NULL") == [(1,)]
    # an upload of the same content restores it, for all users
    other = gateway.user()
    other.upload(source)
    await_true(lambda: user.fetch(url).status_code == 200, 60)
    check(user, url, data)
