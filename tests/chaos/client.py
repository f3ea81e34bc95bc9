"""One client of the population. The seed decides its next action; the ledger records the results."""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final

from tests.chaos import content
from tests.chaos.caller import Abandoned, Answer, Caller, Json, patience
from tests.chaos.content import Content
from tests.chaos.ledger import Account, File, Ledger, Link, Session
from tests.chaos.uploading import Bell, Uploading

_LOST: Final = ("FILE_NOT_FOUND", "FILE_CORRUPT", "NOT_FOUND", "LINK_REVOKED", "LINK_INVALID", "LINK_EXPIRED")
_PAUSES: Final = (0.02, 0.3)  # seconds between two actions on an idle machine


class Client(threading.Thread):
    """Simulates one client, see the module's docstring.

    Args:
        number: identifies the client in its run.
        known: contents that some client has uploaded, for instant uploads; shared by all clients.
        over: is set when the run is over.
    """

    def __init__(
        self,
        address: str,
        ledger: Ledger,
        bell: Bell,
        seed: int,
        number: int,
        known: list[Content],
        over: threading.Event,
    ) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self._ledger = ledger
        self._over = over
        self._known = known
        self._noise = random.Random(f"{seed} client {number}")
        self._seed = f"{seed}-{number}"
        self._names = 0
        self._caller = Caller(address, ledger, over)
        self._account: Account | None = None
        self._session: Session | None = None
        self._uploading = Uploading(self._call, self._caller, ledger, bell, over)
        self._actions: dict[Callable[[Account], None], int] = {
            self._upload_small: 5,
            self._upload_medium: 8,
            self._upload_multipart: 4,
            self._upload_again: 3,
            self._upload_batch: 3,
            self._abort: 2,
            self._resume: 2,
            self._download: 7,
            self._download_range: 3,
            self._trash: 2,
            self._restore: 1,
            self._end_links: 1,
            self._sign_out: 1,
        }

    def run(self) -> None:
        while not self._over.is_set():
            try:
                (action,) = self._noise.choices(list(self._actions), list(self._actions.values()))
                action(self._signed_in())
            except Abandoned:
                pass
            except Exception:
                self._ledger.find("unexpected", f"{self.name}: {traceback.format_exc(limit=-3)}")
            self._over.wait(patience(self._noise.uniform(*_PAUSES)))
        self._caller.close()

    # -- accounts

    def _signed_in(self) -> Account:
        account = self._account
        if account is None:
            username = f"chaos-{self._seed}"
            account = self._account = self._ledger.add_account(Account(username, f"pw-{username}"))
        who = {"username": account.username, "password": account.password}
        if not account.acknowledged:
            answer = self._caller.call("POST", "/users", who, refusals=("USERNAME_TAKEN",))
            if answer.code and not answer.repeated:
                self._ledger.find("unexpected", f"{account.username} is taken")
            account.acknowledged = True
        if self._session is None:
            made = self._caller.call("POST", "/sessions", who).body
            self._session = Session(made["access_token"], made["refresh_token"])
            account.sessions.append(self._session)
        return account

    def _call(self, method: str, path: str, body: Json | None = None, refusals: tuple[str, ...] = ()) -> Answer:
        assert self._session is not None
        return self._caller.call(method, path, body, token=self._session.access, refusals=refusals)

    def _sign_out(self, account: Account) -> None:
        session, self._session = self._session, None
        assert session is not None
        session.state = "doubt"
        answer = self._caller.call("DELETE", "/sessions/current", token=session.access, refusals=("TOKEN_REVOKED",))
        if answer.code and not answer.repeated:
            self._ledger.find("unexpected", f"a session of {account.username} had ended before")
        session.state = "ended"

    # -- uploads

    def _new_name(self, account: Account, what: Content, kind: str) -> str:
        self._names += 1
        name = f"{kind} {self._names}"
        account.created[name] = what
        return name

    def _upload(self, account: Account, what: Content, kind: str) -> None:
        if self._uploading.whole(account, what, self._new_name(account, what, kind)):
            self._known.append(what)

    def _next_seed(self) -> str:
        return f"{self._seed}-{self._names}"

    def _upload_small(self, account: Account) -> None:
        self._upload(account, content.small(self._noise, self._next_seed()), "small")

    def _upload_medium(self, account: Account) -> None:
        self._upload(account, content.medium(self._noise, self._next_seed()), "medium")

    def _upload_multipart(self, account: Account) -> None:
        self._upload(account, content.multipart(self._noise, self._next_seed()), "multipart")

    def _upload_again(self, account: Account) -> None:
        """Uploads content that a client has uploaded before: by proof, or done immediately."""
        if self._known:
            self._upload(account, self._noise.choice(self._known), "again")

    def _upload_batch(self, account: Account) -> None:
        made = [content.small(self._noise, f"{self._next_seed()}-{n}") for n in range(self._noise.randrange(2, 8))]
        self._uploading.batch(account, {self._new_name(account, what, "batch"): what for what in made})

    def _abort(self, account: Account) -> None:
        what = content.multipart(self._noise, self._next_seed())
        self._uploading.abort(account, what, self._new_name(account, what, "abort"), self._noise.randrange(2))

    def _resume(self, account: Account) -> None:
        what = content.multipart(self._noise, self._next_seed())
        name = self._new_name(account, what, "resume")
        if (begun := self._uploading.create(account, what, name))["state"] != "done":
            self._uploading.send(begun, what, only=1)
        self._uploading.whole(account, what, name, resumes=begun["id"])

    # -- files

    def _file(self, account: Account, standing: str = "live") -> File:
        """One of the account's files in this state. Raises Abandoned if there is none."""
        if not (files := [file for file in account.files.values() if file.standing == standing]):
            raise Abandoned
        return self._noise.choice(files)

    def _lost(self, account: Account, file: File, answer: Answer) -> bool:
        if answer.code:
            self._ledger.find("lost", f"{file.name!r} of {account.username}, acknowledged at {file.at}: {answer.code}")
        return bool(answer.code)

    def _download(self, account: Account) -> None:
        file = self._file(account)
        link = self._link(account, file)
        answer = self._caller.fetch(link.url, refusals=_LOST)
        if not self._lost(account, file, answer) and answer.content != file.content.read():
            self._ledger.find("wrong", f"{file.name!r} of {account.username}: {len(answer.content)} other bytes")

    def _download_range(self, account: Account) -> None:
        file = self._file(account)
        if not file.content.size:
            return
        link = self._noise.choice(file.links) if file.links else self._link(account, file)
        if link.state != "live":
            return
        first = self._noise.randrange(file.content.size)
        last = min(first + self._noise.randrange(256 * content.KIB), file.content.size - 1)
        answer = self._caller.fetch(link.url, refusals=_LOST, Range=f"bytes={first}-{last}")
        if self._lost(account, file, answer):
            return
        if (answer.status, answer.content) != (206, file.content.read()[first : last + 1]):
            self._ledger.find(
                "wrong", f"bytes {first} to {last} of {file.name!r} of {account.username}: {answer.status}"
            )

    def _link(self, account: Account, file: File) -> Link:
        answer = self._call("POST", f"/files/{file.id}/links", {"expires_in": 86_400}, _LOST)
        if self._lost(account, file, answer):
            raise Abandoned
        file.links.append(Link(answer.body["url"]))
        return file.links[-1]

    def _trash(self, account: Account) -> None:
        file = self._file(account)
        file.standing = "doubt"
        links = self._doubted(file)
        answer = self._call("DELETE", f"/files/{file.id}", refusals=_LOST)
        if not self._lost(account, file, answer):
            file.standing = "trashed"
            self._ended(links)

    def _restore(self, account: Account) -> None:
        file = self._file(account, "trashed")
        file.standing = "doubt"
        answer = self._call("POST", f"/files/{file.id}/restore", refusals=_LOST)
        if not self._lost(account, file, answer):
            file.standing = "live"

    def _end_links(self, account: Account) -> None:
        file = self._file(account)
        links = self._doubted(file)
        if not self._lost(account, file, self._call("DELETE", f"/files/{file.id}/links", refusals=_LOST)):
            self._ended(links)

    @staticmethod
    def _doubted(file: File) -> list[Link]:
        links = [link for link in file.links if link.state != "ended"]
        for link in links:
            link.state = "doubt"
        return links

    @staticmethod
    def _ended(links: list[Link]) -> None:
        for link in links:
            link.state = "ended"


def await_end(clients: list[Client], seconds: float) -> list[Client]:
    """Waits for the clients to end. Reports those that do not."""
    deadline = time.monotonic() + patience(seconds)
    for client in clients:
        client.join(max(0.0, deadline - time.monotonic()))
    return [client for client in clients if client.is_alive()]
