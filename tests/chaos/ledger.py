"""All data that the gateway has acknowledged, that is in doubt because a response was lost, or that is wrong.

An entry is in doubt before its request is sent, and acknowledged after the response has arrived. So the ledger is
correct even if the population is cut off at any moment.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from tests.chaos.content import Content

Standing = Literal["doubt", "live", "trashed", "purged"]
FINDINGS: Final = ("lost", "wrong", "undocumented", "unexpected", "slow", "stuck", "orphan")
"""Kinds of findings. lost: acknowledged data is gone. wrong: other bytes, or something that should have ended. The
others: a response that docs/api.md does not name, or not for this call; more than a minute; something that does not
end; storage and rows that differ."""


@dataclass
class Link:
    """A download link; `doubt` after a request that ends it was sent, `ended` after that was acknowledged."""

    url: str
    state: Literal["live", "doubt", "ended"] = "live"


@dataclass
class File:
    """An acknowledged file.

    Attributes:
        at: seconds of the run when it was acknowledged.
    """

    id: str
    name: str
    content: Content
    at: float
    standing: Standing = "live"
    links: list[Link] = field(default_factory=list)


@dataclass
class Upload:
    """An upload that a client began.

    Attributes:
        state: the last acknowledged state; `doubt` while a request that ends it has no response.
    """

    id: str
    name: str
    content: Content
    state: Literal["open", "doubt", "done", "aborted", "failed"] = "open"


@dataclass
class Session:
    """A session; `doubt` after a sign-out was sent, `ended` after it was acknowledged."""

    access: str
    refresh: str
    state: Literal["live", "doubt", "ended"] = "live"


@dataclass
class Account:
    """One user, used by one client only.

    Attributes:
        created: all requested files, by name: a file may exist even if its creation was not acknowledged.
    """

    username: str
    password: str
    acknowledged: bool = False
    sessions: list[Session] = field(default_factory=list)
    files: dict[str, File] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    created: dict[str, Content] = field(default_factory=dict)


class Ledger:
    """The accounts of a run, its counts and its findings; used by every thread."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        self.accounts: list[Account] = []
        self.counts: Counter[str] = Counter()
        self.findings: list[tuple[str, str]] = []

    def now(self) -> float:
        """Seconds of the run."""
        return round(time.monotonic() - self._begun, 3)

    def add_account(self, account: Account) -> Account:
        with self._lock:
            self.accounts.append(account)
        return account

    def acknowledge(self, account: Account, file_id: str, name: str, content: Content) -> File:
        """A file was reported as existing; repeats change nothing."""
        if file_id not in account.files:
            account.files[file_id] = File(file_id, name, content, self.now())
            self.count("acknowledged")
        return account.files[file_id]

    def count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def find(self, kind: str, text: str) -> None:
        """Records a finding, and prints it immediately."""
        assert kind in FINDINGS
        with self._lock:
            self.findings.append((kind, text))
        self._say(f"{self.now():7.1f} s  *** {kind}: {text}")

    def found(self, kind: str) -> int:
        return sum(1 for one, _ in self.findings if one == kind)
