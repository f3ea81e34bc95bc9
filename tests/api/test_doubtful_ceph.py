"""The whole API and its worker on a real Ceph, behind a proxy that passes a complete on and drops its response."""

from __future__ import annotations

import hashlib
import os
import re
import select
import socket
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from api.core.config import S3Config, load
from api.storage.s3.storage import S3Storage
from tests.api.conftest import Content, Gateway, fresh_database
from tests.conftest import Servers
from tests.listening import Listening
from tests.storage.contract import read
from tests.storage.signed import request

_COMPLETE = re.compile(rb"POST [^ ]*[?&]uploadId=")


class Dropping(Listening):
    """Passes everything on to radosgw, but drops the responses to completes while told to.

    Attributes:
        completes: number of completes passed on.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (str(parts.hostname), int(parts.port or 80))
        self.drops = True
        self.completes = 0
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"

    def serve(self, client: socket.socket) -> None:
        with socket.create_connection(self._target) as server:
            completing = False
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    if ready is client and _COMPLETE.match(data):
                        completing = True
                        self.completes += 1
                    if ready is server and completing and self.drops:
                        return  # radosgw has done all of the work
                    (server if ready is client else client).sendall(data)


@pytest.fixture
def proxy(s3_config: S3Config) -> Iterator[Dropping]:
    made = Dropping(s3_config.endpoint)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def gateway(environ: dict[str, str], servers: Servers, s3_config: S3Config, proxy: Dropping) -> Gateway:
    config = load(environ | {"SLUICE_DATABASE_URL": fresh_database(servers)})
    through = replace(s3_config, endpoint=proxy.url, public_endpoint=s3_config.endpoint)
    return Gateway(config, S3Storage(through, lambda: "0badca1f"))  # type: ignore[arg-type]


@pytest.mark.parametrize("etags", [True, False])
def test_one_complete_is_sent_and_the_file_is_whole_behind_a_copy(
    gateway: Gateway, s3_config: S3Config, proxy: Dropping, etags: bool
) -> None:
    user, content = gateway.user(), Content(os.urandom(9 * 1024**2))
    upload = user.create(content)
    signed = user.post(f"/uploads/{upload['id']}/parts", {"parts": content.hashes()}).json["parts"]
    told = {}
    for number, part in signed.items():
        data = content.part(int(number))
        assert request("PUT", part["url"], part["headers"], data)[0] == 200
        told[number] = hashlib.md5(data, usedforsecurity=False).hexdigest()
    path = f"/uploads/{upload['id']}"
    answer = user.post(f"{path}/complete", {"etags": told} if etags else {})
    assert (answer.status_code, answer.json["state"]) == (202, "finalizing")
    for _ in range(3):
        assert user.post(f"{path}/complete").status_code == 202
    assert proxy.completes == 1
    assert gateway.take("finalize", bytes.fromhex(upload["id"]))
    done = user.get(path).json
    assert (done["state"], done["file"]["state"]) == ("done", "ready")
    assert proxy.completes == 1, "the object was there: it was copied, not made again"
    ((old, new),) = gateway.rows("SELECT object_key, copy_key FROM upload WHERE id = UNHEX(%s)", upload["id"])
    ((key,),) = gateway.rows("SELECT object_key FROM replica")
    assert key == new != old
    storage = S3Storage(s3_config, lambda: "0badca1f")
    storage.delete(old)
    assert read(storage, key) == content.data


def test_a_clean_complete_is_sent_once_and_costs_two_calls(gateway: Gateway, proxy: Dropping) -> None:
    proxy.drops = False
    user, content = gateway.user(), Content(os.urandom(1000))
    upload = user.create(content)
    (part,) = user.post(f"/uploads/{upload['id']}/parts", {"parts": content.hashes()}).json["parts"].values()
    assert request("PUT", part["url"], part["headers"], content.data)[0] == 200
    told = {"1": hashlib.md5(content.data, usedforsecurity=False).hexdigest()}
    asked: list[str] = []
    connections = gateway.storage._calls._connections  # type: ignore[attr-defined]
    real = connections.ask

    def ask(method: str, *more: object, **options: object) -> object:
        asked.append(method)
        return real(method, *more, **options)

    connections.ask = ask
    answer = user.post(f"/uploads/{upload['id']}/complete", {"etags": told})
    assert (answer.status_code, answer.json["state"]) == (200, "done")
    assert asked == ["POST", "GET"]
    assert proxy.completes == 1
