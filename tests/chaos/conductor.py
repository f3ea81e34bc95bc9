"""Runs a schedule, and measures how long the system takes to recover after each fault."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Final

import httpx

from tests.chaos.caller import Caller, patience
from tests.chaos.content import Content, part_of
from tests.chaos.ledger import Ledger
from tests.chaos.schedule import Fault
from tests.chaos.stand import Stand
from tests.chaos.uploading import Bell

_COMPLETES: Final = 3  # number in progress when an aimed fault strikes
_GATHER_WITHIN: Final = 3.0  # seconds; then fewer completes are enough
_WELL_WITHIN: Final = 60.0
_ASK_EVERY: Final = 0.05


class Probe:
    """Checks whether the system works: edge, API, database, storage and /readyz are each really used.

    Args:
        stand: a working system, asked to store a small file.
    """

    def __init__(self, stand: Stand, ledger: Ledger) -> None:
        self._address = stand.address
        self._data = Content("probe", 70_000)
        caller = Caller(stand.address, ledger, threading.Event())
        who = {"username": "chaos-probe", "password": "pw-chaos-probe"}
        caller.call("POST", "/users", who)
        self._token = caller.call("POST", "/sessions", who).body["access_token"]
        question = {"name": "probe", "size": self._data.size, "parts": self._data.hashes_of([1])}
        upload = caller.call("POST", "/uploads", question, token=self._token).body
        assert caller.put(upload["parts"]["1"], part_of(self._data.read(), 1))
        done = caller.call("POST", f"/uploads/{upload['id']}/complete", token=self._token).body
        body = {"expires_in": 86_400}
        self._link = caller.call("POST", f"/files/{done['file']['id']}/links", body, token=self._token).body["url"]
        caller.close()

    def is_well(self) -> bool:
        """Whether all components work now."""
        api = {"Authorization": f"Bearer {self._token}"}
        try:
            with httpx.Client(timeout=5, trust_env=False) as http:
                files = http.get(f"{self._address}/api/v1/files?limit=1", headers=api)
                bytes_ = http.get(self._link, headers={"Range": "bytes=100-199"})
                return (
                    files.status_code == 200
                    and (bytes_.status_code, bytes_.content) == (206, self._data.read()[100:200])
                    and http.get(f"{self._address}/readyz").status_code == 200
                )
        except httpx.TransportError:
            return False


class Conductor:
    """Runs a schedule, see the module's docstring.

    Attributes:
        recoveries: seconds from a fault's end to the system's first success, by "kind target".
    """

    def __init__(self, stand: Stand, ledger: Ledger, bell: Bell, say: Callable[[str], None]) -> None:
        self._stand = stand
        self._ledger = ledger
        self._bell = bell
        self._say = say
        self._probe = Probe(stand, ledger)
        self.recoveries: defaultdict[str, list[float]] = defaultdict(list)

    def play(self, schedule: list[Fault], seconds: float) -> int:
        """Runs the schedule. Returns the number of faults there was time for.

        If recovery delays a fault, the later faults are delayed as well, so that no two are closer than was
        drawn.
        """
        begun, late = time.monotonic(), 0.0
        for number, fault in enumerate(schedule):
            due = begun + fault.at + late
            if due > begun + seconds or not self._stand.runs:
                return number
            time.sleep(max(0.0, due - time.monotonic()))  # the schedule says when
            late = time.monotonic() - begun - fault.at
            self._play_one(fault)
        time.sleep(max(0.0, begun + seconds - time.monotonic()))  # the load continues until the run ends
        return len(schedule)

    def _play_one(self, fault: Fault) -> None:
        pids = self._stand.processes(fault.target, fault.pick)
        aimed = ""
        if fault.delay is not None:
            aimed = f" ({self._bell.gather(_COMPLETES, _GATHER_WITHIN)} of them)"
            time.sleep(fault.delay)  # drawn: a moment within the requests
        try:
            self._stand.begin(fault, pids)
            self._say(f"{self._ledger.now():7.1f} s  {fault}{aimed}")
            time.sleep(fault.seconds)  # drawn: how long the fault lasts
        finally:
            self._stand.let_go(pids)
        since, wall = time.monotonic(), time.time()
        while not (self._stand.is_back(fault, pids, wall) and self._probe.is_well()):
            if time.monotonic() - since > patience(_WELL_WITHIN) or not self._stand.runs:
                self._ledger.find("stuck", f"after {fault}: not well for {time.monotonic() - since:.0f} s")
                return
            time.sleep(_ASK_EVERY)  # a poll: a recovery sends no event
        self.recoveries[f"{fault.kind} {fault.target}"].append(time.monotonic() - since)
