"""Checks, as its user, everything that an account was promised."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from tests.chaos.caller import Abandoned, Answer, Caller, Json, every_code
from tests.chaos.ledger import Account, File, Ledger, Session
from tests.chaos.stand import await_

_DEAD_LINK: Final = ("LINK_REVOKED", "LINK_EXPIRED", "FILE_NOT_FOUND", "NOT_FOUND")
_DEAD_SESSION: Final = ("TOKEN_REVOKED", "TOKEN_EXPIRED")
_TRIES: Final = 5
_ENDED_WITHIN: Final = 10.0  # SLUICE_REVOCATION_LAG is 2


class Auditor:
    """Checks accounts, see the module's docstring."""

    def __init__(self, address: str, ledger: Ledger, account: Account, over: threading.Event) -> None:
        self._address = address
        self._ledger = ledger
        self._account = account
        self._caller = Caller(address, ledger, over)
        who = {"username": account.username, "password": account.password}
        self._token = self._caller.call("POST", "/sessions", who).body["access_token"]

    def close(self) -> None:
        self._caller.close()

    def _call(self, method: str, path: str, body: Json | None = None, refusals: tuple[str, ...] = ()) -> Answer:
        return self._caller.call(method, path, body, token=self._token, refusals=refusals)

    def _find(self, kind: str, what: str, answer: Answer | None = None) -> None:
        came = f": {answer.status} {answer.code}" if answer else ""
        self._ledger.find(kind, f"{what} of {self._account.username}{came}")

    # -- uploads

    def settle_uploads(self) -> None:
        """Uploads whose complete or abort got no response have ended by now, either way; the others still exist."""
        for upload in list(self._account.uploads.values()):
            answer = self._call("GET", f"/uploads/{upload.id}", refusals=("UPLOAD_NOT_FOUND",))
            state = answer.body.get("state", answer.code)
            if upload.state == "doubt":
                self._ledger.count("in doubt")
                if state == "done":
                    self._ledger.acknowledge(self._account, answer.body["file"]["id"], upload.name, upload.content)
            elif upload.state in ("done", "aborted") and state != upload.state:
                self._find("lost", f"upload {upload.id}, {upload.state}, is {state}: {upload.name!r}")

    # -- everything else

    def look(self) -> None:
        """Files, links, sessions, counts. A refusal is a finding; the check continues."""
        for session in self._account.sessions:
            self._try(self._session, session)
        listed = {file["id"]: file for file in self._listed()}
        for file_id, found in listed.items():
            if file_id not in self._account.files:
                self._try(self._not_acknowledged, found)
        for file in list(self._account.files.values()):
            if (file.id in listed) == (file.standing == "purged"):
                self._find("wrong" if file.standing == "purged" else "lost", f"{_described(file)} in the lists")
            elif file.id in listed:
                self._try(self._file, file, listed[file.id]["trashed_at"] is not None)

    @staticmethod
    def _try(look: Callable[..., None], *what: object) -> None:
        with contextlib.suppress(Abandoned):
            look(*what)

    def _not_acknowledged(self, found: Json) -> None:
        """A file whose creation got no response may exist; if so, it must be complete and right."""
        content = self._account.created.get(found["name"])
        if content is None or content.digest != found["digest"]:
            self._find("wrong", f"file {found['id']}, {found['name']!r}, which nobody made,")
            return
        self._ledger.count("in doubt, there")
        self._bytes(File(found["id"], found["name"], content, 0.0))

    def _listed(self) -> Iterator[Json]:
        for query in ("", "&trashed=true"):
            cursor = ""
            while True:
                page = self._call("GET", f"/files?limit=100{query}{cursor}").body
                yield from page["items"]
                if not page["next_cursor"]:
                    break
                cursor = f"&cursor={page['next_cursor']}"

    def _file(self, file: File, trashed: bool) -> None:
        if file.standing != "doubt" and trashed != (file.standing == "trashed"):
            self._find("wrong", f"{_described(file)}, acknowledged as {file.standing}, {trashed=}")
        if trashed:
            refused = self._call("POST", f"/files/{file.id}/links", {}, ("FILE_NOT_FOUND",))
            if not refused.code:
                self._find("wrong", f"a link to the trashed {_described(file)}")
            self._call("POST", f"/files/{file.id}/restore")
        self._bytes(file)
        for link in file.links:
            if link.state == "ended":
                self._refused(link.url, file)
            elif link.state == "live" and not trashed and file.standing == "live":
                answer = self._caller.fetch(link.url, refusals=every_code())
                if answer.code:
                    self._find("lost", f"a link to {_described(file)}", answer)

    def _bytes(self, file: File) -> None:
        """Downloads it completely. If a storage fails, retries several times."""
        for _ in range(_TRIES):
            answer = self._call("POST", f"/files/{file.id}/links", {}, every_code())
            if not answer.code:
                answer = self._caller.fetch(answer.body["url"], refusals=every_code())
            if not answer.code:
                break
            time.sleep(0.5)  # before the next try
        if answer.code:
            self._find("lost", _described(file), answer)
        elif hashlib.sha256(answer.content).hexdigest() != file.content.sha256:
            self._find("wrong", f"{len(answer.content)} bytes of {_described(file)}")
        else:
            self._ledger.count("whole")

    def _refused(self, url: str, file: File) -> None:
        try:
            dead = lambda: self._caller.fetch(url, refusals=_DEAD_LINK, Range="bytes=0-0").code != ""  # noqa: E731
            await_(dead, _ENDED_WITHIN, "the end of a link")
        except TimeoutError:
            self._find("wrong", f"a link that was ended still leads to {_described(file)}")

    def _session(self, session: Session) -> None:
        if session.state == "doubt":
            return
        answer = self._caller.call("GET", "/users/me", token=session.access, refusals=_DEAD_SESSION)
        if (answer.code != "") != (session.state == "ended"):
            self._find("wrong" if session.state == "ended" else "lost", "a session", answer)
        if session.state == "ended":
            body = {"refresh_token": session.refresh}
            answer = self._caller.call("POST", "/sessions/refresh", body, refusals=_DEAD_SESSION)
            if not answer.code:
                self._find("wrong", "a refresh token of a session that was ended", answer)


def _described(file: File) -> str:
    return f"{file.name!r} ({file.content.size} bytes, {file.id}), acknowledged at {file.at} s,"
