"""One client's requests: repeated on no response and on retryable errors; responses are compared with docs/api.md."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import httpx

from tests.chaos.ledger import Ledger
from tests.e2e.client import check

Json = dict[str, Any]
DOCS: Final = Path(__file__).parents[2] / "docs" / "api.md"
SLOWEST: Final = 60.0
_REPEATABLE: Final = (429, 503, 504)
_PATIENCE: Final = 90.0


class Abandoned(Exception):
    """The run is over, or the call gets no response: its effect stays in doubt."""


@dataclass(frozen=True)
class Answer:
    """The result of a call.

    Attributes:
        code: the error's; empty for a success.
        repeated: whether an earlier try may have been carried out, too.
    """

    status: int
    code: str
    body: Json
    content: bytes = b""
    repeated: bool = False


@cache
def documented() -> frozenset[tuple[int, str]]:
    """(status, code) of every error in docs/api.md, except for the one that is always a defect."""
    rows = re.findall(r"^\| (\d{3}) \| `([A-Z_]+)` \|", DOCS.read_text(), re.M)
    assert len(rows) > 50
    return frozenset((int(status), code) for status, code in rows if code != "INTERNAL_ERROR")


@cache
def every_code() -> tuple[str, ...]:
    """The code of every documented error."""
    return tuple({code for _, code in documented()})


def patience(seconds: float) -> float:
    """A time limit that grows with the machine's load, up to four times."""
    return seconds * min(4.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


class Caller:
    """Sends requests, see the module's docstring.

    Args:
        address: the gateway's address.
        over: is set when the run is over; then nothing is repeated.
    """

    def __init__(self, address: str, ledger: Ledger, over: threading.Event) -> None:
        self._address = f"{address}/"
        self._api = f"{address}/api/v1"
        self._ledger = ledger
        self._over = over
        self._http = httpx.Client(timeout=httpx.Timeout(SLOWEST + 5), trust_env=False)

    def close(self) -> None:
        self._http.close()

    def call(
        self, method: str, path: str, body: Json | None = None, *, token: str = "", refusals: tuple[str, ...] = ()
    ) -> Answer:
        """A call of the API, repeated until it succeeds or is refused.

        Args:
            refusals: codes that the caller handles; any other refusal is a finding.

        Raises:
            Abandoned: it got no result.
        """
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self._ask(method, self._api + path, refusals, headers=headers, json=body)

    def fetch(self, url: str, *, refusals: tuple[str, ...] = (), **headers: str) -> Answer:
        """A download, repeated until it is complete. Raises Abandoned."""
        return self._ask("GET", url, refusals, headers=headers)

    def put(self, part: Json, data: bytes) -> bool:
        """PUTs a part's bytes, to the edge or to the storage itself. Returns whether they were accepted.

        For a refusal only the status matters: the caller requests new URLs then. Raises Abandoned.
        """
        what = f"PUT {_plain(part['url'])}"
        for _ in self._tries(what):
            response = self._send("PUT", part["url"], headers=part["headers"], content=data)
            if response is None:
                continue
            status = response.status_code
            if part["url"].startswith(self._address):
                status = self._judged(what, response, False).status
            if status < 500 and status != 429:
                return status < 300
        raise AssertionError

    def _ask(self, method: str, url: str, refusals: tuple[str, ...], **more: Any) -> Answer:
        what, repeated = f"{method} {_plain(url)}", False
        for _ in self._tries(what):
            response = self._send(method, url, **more)
            answer = None if response is None else self._judged(what, response, repeated)
            if answer is not None and (answer.status < 400 or answer.code in refusals):
                return answer
            if answer is not None and answer.status not in _REPEATABLE:
                self._ledger.find("unexpected", f"{what}: {answer.status} {answer.code}")
                raise Abandoned
            repeated = True
        raise AssertionError

    def _tries(self, what: str) -> Any:
        """Repeats, with pauses. Raises Abandoned at the end."""
        begun, pause = time.monotonic(), 0.05
        while True:
            if self._over.is_set():
                raise Abandoned
            yield
            if time.monotonic() - begun > patience(_PATIENCE):
                self._ledger.find("stuck", f"{what}: no answer of use for {time.monotonic() - begun:.0f} s")
                raise Abandoned
            self._ledger.count("repeats")
            self._over.wait(pause * random.uniform(0.5, 1.5))
            pause = min(1.0, pause * 2)

    def _send(self, method: str, url: str, **more: Any) -> httpx.Response | None:
        """One request. Returns None if the connection gave no complete response."""
        begun = time.monotonic()
        try:
            response: httpx.Response | None = self._http.request(method, url, **more)
        except httpx.TransportError:
            response = None
            self._ledger.count("no answer")
        self._ledger.count("requests")
        if (seconds := time.monotonic() - begun) > SLOWEST:
            self._ledger.find("slow", f"{method} {_plain(url)}: {seconds:.1f} s")
        return response

    def _judged(self, what: str, response: httpx.Response, repeated: bool) -> Answer:
        status = response.status_code
        try:
            check(response)
            body = response.json() if _is_json(response) else {}
            code = body["error"]["code"] if status >= 400 else ""
        except (AssertionError, KeyError, ValueError) as ex:
            self._ledger.find("undocumented", f"{what}: {status} {ex!r:.300}")
            return Answer(503, "", {}, repeated=repeated)
        if status >= 400 and (status, code) not in documented():
            self._ledger.find("undocumented", f"{what}: {status} {code} {response.headers.get('X-Request-Id')}")
            return Answer(503, "", {}, repeated=repeated)
        self._ledger.count(f"{status} {code}" if code else f"{status}")
        return Answer(status, code, body, response.content, repeated)


def _is_json(response: httpx.Response) -> bool:
    return bool(response.content) and response.headers.get("Content-Type", "").startswith("application/json")


def _plain(url: str) -> str:
    """A URL without its signature; ids stay, to be found in the logs."""
    return re.sub(r"/(p|d)/[^/?]+", r"/\1/…", url.partition("?")[0])
