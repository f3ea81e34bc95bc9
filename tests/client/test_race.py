"""Hashing and sending at the same time, which stops when the server knows the content."""

from __future__ import annotations

import random
import threading

import pytest
from sluice import APIError, Client, FileChanged, NetworkError, Progress, pipeline, uploader
from sluice.calls import Calls
from sluice.models import Upload
from sluice.race import Pace, shares_its_cores

from tests.client.conftest import Account, sign_up
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART, Sources

COUNT = 9
"""More parts than are hashed ahead, if nothing is sent, of an upload that does not race."""


@pytest.fixture(autouse=True)
def _small_files_race(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploader, "SMALL", PART)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is sent from the first moment on, as on a slow network."""
    monkeypatch.setattr(Pace, "hashed", lambda self, count: setattr(self, "senders", self._most))


def unfinished(client: Client) -> list[Upload]:
    return [each for each in client.uploads() if each.state in ("proving", "uploading", "finalizing")]


@pytest.mark.usefixtures("eager")
def test_sending_stops_when_the_server_knows_the_content(account: Account, gateway: Gateway, sources: Sources) -> None:
    source = sources.make(COUNT * PART + 5, "race known")
    with account.client() as first, sign_up(gateway.address).client(limit_rate=30e6) as second:
        first.upload(source.path)
        told: list[Progress] = []
        result = second.upload(source.path, on_progress=told.append)
        assert result.instant
        assert result.file.digest == source.digest
        assert result.sent < source.size / 2, "at 30 MB/s all of it would take 2 s, and hashing takes a moment"
        assert (told[-1].stage, told[-1].instant) == ("done", True)
        assert unfinished(second) == []
        assert len(list(second.files())) == 1


@pytest.mark.parametrize("share", ["eager", None])
def test_what_the_server_does_not_know_is_sent(
    client: Client, sources: Sources, request: pytest.FixtureRequest, share: str | None
) -> None:
    if share:
        request.getfixturevalue(share)
    source = sources.make(COUNT * PART + 7, f"race unknown {share}")
    result = client.upload(source.path)
    assert (result.instant, result.sent, result.file.digest) == (False, source.size, source.digest)
    assert unfinished(client) == []
    assert len(list(client.files())) == 1


def test_more_parts_than_are_hashed_ahead_otherwise(
    client: Client, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one sender, until all of it is hashed."""
    monkeypatch.setattr(pipeline, "_AHEAD_BYTES", 2 * PART)
    monkeypatch.setattr(Pace, "hashed", lambda self, count: None)
    source = sources.make(COUNT * PART, "race far ahead")
    assert 2 * client.settings.parallel < COUNT
    assert client.upload(source.path).file.digest == source.digest


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_few_parts_which_are_hashed_before_the_upload_begins(client: Client, sources: Sources, count: int) -> None:
    source = sources.make(count * PART, f"race {count}")
    assert client.upload(source.path, "one").file.digest == source.digest
    assert client.upload(source.path, "two").instant


def test_ones_own_content_is_not_sent_again(client: Client, sources: Sources) -> None:
    source = sources.make(COUNT * PART, "race own")
    client.upload(source.path, "one")
    result = client.upload(source.path, "two")
    assert (result.instant, result.file.name) == (True, "two")
    assert unfinished(client) == []


@pytest.mark.parametrize("error", [APIError(429, "UPLOADS_LIMITED", "no"), NetworkError("cut")])
def test_a_question_that_fails_stops_nothing(
    account: Account, gateway: Gateway, sources: Sources, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    source = sources.make(3 * PART, f"race asked {error}")
    with sign_up(gateway.address).client() as other:
        other.upload(source.path)
    create = Calls.create

    def refusing(self: Calls, name: str, size: int, digest: str | None = None, *more: object) -> Upload:
        if digest is not None:
            raise error
        return create(self, name, size, digest, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Calls, "create", refusing)
    with account.client() as client:
        result = client.upload(source.path)
    assert (result.instant, result.sent) == (False, source.size)


def test_an_earlier_runs_question_is_asked_again(account: Account, gateway: Gateway, sources: Sources) -> None:
    """A run that was killed when it had asked: its upload has no challenge any more."""
    source = sources.make(3 * PART, "race left")
    with sign_up(gateway.address).client() as other:
        other.upload(source.path)
    with account.client() as client:
        left = client._calls.create("f", source.size, source.digest)
        assert left.state == "proving"
        client._calls.prove(left, "0" * 64, ["0" * 64] * 3)
        assert [each.state for each in unfinished(client)] == ["uploading"]
        assert client.upload(source.path, "f").instant
        assert unfinished(client) == []


@pytest.mark.usefixtures("eager")
def test_a_file_that_changes_in_the_race_is_not_stored(account: Account, gateway: Gateway, sources: Sources) -> None:
    source = sources.make(COUNT * PART, "race changed")
    with sign_up(gateway.address).client() as other:
        other.upload(source.path)
    changed = threading.Event()

    def change(progress: Progress) -> None:
        if progress.hashed >= (COUNT - 1) * PART and not changed.is_set():
            changed.set()
            with source.path.open("r+b") as file:
                file.write(b"changed")

    with account.client(limit_rate=30e6) as client:
        with pytest.raises(FileChanged):
            client.upload(source.path, on_progress=change)
        assert unfinished(client) == []
        assert list(client.files()) == []


@pytest.mark.usefixtures("eager")
def test_an_interrupted_race_goes_on_and_asks(account: Account, gateway: Gateway, sources: Sources) -> None:
    source = sources.make(COUNT * PART, "race resumed")

    class Stop(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.moved > 3 * PART:
            raise Stop

    with account.client(parallel=2, hashers=1) as client, pytest.raises(Stop):
        client.upload(source.path, on_progress=stop)
    with account.client() as client:
        assert len(unfinished(client)) == 1
        result = client.upload(source.path)
        assert (result.file.digest, result.sent + result.kept) == (source.digest, source.size)
        assert result.kept > 0
        assert unfinished(client) == []


# -- the pace


class Machine:
    """Hashes at a speed that sending may share the cores with.

    Args:
        cost: of a second's hashing that a second of one sender takes.
        network: bytes per second, of all senders.
        noise: share of the speed that other programs take, at most.
    """

    def __init__(self, cost: float, network: float, noise: float = 0.0) -> None:
        self.cost, self.network, self.now = cost, network, 0.0
        self._noise, self._random = noise, random.Random(5)

    def hash_all(self, size: float, shares: bool) -> tuple[float, float]:
        """Seconds until all is hashed, and bytes that were sent by then."""
        pace, sent = Pace(4, shares, lambda: self.now), 0.0
        for _ in range(round(size / 8)):
            speed = 1000 * max(0.1, 1 - self.cost * pace.senders) * (1 - self._noise * self._random.random())
            seconds = 8 / speed
            self.now += seconds
            sent += seconds * self.network * min(1, pace.senders)
            pace.hashed(8)
        return self.now, sent


@pytest.mark.parametrize(
    ("cost", "shares"), [(0.0, True), (0.02, True), (0.25, True), (0.5, True), (0.9, True), (0.02, False), (0.2, False)]
)
def test_hashing_keeps_its_speed(cost: float, shares: bool) -> None:
    """At 1,000 MB/s alone."""
    for size in (1024, 10240):
        seconds, _ = Machine(cost, 100.0).hash_all(size, shares)
        assert seconds <= 1.2 * size / 1000


@pytest.mark.parametrize("shares", [True, False])
def test_a_slow_network_is_used_from_the_beginning(shares: bool) -> None:
    seconds, sent = Machine(0.01, 100.0).hash_all(4096, shares)
    assert sent > (0.9 if shares else 0.97) * seconds * 100.0


def test_a_busy_machine_does_not_pass_for_a_slowdown() -> None:
    seconds, sent = Machine(0.01, 100.0, noise=0.7).hash_all(4096, True)
    assert sent > 0.8 * seconds * 100.0


@pytest.mark.parametrize(
    ("url", "shares"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://localhost", True),
        ("http://[::1]:1", True),
        ("http://10.0.0.1", False),
        ("https://files.example", False),
    ],
)
def test_who_shares_its_cores(url: str, shares: bool) -> None:
    assert shares_its_cores(url) is shares
