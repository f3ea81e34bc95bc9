"""Users with files: those who mostly read, and those who mostly upload."""

from __future__ import annotations

import hashlib
import random
from collections import deque
from typing import ClassVar

from locust import task

from loadtest.benchmarks.content import PART_SIZE, Content
from loadtest.locust_users.session import JSON, Account

_KEPT = 20


class Reader(Account):
    """Lists its files, makes links, and downloads files, whole and in ranges."""

    def on_start(self) -> None:
        super().on_start()
        self.files: list[tuple[JSON, Content]] = []
        for _ in range(3):
            content = self.new_content()
            if file := self.upload(content):
                self.files.append((file, content))

    @task(6)
    def list_files(self) -> None:
        self.ask("GET", "/files?limit=50", "GET /files")

    @task(2)
    def look_up(self) -> None:
        if self.files:
            self.ask("GET", f"/files/{random.choice(self.files)[0]['id']}", "GET /files/…")

    @task(1)
    def who_am_i(self) -> None:
        self.ask("GET", "/users/me", "GET /users/me")

    @task(5)
    def download_ranges(self) -> None:
        """Reads a few ranges of one link, like a player or a resuming client."""
        if not self.files:
            return
        file, content = random.choice(self.files)
        if not (url := self.link(file)):
            return
        for _ in range(4):
            first = random.randrange(content.size)
            last = min(content.size, first + 256 * 1024) - 1
            headers = {"Range": f"bytes={first}-{last}"}
            body = self.fetch("GET", url, f"GET /d range [{self.storages[file['id']]}]", (206,), headers=headers)
            self.compare(body, content.read(first, last - first + 1))

    @task(2)
    def download(self) -> None:
        """Downloads a whole file, and compares it with the upload."""
        if not self.files:
            return
        file, content = random.choice(self.files)
        if url := self.link(file):
            body = self.fetch("GET", url, f"GET /d [{self.storages[file['id']]}]", (200,))
            self.compare(body, content.read(0, content.size))

    def compare(self, body: bytes | None, wanted: bytes) -> None:
        """Reports bytes that differ from the upload: the most serious failure."""
        if body is not None and body != wanted:
            self.environment.events.request.fire(
                request_type="",
                name="bytes compared",
                response_time=0,
                response_length=len(body),
                exception=ValueError("not the bytes that were uploaded"),
                context={},
            )


class Uploader(Account):
    """Uploads: in one go, in two goes, and content that is already stored."""

    known: ClassVar[deque[Content]] = deque(maxlen=_KEPT)
    """Stored content of more than one part; a user who has all of it can prove so."""

    @task(6)
    def send_new(self) -> None:
        content = self.new_content()
        if file := self.upload(content):
            if content.part_count > 1:
                self.known.append(content)
            self.drop_some(file)

    def drop_some(self, file: JSON) -> None:
        """Most files go to the trash: a load test should not fill a disk."""
        if random.random() < 0.8:
            self.ask("DELETE", f"/files/{file['id']}", "DELETE /files/…", expected=(200, 204))

    @task(2)
    def resume(self) -> None:
        """Sends the first part; then a new client finds the upload and sends the missing parts."""
        content = self.new_content(least=2 * PART_SIZE)
        key = content.digest()
        upload = self.create(content, resume_key=key)
        hashes = content.hashes()
        if not upload or upload["state"] != "uploading":
            return
        path = f"/uploads/{upload['id']}"
        first = self.ask("POST", f"{path}/parts", "POST /uploads/… parts", {"parts": {"1": hashes["1"]}})
        if not first or not self.send(content, upload, first["parts"]):
            return
        found = self.ask("GET", path, "GET /uploads/…")
        missing = [str(n) for low, high in found.get("missing", ()) for n in range(low, high + 1)]
        if not missing:
            return
        wanted = {number: hashes[number] for number in missing}
        rest = self.ask("POST", f"{path}/parts", "POST /uploads/… parts", {"parts": wanted})
        if rest and self.send(content, upload, rest["parts"]) and (file := self.complete(upload)):
            self.drop_some(file)

    @task(2)
    def send_known(self) -> None:
        """Instant upload: sends the proof for the challenge, and no content."""
        if not self.known:
            return
        content = random.choice(self.known)
        upload = self.create(content, digest=content.digest())
        if upload.get("state") != "proving":
            return  # it is already this user's
        challenge = upload["challenge"]
        read = b"".join(content.read(offset, length) for offset, length in challenge["ranges"])
        proof = hashlib.sha256(bytes.fromhex(challenge["nonce"]) + read).hexdigest()
        body = {"proof": proof, "parts": list(content.hashes().values())}
        answer = self.ask("POST", f"/uploads/{upload['id']}/proof", "POST /uploads/… proof", body)
        if answer.get("state") == "uploading":  # the content is gone, or the readers were busy
            self.ask("DELETE", f"/uploads/{upload['id']}", "DELETE /uploads/…")
