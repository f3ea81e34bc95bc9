"""Users whose requests must be refused: a refusal is a success here, and any other response is a failure."""

from __future__ import annotations

import secrets
from typing import ClassVar

import gevent
from locust import task

from loadtest.benchmarks.content import PART_SIZE, Content
from loadtest.locust_users.session import Account

_GUESSES = 30
"""Wrong passwords of the whole process. More than 100 from one address would lock all users out."""


class Stranger(Account):
    """Uses tokens that are forged, expired or signed out."""

    @task(4)
    def forged_access(self) -> None:
        self.ask("GET", "/files", "GET /files forged", expected=(401,), token=_bent(self.token))

    @task(4)
    def forged_link(self) -> None:
        if not hasattr(self, "url"):
            file = self.upload(Content(1024, secrets.randbits(60)))
            self.url = self.link(file) if file else ""
        if self.url:
            start, token, name = self.url.rsplit("/", 2)
            self.fetch("GET", f"{start}/{_bent(token)}/{name}", "GET /d forged", (403,))

    @task(1)
    def expired_link(self) -> None:
        file = self.upload(Content(1024, secrets.randbits(60)))
        if file and (url := self.link(file, expires_in=1)):
            gevent.sleep(2.1)  # until the link has expired
            self.fetch("GET", url, "GET /d expired", (410,))

    @task(1)
    def signed_out(self) -> None:
        """The edge refuses a revoked token within SLUICE_REVOCATION_LAG."""
        old = self.token
        self.ask("DELETE", "/sessions/current", "DELETE /sessions/current", expected=(200, 204))
        gevent.sleep(2.5)  # longer than SLUICE_REVOCATION_LAG
        self.ask("GET", "/files", "GET /files signed out", expected=(401,), token=old)
        self.sign_in()

    @task(1)
    def somebody_elses(self) -> None:
        self.ask("GET", f"/files/{secrets.token_hex(16)}", "GET /files/… unknown", expected=(404,))


class Abuser(Account):
    """Exceeds every limit."""

    guesses: ClassVar[int] = 0

    @task(3)
    def hammer(self) -> None:
        """Calls without a pause; if its tier has a rate, it gets 429."""
        for _ in range(50):
            self.ask("GET", "/users/me", "GET /users/me hammered", expected=(200, 429))

    @task(1)
    def too_many_uploads(self) -> None:
        """Opens one upload more than a user may have open."""
        made = []
        for _ in range(101):
            upload = self.ask("POST", "/uploads", "POST /uploads too many", _upload(PART_SIZE), (201, 429))
            if "id" not in upload:
                break
            made.append(upload["id"])
        for upload_id in made:
            self.ask("DELETE", f"/uploads/{upload_id}", "DELETE /uploads/…", expected=(200, 429))

    @task(1)
    def wrong_length(self) -> None:
        """Sends more bytes than the URL was signed for."""
        content = Content(1000, secrets.randbits(60))
        upload = self.create(content)
        if not upload:
            return
        path = f"/uploads/{upload['id']}"
        answer = self.ask("POST", f"{path}/parts", "POST /uploads/… parts", {"parts": content.hashes()})
        if answer:
            part = answer["parts"]["1"]
            name = f"PUT part too long [{upload['storage']}]"
            self.fetch("PUT", part["url"], name, (400, 403), data=bytes(2000), headers=part["headers"])
        self.ask("DELETE", path, "DELETE /uploads/…", expected=(200, 429))

    @task(1)
    def too_large(self) -> None:
        body = {"name": "x" * 3_000_000, "size": 1}
        self.ask("POST", "/uploads", "POST /uploads too large", body, expected=(413,))

    @task(1)
    def guess(self) -> None:
        """Sends wrong passwords for its account, until the account is locked."""
        if Abuser.guesses >= _GUESSES:
            return
        Abuser.guesses += 1
        body = {"username": self.username, "password": "wrong password"}
        self.ask("POST", "/sessions", "POST /sessions guessed", body, expected=(401, 429))


def _upload(size: int) -> dict[str, object]:
    return {"name": f"{secrets.token_hex(8)}.bin", "size": size}


def _bent(token: str) -> str:
    """The token with one character of its signature changed."""
    at = len(token) - 10
    return token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
