"""A user with an account. Each request is named by route and storage, and compared with its expected status."""

from __future__ import annotations

import itertools
import json
import random
import secrets
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

import gevent
from locust import FastHttpUser, between
from locust.exception import StopUser

from loadtest.benchmarks.content import Content
from loadtest.locust_users import settings

JSON = dict[str, Any]
PASSWORD = "a long password"
_SEEDS = itertools.count(secrets.randbits(56) << 6)


class Account(FastHttpUser):
    """Signs up and in at its start, and out at its end."""

    abstract = True
    wait_time = between(0.1, 0.5)
    network_timeout = 60.0
    connection_timeout = 10.0
    storages: ClassVar[dict[str, str]] = {}
    """The storage of each uploaded file, by file id."""

    def on_start(self) -> None:
        self.username = f"load-{secrets.token_hex(8)}"
        body = {"username": self.username, "password": PASSWORD}
        self.token = ""
        self.ask("POST", "/users", "POST /users", body, (201,))
        self.sign_in()

    def sign_in(self) -> None:
        """Takes a new access token."""
        body = {"username": self.username, "password": PASSWORD}
        answer = self.ask("POST", "/sessions", "POST /sessions", body, (200, 201))
        if "access_token" not in answer:
            raise StopUser
        self.token = answer["access_token"]

    def on_stop(self) -> None:
        if self.token:
            self.ask("DELETE", "/sessions/current", "DELETE /sessions/current", expected=(200, 204))

    @property
    def options(self) -> Namespace:
        """The run's options."""
        found: Namespace | None = self.environment.parsed_options
        assert found is not None
        return found

    def new_content(self, least: int = 0) -> Content:
        """New content, with one of the run's sizes."""
        drawn = settings.chosen(settings.sizes(self.options.sizes), random.random())
        return Content(max(drawn, least), next(_SEEDS))

    def ask(
        self,
        method: str,
        path: str,
        name: str,
        body: JSON | None = None,
        expected: tuple[int, ...] = (200,),
        token: str | None = None,
        patient: bool = True,
    ) -> JSON:
        """A call of the API. An unexpected status counts as a failure and returns an empty result.

        Args:
            patient: waits and retries once after 429, as a real client does.
        """
        given = self.token if token is None else token
        headers = {"Authorization": f"Bearer {given}"} if given else {}
        for again in (patient, False):
            with self.client.request(
                method, f"/api/v1{path}", name=name, json=body, headers=headers, catch_response=True
            ) as response:
                answer = _parsed(response.content)
                if response.status_code in expected:
                    response.success()
                    return answer
                if again and response.status_code == 429:
                    response.success()
                    wait = float(response.headers.get("Retry-After") or 1)
                else:
                    response.failure(f"{response.status_code} {answer.get('error', {}).get('code', '')}")
                    return {}
            gevent.sleep(min(wait, 10.0))  # as Retry-After says
        return {}

    def fetch(self, method: str, url: str, name: str, expected: tuple[int, ...], **members: Any) -> bytes | None:
        """A request for bytes: a part or a download. Returns None if it failed."""
        if not settings.is_allowed(url, self.options.allow_host):
            raise StopUser  # a presigned URL may name a server whose owner has not agreed to the load
        for again in (True, False):
            with self.client.request(method, url, name=name, catch_response=True, **members) as response:
                body: bytes = response.content or b""
                if response.status_code in expected:
                    response.success()
                    return body
                if again and response.status_code == 429:
                    response.success()
                    wait = float(response.headers.get("Retry-After") or 1)
                else:
                    response.failure(f"{response.status_code} {_parsed(body).get('error', {}).get('code', '')}")
                    return None
            gevent.sleep(min(wait, 10.0))  # as Retry-After says
        return None

    # -- uploads, common to all kinds of users

    def create(self, content: Content, **members: object) -> JSON:
        """A new upload."""
        body = {"name": f"{secrets.token_hex(4)}.bin", "size": content.size, **members}
        return self.ask("POST", "/uploads", "POST /uploads", body, (200, 201))

    def send(self, content: Content, upload: JSON, parts: Mapping[str, JSON]) -> bool:
        """PUTs the bytes of these parts."""
        for number, part in parts.items():
            head, tail = content.part(int(number))
            name = f"PUT part [{upload['storage']}]"
            sent = self.fetch(
                "PUT", part["url"], name, (200, 201, 204), data=head + bytes(tail), headers=part["headers"]
            )
            if sent is None:
                return False
        return True

    def complete(self, upload: JSON) -> JSON | None:
        """The finished file."""
        name = f"POST /uploads/… complete [{upload['storage']}]"
        answer = self.ask("POST", f"/uploads/{upload['id']}/complete", name, expected=(200, 202))
        for _ in range(100):
            if answer.get("state") != "finalizing":
                break
            gevent.sleep(0.2)  # a poll, as a client does it
            answer = self.ask("GET", f"/uploads/{upload['id']}", "GET /uploads/…")
        file: JSON | None = answer.get("file")
        if file:
            self.storages[file["id"]] = upload["storage"]
        return file

    def upload(self, content: Content) -> JSON | None:
        """Sends content as a whole; its file."""
        upload = self.create(content)
        if not upload:
            return None
        hashes = content.hashes()
        answer = self.ask("POST", f"/uploads/{upload['id']}/parts", "POST /uploads/… parts", {"parts": hashes})
        if not answer or not self.send(content, upload, answer["parts"]):
            return None
        return self.complete(upload)

    def link(self, file: JSON, expires_in: int = 600) -> str:
        """Makes a link. Returns its URL, with the address that this run loads."""
        body = {"expires_in": expires_in}
        url: str = self.ask("POST", f"/files/{file['id']}/links", "POST /files/… links", body, (201,)).get("url", "")
        return f"{self.host}{urlsplit(url).path}" if url else ""


def _parsed(body: bytes | None) -> JSON:
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
