"""A blob with two replicas: read, proved and merged by the one that is available."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.core.errors import StorageUnavailable
from api.storage.memory import MemoryStorage
from tests.api.conftest import EDGE_KEY, Content, User, error
from tests.api.moving import Moving
from tests.conftest import Servers


@pytest.fixture
def gateway(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Moving]:
    monkeypatch.setattr("api.storage.stores.HEALTH_CACHE_SECONDS", 0.0)
    made = Moving.over(servers, tmp_path)
    yield made
    made.db.close()


@pytest.fixture
def file(gateway: Moving, user: User) -> dict[str, Any]:
    """Content of two parts, on the first storage and on main."""
    made = user.upload(Content.of_parts(2, "replicas"), "two")
    gateway.start("local", "main")
    gateway.turn_until_done()
    assert gateway.replicas(made).keys() == {"local", "main"}
    return made


def away(storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage is down."""

    def fail(*where: object) -> Any:
        raise StorageUnavailable("away")

    for call in ("check", "open", "stat"):
        monkeypatch.setattr(storage, call, fail)


def target(gateway: Moving, file: dict[str, Any]) -> str:
    answer = gateway.http.simulate_get(f"/internal/targets/{file['id']}", headers={"X-Sluice-Edge": EDGE_KEY})
    assert answer.status_code == 200
    return str(answer.json["uri"])[1:]


def test_the_edge_is_sent_to_the_replica_that_answers(
    gateway: Moving, file: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = gateway.replicas(file)
    assert target(gateway, file) == keys["local"]
    with monkeypatch.context() as patch:
        away(gateway.storage, patch)
        assert target(gateway, file) == keys["main"]
        away(gateway.main, patch)
        assert target(gateway, file) == keys["local"]  # one replica has to be named
    assert target(gateway, file) == keys["local"]


@pytest.mark.parametrize("broken", ["away", "lost"])
@pytest.mark.parametrize("which", ["local", "main"])
def test_an_instant_upload_is_proved_by_either(
    gateway: Moving, file: dict[str, Any], monkeypatch: pytest.MonkeyPatch, which: str, broken: str
) -> None:
    if broken == "away":
        away(gateway.named(which), monkeypatch)
    else:
        gateway.named(which).objects.clear()
    content, other = Content.of_parts(2, "replicas"), gateway.user()
    upload = other.create(content, digest=content.digest)
    done = other.post(f"/uploads/{upload['id']}/proof", content.prove(upload["challenge"]))
    assert done.json["state"] == "done"


@pytest.mark.parametrize("lost", ["local", "main", "both"])
def test_a_merge_heals_lost_content_on_its_storage_and_nothing_else(
    gateway: Moving, file: dict[str, Any], lost: str
) -> None:
    keys = gateway.replicas(file)
    for name in ("local", "main") if lost == "both" else (lost,):
        gateway.named(name).objects.clear()
    content, other = Content.of_parts(2, "replicas"), gateway.user()
    again = other.upload(content, "again")
    replicas = gateway.replicas(again)
    assert gateway.replicas(file) == replicas
    # the new object is on the first storage, and replaces the lost one
    assert (replicas["local"] == keys["local"]) == (lost == "main")
    assert replicas["main"] == keys["main"]
    gateway.services.sweep.run()
    assert gateway.storage.objects == {replicas["local"]: content.data}


def test_a_merge_does_not_ask_other_storages(
    gateway: Moving, file: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = gateway.replicas(file)
    away(gateway.main, monkeypatch)
    again = gateway.user().upload(Content.of_parts(2, "replicas"), "again")
    assert gateway.replicas(again) == keys


@pytest.mark.parametrize("broken", ["away", "lost", "no"])
def test_a_blob_that_lies_elsewhere_alone_is_merged_with_or_healed(
    gateway: Moving, file: dict[str, Any], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    gateway.db.execute("DELETE FROM replica WHERE storage = 'local'")
    content, other = Content.of_parts(2, "replicas"), gateway.user()
    upload = other.create(content, "again")
    other.put(upload, content)
    if broken == "away":
        away(gateway.main, monkeypatch)
        error(other.complete(upload), 503, "STORAGE_UNAVAILABLE")  # no result
        return
    if broken == "lost":
        gateway.main.objects.clear()
    assert other.complete(upload).status_code == 200
    assert gateway.replicas(file).keys() == ({"main", "local"} if broken == "lost" else {"main"})
