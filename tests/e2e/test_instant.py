"""Instant upload and dedup: a client with the content need not send it; a client with only its hash gets nothing."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.client import Client, Json, code, numbers_of
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART, Source, Sources


def prove(client: Client, upload: Json, source: Source, **changed: object) -> Json:
    proof = {"proof": source.proof(upload["challenge"]), "parts": source.hashes, **changed}
    return client.want(200, "POST", f"/uploads/{upload['id']}/proof", proof)


def test_a_right_proof_gives_the_file_immediately(
    gateway: Gateway, user: Client, other: Client, sources: Sources
) -> None:
    source = sources.make(2 * PART + 99, "instant")
    first = user.upload(source, "mine")
    stored = gateway.objects()
    upload = other.create(source, "theirs")
    assert upload["state"] == "proving"
    assert len(upload["challenge"]["ranges"]) == 4
    done = prove(other, upload, source)
    assert done["state"] == "done"
    assert other.holds(done["file"], source)
    assert other.sent == []
    assert gateway.objects() == stored, "one object for two users"
    assert (done["file"]["digest"], done["file"]["name"]) == (first["digest"], "theirs")

    user.want(204, "DELETE", f"/files/{first['id']}")
    assert user.want(200, "GET", f"/files/{first['id']}")["trashed_at"]
    assert other.holds(done["file"], source), "the other file stays"


@pytest.mark.parametrize("wrong", ["proof", "nonce", "parts", "order"])
def test_a_wrong_proof_has_to_upload(user: Client, other: Client, sources: Sources, wrong: str) -> None:
    source = sources.make(2 * PART + 100, f"wrong {wrong}")
    user.upload(source)
    upload = other.create(source)
    changed: dict[str, object] = {"proof": os.urandom(32).hex()}
    if wrong == "nonce":
        changed = {"proof": source.proof({**upload["challenge"], "nonce": "00" * 16})}
    elif wrong == "parts":
        changed = {"parts": [os.urandom(32).hex() for _ in source.hashes]}
    elif wrong == "order":
        changed = {"parts": source.hashes[::-1]}
    judged = prove(other, upload, source, **changed)
    assert (judged["state"], judged["file"], judged["challenge"]) == ("uploading", None, None)
    assert numbers_of(judged["missing"]) == source.numbers

    again = other.call("POST", f"/uploads/{upload['id']}/proof", {"proof": "00" * 32, "parts": source.hashes})
    assert again.json()["state"] == "uploading", "one try a challenge"
    right = {"proof": source.proof(upload["challenge"]), "parts": source.hashes}
    assert other.want(200, "POST", f"/uploads/{upload['id']}/proof", right)["state"] == "uploading"
    other.send(judged, source)
    assert other.holds(other.complete(upload), source)


def test_unknown_content_is_challenged_like_known(gateway: Gateway, user: Client, sources: Sources) -> None:
    source = sources.make(3 * PART, "unknown")
    upload = user.create(source)
    assert upload["state"] == "proving"
    asked_again = user.create(source)
    assert asked_again["challenge"]["ranges"] == upload["challenge"]["ranges"], "a repeat returns the same ranges"
    assert asked_again["challenge"]["nonce"] != upload["challenge"]["nonce"]
    assert prove(user, asked_again, source)["state"] == "uploading", "right, but nothing is stored"
    user.send(upload, source)
    assert user.holds(user.complete(upload), source)


def test_a_claim_of_another_size_is_not_the_content(user: Client, other: Client, sources: Sources) -> None:
    source = sources.make(2 * PART, "size")
    user.upload(source)
    claim = {"name": "claim", "size": 2 * PART - 1, "digest": source.digest}
    upload = other.want(201, "POST", "/uploads", claim)
    assert prove(other, upload, source)["state"] == "uploading"
    other.want(200, "DELETE", f"/uploads/{upload['id']}")


def test_content_that_the_user_has_is_done_immediately(gateway: Gateway, user: Client, sources: Sources) -> None:
    source = sources.make(PART + 5, "own")
    user.upload(source, "first")
    gateway.await_nothing_lost()
    stored = gateway.objects()
    upload = user.create(source, "second")
    assert upload["state"] == "done"
    assert user.holds(upload["file"], source)
    assert gateway.objects() == stored


def test_small_content_is_merged_silently(gateway: Gateway, user: Client, other: Client, sources: Sources) -> None:
    source = sources.make(5000, "small")
    first = user.upload(source)
    gateway.await_nothing_lost()
    stored = gateway.objects()
    upload = other.create(source)
    assert (upload["state"], upload["challenge"]) == ("uploading", None), "reveals nothing about stored content"
    other.send(upload, source)
    second = other.complete(upload)
    gateway.await_nothing_lost()
    assert gateway.objects() == stored
    for client, file in ((user, first), (other, second)):
        assert client.holds(file, source)


def test_the_same_content_by_many_users_at_the_same_moment_is_one_object(gateway: Gateway, sources: Sources) -> None:
    source = sources.make(2 * PART + 1, "at once")
    assert source.digest
    clients = [gateway.user() for _ in range(6)]
    stored = gateway.objects().keys()
    with ThreadPoolExecutor(6) as pool:
        files = list(pool.map(lambda client: client.upload(source, client.username, digest=False), clients))
    gateway.await_nothing_lost()
    assert len(gateway.objects().keys() - stored) == 1
    assert len({file["id"] for file in files}) == 6
    for client, file in zip(clients, files, strict=True):
        assert (file["name"], client.holds(file, source)) == (client.username, True)
    clients[0].want(204, "DELETE", f"/files/{files[0]['id']}")
    assert all(client.holds(file, source) for client, file in list(zip(clients, files, strict=True))[1:])


def test_another_users_upload_takes_no_proof(user: Client, other: Client, sources: Sources) -> None:
    source = sources.make(2 * PART + 3, "not yours")
    upload = user.create(source)
    body = {"proof": source.proof(upload["challenge"]), "parts": source.hashes}
    refused = other.call("POST", f"/uploads/{upload['id']}/proof", body)
    assert code(refused) == (404, "UPLOAD_NOT_FOUND")
    user.want(200, "DELETE", f"/uploads/{upload['id']}")
