"""Complete with the ETags of the parts: stored parts are not listed, and ETags do not change the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import falcon.testing
import httpx
import pytest

from api.core.config import S3Config, load
from api.storage.memory import MemoryStorage
from api.storage.s3.storage import S3Storage
from tests.api.conftest import Content, Gateway, User, error

Compose = Callable[..., Gateway]


@pytest.fixture
def compose(environ: dict[str, str]) -> Iterator[Compose]:
    made: list[Gateway] = []

    def make(storage: Any = None, **more: object) -> Gateway:
        storage = storage or MemoryStorage(enforces_sha256=True, compares=False)
        made.append(Gateway(replace(load(environ), **more), storage))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for gateway in made:
        gateway.db.close()


@pytest.fixture
def gateway(compose: Compose) -> Gateway:
    """On a storage that compares content with a signed hash."""
    return compose()


@pytest.fixture
def user(gateway: Gateway) -> User:
    return gateway.user()


@pytest.fixture
def lists(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The uploads whose parts were listed at the storage."""
    return watch(gateway, monkeypatch)


def watch(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []
    real = gateway.storage.list_parts

    def list_parts(ref: Any) -> dict[int, int]:
        asked.append(ref.upload_id)
        return real(ref)

    monkeypatch.setattr(gateway.storage, "list_parts", list_parts)
    return asked


def etags_of(count: int) -> dict[str, str]:
    return {str(number): f'"{number:032x}"' for number in range(1, count + 1)}


def sent(user: User, content: Content, numbers: list[int] | None = None) -> dict[str, Any]:
    """An upload with all of its hashes, of which only these parts are stored."""
    upload = user.create(content)
    user.put(upload, content)
    stored = user.gateway.storage.uploads[upload["id"]]
    for number in set(stored) - set(numbers or stored):
        del stored[number]
    return upload


def complete(user: User, upload: dict[str, Any], etags: object) -> falcon.testing.Result:
    return user.post(f"/uploads/{upload['id']}/complete", {"etags": etags})


def state_of(user: User, upload: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = user.get(f"/uploads/{upload['id']}").json
    return found


def test_with_every_etag_no_list_is_made(user: User, lists: list[str]) -> None:
    content = Content.of_parts(3, "etags")
    upload = sent(user, content)
    answer = complete(user, upload, etags_of(3))
    assert (answer.status_code, answer.json["state"], answer.json["digest"]) == (200, "done", content.digest)
    assert answer.json["file"]["state"] == "ready"
    assert lists == []


def test_missing_parts_are_named_as_ever_and_cost_no_try(gateway: Gateway, user: User, lists: list[str]) -> None:
    content = Content.of_parts(5, "etags of what is missing")
    upload = sent(user, content, [1, 5])
    plain = error(user.complete(upload), 409, "PARTS_MISSING")
    before = state_of(user, upload)
    for _ in range(7):
        found = error(complete(user, upload, etags_of(5)), 409, "PARTS_MISSING")
        assert found["missing"] == plain["missing"] == [[2, 4]]
    assert state_of(user, upload) == before | {"digest": content.digest}  # all hashes are recorded: it cannot change
    ((completes, failure, owner),) = gateway.rows(
        "SELECT completes, failure, lease_owner FROM upload WHERE id = UNHEX(%s)", upload["id"]
    )
    assert (completes, failure, owner) == (0, None, None)
    assert lists
    user.put(upload, content, [2, 3, 4])
    assert complete(user, upload, etags_of(5)).json["digest"] == content.digest


@pytest.mark.parametrize(
    "etags",
    [etags_of(2), etags_of(4), {"1": "a", "2": "b", "4": "c"}, {"1": "a", "2": "b", "10000": "c"}],
    ids=["too few", "too many", "another", "far away"],
)
def test_other_parts_than_the_uploads_are_looked_up(user: User, lists: list[str], etags: dict[str, str]) -> None:
    content = Content.of_parts(3, "etags of others")
    upload = sent(user, content, [1, 3])
    assert error(complete(user, upload, etags), 409, "PARTS_MISSING")["missing"] == [[2, 2]]
    user.put(upload, content, [2])
    assert complete(user, upload, etags).json["digest"] == content.digest
    assert lists


def test_a_part_without_a_hash_is_missing_whatever_its_etag(gateway: Gateway, user: User) -> None:
    content = Content.of_parts(2, "etag without a hash")
    upload = user.create(content)
    user.put(upload, content, [1])
    gateway.storage.uploads[upload["id"]][2] = content.part(2)
    assert error(complete(user, upload, etags_of(2)), 409, "PARTS_MISSING")["missing"] == [[2, 2]]


def test_an_upload_whose_urls_bind_no_hash_is_listed(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = compose(MemoryStorage())
    asked, user = watch(gateway, monkeypatch), gateway.user()
    upload = sent(user, Content.of_parts(2, "etags of an unbound upload"), [2])
    assert error(complete(user, upload, etags_of(2)), 409, "PARTS_MISSING")["missing"] == [[1, 1]]
    assert asked == [upload["id"]]


def test_background_transfers_are_listed(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = compose(finalize_inline=1)
    asked, user = watch(gateway, monkeypatch), gateway.user()
    content = Content.of_parts(2, "etags of a large one")
    upload = sent(user, content, [1])
    assert error(complete(user, upload, etags_of(2)), 409, "PARTS_MISSING")["missing"] == [[2, 2]]
    user.put(upload, content, [2])
    assert complete(user, upload, etags_of(2)).status_code == 202
    assert gateway.work("finalize") == [True]
    assert state_of(user, upload)["digest"] == content.digest
    assert asked == [upload["id"]] * 2


def test_an_upload_that_its_storage_lost_has_failed(gateway: Gateway, user: User) -> None:
    upload = sent(user, Content.of_parts(2, "etags of what is gone"))
    del gateway.storage.uploads[upload["id"]]
    for _ in range(2):
        assert complete(user, upload, etags_of(2)).json["error"]["code"] == "UPLOAD_GONE"
    assert state_of(user, upload)["state"] == "failed"


def test_a_small_upload_of_one_put_needs_none(compose: Compose) -> None:
    gateway = compose(MemoryStorage(enforces_sha256=True, compares=False, single_put_max=1000))
    user, content = gateway.user(), Content(b"one PUT with an ETag")
    upload = user.create(content, digest=content.digest, parts=content.hashes())
    assert error(complete(user, upload, etags_of(1)), 409, "PARTS_MISSING")["missing"] == [[1, 1]]
    ((key,),) = gateway.rows("SELECT object_key FROM upload WHERE id = UNHEX(%s)", upload["id"])
    gateway.storage.objects[key] = content.data
    assert complete(user, upload, etags_of(1)).json["state"] == "done"


@pytest.mark.parametrize("etags", [None, {}])
def test_no_etags_are_no_mistake(user: User, lists: list[str], etags: object) -> None:
    upload = sent(user, Content(b"no etags"))
    path = f"/uploads/{upload['id']}/complete"
    if etags is None:
        assert complete(user, upload, None).status_code == 200
        assert user.call("POST", path).status_code == 200
    assert user.post(path, {}).json["state"] == "done"
    assert lists == [upload["id"]]


@pytest.mark.parametrize(
    "body",
    [
        "x",
        "[]",
        '{"etag": {"1": "a"}}',
        '{"etags": []}',
        '{"etags": {}}',
        '{"etags": {"1": ""}}',
        '{"etags": {"1": 5}}',
        '{"etags": {"1": null}}',
        f'{{"etags": {{"1": "{"a" * 129}"}}}}',
        '{"etags": {"1": "a\\u0000b"}}',
        '{"etags": {"1": "a\\n"}}',
        '{"etags": {"1": "\\ud800"}}',
        '{"etags": {"1": "\\u00e9"}}',
        json.dumps({"etags": dict.fromkeys(range(1, 10_002), "a")}),
    ],
)
def test_a_malformed_body_changes_nothing(user: User, body: str) -> None:
    upload = sent(user, Content(b"malformed etags"))
    before = state_of(user, upload)
    error(user.call("POST", f"/uploads/{upload['id']}/complete", body=body), 400, "BODY_INVALID")
    assert state_of(user, upload) == before


@pytest.mark.parametrize("number", ["", "0", "01", "-1", "1.0", "x", "100000", "١"])
def test_a_part_number_is_a_number(user: User, number: str) -> None:
    upload = sent(user, Content(b"numbers of etags"))
    error(complete(user, upload, {number: "a"}), 400, "PART_NUMBER_INVALID")


class TestCeph:
    """The whole sequence on a real Ceph; tests/storage has the tests of how S3 itself treats ETags."""

    def test_etags_only_decide_whether_the_parts_are_listed(self, compose: Compose, s3_config: S3Config) -> None:
        storage = S3Storage(s3_config, lambda: "0badcafe")
        assert storage.enforces_sha256
        gateway = compose(cast(Any, storage))
        user = gateway.user()
        content = Content.of_parts(2, "etags on Ceph")
        other, whole = Content.of_parts(2, "etags on Ceph, others"), []
        for each in (content, other):
            upload = user.create(each)
            parts = user.post(f"/uploads/{upload['id']}/parts", {"parts": each.hashes()}).json["parts"]
            whole.append((upload, parts, {n: put(part, each.part(int(n))) for n, part in parts.items() if n == "1"}))
        (upload, parts, etags), (_, _, strange) = whole
        etags["2"] = '"' + hashlib.md5(content.part(2), usedforsecurity=False).hexdigest() + '"'
        assert error(complete(user, upload, etags), 409, "PARTS_MISSING")["missing"] == [[2, 2]]
        assert state_of(user, upload)["state"] == "uploading"
        assert put(parts["2"], content.part(2)) == etags["2"]
        wrong = {"1": strange["1"], "2": '"></ETag></Part><Part><PartNumber>1</PartNumber><ETag>'}
        done = complete(user, upload, wrong)
        assert (done.status_code, done.json["digest"]) == (200, content.digest)


def put(part: dict[str, Any], data: bytes) -> str:
    answer = httpx.put(part["url"], headers=part["headers"], content=data, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.headers["etag"]
