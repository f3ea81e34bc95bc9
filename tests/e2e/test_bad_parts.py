"""Wrong part bodies and wrong part URLs: a clear error, nothing lost, and the right call still works."""

import os
import time

import pytest

from tests.e2e.client import Client, Json, code, token_of
from tests.e2e.forge import flipped, seal, sign, unseal
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART, Source
from tests.e2e.wire import Wire
from tests.waiting import await_true


def finish(user: Client, upload: Json, source: Source) -> None:
    """After any refusal the right calls complete the upload, with the right bytes."""
    user.send(upload, source)
    assert user.holds(user.complete(upload), source)


# -- a part's body


@pytest.mark.parametrize("difference", [-1, 1, -1000])
def test_a_body_of_another_length_is_refused(user: Client, upload: Json, source: Source, difference: int) -> None:
    part = user.sign(upload, source, [2])[2]
    body = (source.part(2) + b"more")[: 1000 + difference]
    expected = (411, "LENGTH_REQUIRED") if not body else (400, "LENGTH_MISMATCH")
    refused = code(user.put(part, body))
    assert refused in (expected, (400, "LENGTH_MISMATCH"))
    finish(user, upload, source)


def test_a_body_without_a_length_is_refused(user: Client, upload: Json, source: Source) -> None:
    part = user.sign(upload, source, [2])[2]
    chunked = user.http.put(part["url"], content=iter([source.part(2)]))
    assert code(chunked) == (411, "LENGTH_REQUIRED")
    with Wire(part["url"]) as wire:
        assert wire.begin("PUT", Connection="close").answer() == (411, "LENGTH_REQUIRED")
    with Wire(part["url"]) as wire:
        both = wire.begin("PUT", Content_Length="1000", Transfer_Encoding="chunked").send(b"0\r\n\r\n").answer()
        assert both[0] in (400, 411)
    finish(user, upload, source)


@pytest.mark.parametrize("length", ["-1", "1e3", "0x3e8", "1000, 1000", "99999999999999999999", ""])
def test_a_malformed_length_is_refused(user: Client, upload: Json, source: Source, length: str) -> None:
    part = user.sign(upload, source, [2])[2]
    with Wire(part["url"]) as wire:
        status, _ = wire.begin("PUT", Content_Length=length).send(source.part(2)).answer()
    assert status in (400, 411, 413), status
    finish(user, upload, source)


def test_a_body_that_is_cut_leaves_nothing(gateway: Gateway, user: Client, upload: Json, source: Source) -> None:
    part = user.sign(upload, source, [1])[1]
    with Wire(part["url"]) as wire:
        wire.begin("PUT", Content_Length=str(PART)).send(source.part(1)[: PART // 2])
        await_true(lambda: any((gateway.storage / "incoming").iterdir()))
    await_true(lambda: not any((gateway.storage / "incoming").iterdir()))
    now = user.want(200, "GET", f"/uploads/{upload['id']}")
    assert now["received"] == []
    finish(user, upload, source)


def test_a_body_that_is_not_wanted_is_not_waited_for(user: Client, upload: Json, source: Source) -> None:
    part = user.sign(upload, source, [1])[1]
    with Wire(part["url"] + "x") as wire:
        answer = wire.begin("PUT", Content_Length=str(PART), Expect="100-continue").answer()
    assert answer == (403, "PART_URL_INVALID")
    finish(user, upload, source)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "MKCOL", "COPY", "MOVE", "PATCH"])
def test_a_part_url_takes_put_alone(user: Client, upload: Json, source: Source, method: str) -> None:
    part = user.sign(upload, source, [2])[2]
    response = user.http.request(method, part["url"], headers={"Destination": part["url"], "Depth": "0"})
    assert response.status_code == 405
    assert response.headers["Allow"] == "PUT"
    finish(user, upload, source)


# -- a part's URL


def test_a_url_is_good_for_its_part_alone_and_for_its_time(
    gateway: Gateway, user: Client, upload: Json, source: Source
) -> None:
    key = (gateway.data / "secrets" / "token_keys").read_text().split()[-1]
    url = user.sign(upload, source, [2])[2]["url"]
    token = token_of(url)
    claims = unseal(key, token)
    assert (claims["part"], claims["size"]) == (2, 1000)
    refused = {
        "forged": seal("0" * 64, claims),
        "signed and not sealed": sign(key, "part", claims),
        "of another purpose": sign(key, "link", claims),
        "an access token": user.token,
        "flipped in the tag": flipped(token, len(token) - 5),
        "flipped in the nonce": flipped(token, 5),
        "flipped in the middle": flipped(token, len(token) // 2),
        "another spelling": f"{token}=",
        "cut": token[:-1],
        "empty": "x",
        "long": "x" * 3000,
    }
    for why, bad in refused.items():
        response = user.put({"method": "PUT", "url": f"{gateway.address}/p/{bad}", "headers": {}}, source.part(2))
        assert code(response) == (403, "PART_URL_INVALID"), why
    expired = seal(key, {**claims, "exp": int(time.time()) - 1})
    response = user.put({"method": "PUT", "url": f"{gateway.address}/p/{expired}", "headers": {}}, source.part(2))
    assert code(response) == (403, "PART_URL_EXPIRED")
    assert user.want(200, "GET", f"/uploads/{upload['id']}")["received"] == []
    finish(user, upload, source)


@pytest.mark.parametrize("end", ["complete", "abort", "wrong digest"])
def test_every_url_is_dead_once_the_upload_has_ended(gateway: Gateway, user: Client, source: Source, end: str) -> None:
    upload = user.create(source, digest=os.urandom(32).hex() if end == "wrong digest" else True)
    part = user.sign(upload, source, [2])[2]
    user.send(upload, source)
    if end == "complete":
        user.complete(upload)
    elif end == "abort":
        user.want(200, "DELETE", f"/uploads/{upload['id']}")
    else:
        refused = user.call("POST", f"/uploads/{upload['id']}/complete")
        assert code(refused) == (422, "DIGEST_MISMATCH")
    assert code(user.put(part, source.part(2))) == (409, "UPLOAD_NOT_OPEN")
    for again in (("POST", "/parts", {"parts": source.hashes_of([2])}), ("DELETE", "", None)):
        response = user.call(again[0], f"/uploads/{upload['id']}{again[1]}", again[2])
        assert code(response)[0] in ((409,) if end == "complete" or again[1] else (200, 409))
    assert upload["id"] not in gateway.part_folders()
