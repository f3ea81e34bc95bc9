"""Keys are rotated during a steady load, and no request fails."""

import subprocess
import threading
from collections.abc import Callable

import httpx

from api.core import keys
from api.core.errors import TokenError
from api.core.tokens import Tokens
from tests.e2e.client import Client, code, token_of
from tests.e2e.gateway import Gateway
from tests.e2e.sources import Source
from tests.nginx.stub_api import wait_for

SETTINGS = {"SLUICE_SIGNIN_RATE": "100000"}  # the load renews a session as often as it can
"""A separate gateway, because other modules expect the first key to sign."""


class Steady:
    """Calls that repeat in separate threads until stopped."""

    def __init__(self, *calls: Callable[[], httpx.Response]) -> None:
        self.counts = [0] * len(calls)
        self.failed: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n, call)) for n, call in enumerate(calls)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int, call: Callable[[], httpx.Response]) -> None:
        while not self._stop.is_set():
            try:
                response = call()
                if not response.is_success:
                    self.failed.append(f"{number}: {response.status_code} {response.text}")
            except Exception as ex:
                self.failed.append(f"{number}: {ex!r}")
            self.counts[number] += 1
            self._stop.wait(0.01)

    def await_more(self, count: int) -> None:
        wanted = [n + count for n in self.counts]
        wait_for(lambda: all(n >= w for n, w in zip(self.counts, wanted, strict=True)), "calls", 60)

    def __enter__(self) -> "Steady":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def run(gateway: Gateway, *words: str) -> str:
    result = subprocess.run(
        [str(gateway.data / "run" / "api"), "keys", *words], capture_output=True, text=True, check=True
    )
    gateway.secrets.add_keys(gateway.data / "secrets")
    return result.stdout


def test_rotate_and_retire(gateway: Gateway, user: Client, source: Source) -> None:
    path = gateway.data / "secrets" / "token_keys"
    (old,) = keys.parse(path.read_text())
    file = user.upload(source)
    old_link = user.link(file)
    downloader, signer, renewer, sender = (user.another_machine() for _ in range(4))
    renewer_lock = renewer.refresh_token

    def refresh() -> httpx.Response:
        nonlocal renewer_lock
        response = renewer.call("POST", "/sessions/refresh", {"refresh_token": renewer_lock})
        renewer_lock = response.json().get("refresh_token", "")
        return response

    def put() -> httpx.Response:
        upload = sender.create(source, name="rotating", digest=False)
        part = sender.sign(upload, source, [1])[1]
        response = sender.put(part, source.part(1))
        sender.want(200, "DELETE", f"/uploads/{upload['id']}")
        return response

    def new_link() -> httpx.Response:
        return signer.fetch(signer.link(file), "HEAD")

    calls = (lambda: downloader.fetch(old_link, "HEAD"), lambda: user.call("GET", "/files"), new_link, refresh, put)
    with Steady(*calls) as steady:
        steady.await_more(5)
        assert steady.failed == []
        assert "signs from" in run(gateway, "rotate", "--after", "3")
        new = keys.parse(path.read_text())[-1]
        assert old.fingerprint in run(gateway, "list")

        def signed_anew() -> bool:
            try:
                Tokens([new.text]).verify_link(token_of(signer.link(file)))
            except TokenError:
                return False
            return True

        assert not signed_anew()
        wait_for(signed_anew, "tokens of the new key")
        steady.await_more(20)
    assert steady.failed == []

    kept = user.another_machine()
    run(gateway, "retire", "--force")
    wait_for(lambda: all(code(user.fetch(old_link)) == (403, "LINK_INVALID") for _ in range(20)), "refusals", 3)
    wait_for(lambda: all(user.call("GET", "/users/me").status_code == 401 for _ in range(20)), "refusals", 3)
    assert kept.call("GET", "/users/me").status_code == 200
    assert kept.fetch(kept.link(file), "HEAD").status_code == 200
