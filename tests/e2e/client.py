"""A client for tests, written from docs/api.md only, with checks that apply to every response."""

import hashlib
import itertools
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.e2e.leaks import Secrets
from tests.e2e.sources import Source

Json = dict[str, Any]
_names = (f"user{number}" for number in itertools.count(1))
COMPLETE_SECONDS = 60.0


def check(response: httpx.Response) -> None:
    """Every response names its request. Every error has the one shape, and Retry-After if a retry helps."""
    request_id = response.headers.get("X-Request-Id")
    assert request_id, f"{response.status_code} without X-Request-Id"
    if response.status_code < 400 or response.request.method == "HEAD":
        return
    response.read()
    assert response.headers["Content-Type"].startswith("application/json"), response.text
    error = response.json()["error"]
    assert {"code", "message", "request_id"} <= error.keys()
    assert error["request_id"] == request_id
    assert response.status_code not in (429, 503) or int(response.headers["Retry-After"]) >= 1
    assert response.status_code != 401 or response.headers["WWW-Authenticate"] == "Bearer"
    assert response.status_code != 500, response.text


def code(response: httpx.Response) -> tuple[int, str]:
    """Status and error code; the code of a success is empty."""
    refused = response.status_code >= 400
    return response.status_code, response.json()["error"]["code"] if refused else ""


def numbers_of(ranges: Iterable[list[int]]) -> list[int]:
    """[[1,2],[5,5]] → [1,2,5]."""
    return [number for first, last in ranges for number in range(first, last + 1)]


class Client:
    """One machine of one user.

    Args:
        address: the gateway's address.
        secrets: records every secret that this client sends or gets.

    Attributes:
        sent: numbers of the parts that were accepted from this client, in order.
    """

    def __init__(self, address: str, secrets: Secrets) -> None:
        self.address = address
        self.secrets = secrets
        self.http = httpx.Client(timeout=90, event_hooks={"response": [check]}, trust_env=False)
        self.username = self.password = self.token = self.refresh_token = ""
        self.sent: list[int] = []
        self._machines: list[Client] = []

    def close(self) -> None:
        for client in (self, *self._machines):
            client.http.close()

    # -- calls

    def call(self, method: str, path: str, body: Json | None = None, **more: Any) -> httpx.Response:
        """A call of the API with this client's token."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers.update(more.pop("headers", {}))
        response = self.http.request(method, f"{self.address}/api/v1{path}", json=body, headers=headers, **more)
        if response.content and response.headers.get("Content-Type", "").startswith("application/json"):
            self.secrets.add_answer(response.json())
        return response

    def want(self, status: int | tuple[int, ...], method: str, path: str, body: Json | None = None) -> Json:
        """Returns the response of a call, which must have one of these statuses."""
        response = self.call(method, path, body)
        wanted = (status,) if isinstance(status, int) else status
        assert response.status_code in wanted, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else {}

    # -- accounts

    def sign_up(self) -> "Client":
        """A new account, signed in."""
        self.username, self.password = next(_names), self.secrets.new_password()
        self.want(201, "POST", "/users", {"username": self.username, "password": self.password})
        return self.sign_in(self.username, self.password)

    def sign_in(self, username: str, password: str) -> "Client":
        self.username, self.password = username, password
        session = self.want(201, "POST", "/sessions", {"username": username, "password": password})
        self.token, self.refresh_token = session["access_token"], session["refresh_token"]
        return self

    def another_machine(self) -> "Client":
        """The same user with another session."""
        self._machines.append(Client(self.address, self.secrets))
        return self._machines[-1].sign_in(self.username, self.password)

    # -- uploads

    def create(self, source: Source, name: str | None = None, digest: bool | str = True, **more: Any) -> Json:
        """Creates an upload, or finds it again; with the file's digest, without one, or with a given one."""
        body = {"name": name or source.path.name, "size": source.size, **more}
        if digest:
            body["digest"] = source.digest if digest is True else digest
        return self.want((200, 201), "POST", "/uploads", body)

    def sign(self, upload: Json, source: Source, numbers: list[int]) -> dict[int, Json]:
        answer = self.want(200, "POST", f"/uploads/{upload['id']}/parts", {"parts": source.hashes_of(numbers)})
        return {int(number): part for number, part in answer["parts"].items()}

    def put(self, part: Json, data: bytes, **more: Any) -> httpx.Response:
        assert part["method"] == "PUT"
        return self.http.put(part["url"], content=data, headers={**part["headers"], **more.pop("headers", {})}, **more)

    def send(self, upload: Json, source: Source, numbers: Iterable[int] | None = None, at_once: int = 4) -> None:
        """Sends parts; by default the missing ones."""
        wanted = numbers_of(upload["missing"]) if numbers is None else list(numbers)
        if not wanted:
            return
        parts = self.sign(upload, source, sorted(set(wanted)))

        def send_one(number: int) -> None:
            response = self.put(parts[number], source.part(number))
            assert response.is_success, f"part {number}: {response.status_code} {response.text}"
            self.sent.append(number)

        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(send_one, wanted))

    def complete(self, upload: Json) -> Json:
        """Completes, waits if that continues in the background, and returns the file."""
        answer = self.want((200, 202), "POST", f"/uploads/{upload['id']}/complete")
        return self.await_done(answer)

    def await_done(self, upload: Json) -> Json:
        """Polls an upload until it is done. Returns its file."""
        deadline = time.monotonic() + COMPLETE_SECONDS
        while upload["state"] == "finalizing":
            assert time.monotonic() < deadline, f"still {upload}"
            time.sleep(0.05)  # a poll, as a client does it
            upload = self.want(200, "GET", f"/uploads/{upload['id']}")
        assert upload["state"] == "done", upload
        assert upload["missing"] == []
        assert upload["percent"] == 100
        file: Json = upload["file"]
        return file

    def upload(self, source: Source, name: str | None = None, **more: Any) -> Json:
        """A whole upload. Returns the file."""
        upload = self.create(source, name, **more)
        if upload["state"] == "done":
            file: Json = upload["file"]
            return file
        self.send(upload, source)
        return self.complete(upload)

    # -- downloads

    def link(self, file: Json, **more: Any) -> str:
        return str(self.want(201, "POST", f"/files/{file['id']}/links", more)["url"])

    def fetch(self, url: str, method: str = "GET", **headers: str) -> httpx.Response:
        """A download with the link's token only; `if_range` sets the header If-Range."""
        return self.http.request(method, url, headers={name.replace("_", "-"): text for name, text in headers.items()})

    def sha256_of(self, url: str) -> str:
        """The SHA-256 of a download, computed without keeping the bytes."""
        whole = hashlib.sha256()
        with self.http.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
            assert response.status_code == 200
            for data in response.iter_raw(1024**2):
                whole.update(data)
        return whole.hexdigest()

    def holds(self, file: Json, source: Source) -> bool:
        """Whether a download of a file returns the source's bytes."""
        assert file["size"] == source.size
        return self.sha256_of(self.link(file)) == source.sha256


def token_of(url: str) -> str:
    """The token in a part's or a link's URL."""
    return urlsplit(url).path.split("/")[2]
