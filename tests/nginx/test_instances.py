"""The API by TCP, with several instances behind one name: found by DNS, skipped if they cannot be reached."""

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.nginx.edge import Edge
from tests.nginx.stub_api import StubAPI, wait_for
from tests.nginx.stub_dns import StubDNS

FIRST, SECOND, THIRD = "127.0.0.2", "127.0.0.3", "127.0.0.4"
REQUESTS = 20


class Instances:
    """Instances of the API on addresses of this machine, all on one port, and the next port for internal calls."""

    def __init__(self) -> None:
        self.port = _two_free_ports()
        self.by_address: dict[str, StubAPI] = {}

    def start(self, address: str) -> StubAPI:
        self.by_address[address] = StubAPI(Path("/nowhere"), (address, self.port))
        return self.by_address[address]

    def seen(self, method: str = "GET") -> dict[str, int]:
        """Number of clients' requests that each instance got."""
        return {
            address: sum(request.method == method and request.path.startswith("/api/") for request in api.seen)
            for address, api in self.by_address.items()
        }

    def forget(self) -> None:
        for api in self.by_address.values():
            api.seen.clear()


def _two_free_ports() -> int:
    """The first of two, one after the other."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind((FIRST, 0))
            port: int = first.getsockname()[1]
            with suppress(OSError):
                second.bind((FIRST, port + 1))
                return port


@pytest.fixture
def instances() -> Iterator[Instances]:
    made = Instances()
    yield made
    for api in made.by_address.values():
        api.stop()


@pytest.fixture
def edge(make_edge: Callable[..., Edge], dns: StubDNS, instances: Instances) -> Edge:
    """An edge with two instances."""
    instances.start(FIRST)
    instances.start(SECOND)
    dns.names["api.test"] = [FIRST, SECOND]
    return make_edge(SLUICE_API_SOCKET="", SLUICE_API_ADDRESS=f"api.test:{instances.port}", SLUICE_RESOLVER=dns.address)


def ask(edge: Edge, method: str = "GET") -> list[int]:
    """The statuses of some requests to the API."""
    headers = edge.bearer()
    return [edge.ask(method, "/api/v1/files", headers=headers).status for _ in range(REQUESTS)]


def test_requests_go_to_each_in_turn(edge: Edge, instances: Instances) -> None:
    assert set(ask(edge)) == {200}
    assert min(instances.seen().values()) >= REQUESTS // 4


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
def test_one_that_refuses_is_passed_over_whatever_the_method(edge: Edge, instances: Instances, method: str) -> None:
    instances.by_address[SECOND].stop()
    assert set(ask(edge, method)) == {200}
    assert instances.seen(method)[FIRST] == REQUESTS


def test_one_that_is_about_to_stop_gets_nothing_more(edge: Edge, instances: Instances) -> None:
    stopping = instances.by_address[FIRST]
    stopping.stopping = True

    def leaves_it_out() -> bool:
        instances.forget()
        ask(edge)
        return not stopping.seen

    wait_for(leaves_it_out, "requests to the other one alone")
    stopping.stopping = False
    wait_for(lambda: not leaves_it_out(), "requests to both")


def test_when_all_are_about_to_stop_they_are_still_asked(edge: Edge, instances: Instances) -> None:
    for api in instances.by_address.values():
        api.stopping = True
    polls = len(instances.by_address[FIRST].feed_asked)
    wait_for(lambda: len(instances.by_address[FIRST].feed_asked) > polls + 1, "polls of the feed")
    assert set(ask(edge)) == {200}


def test_one_that_comes_and_one_that_goes_are_found_without_a_restart(
    edge: Edge, instances: Instances, dns: StubDNS
) -> None:
    third = instances.start(THIRD)
    dns.names["api.test"] = [SECOND, THIRD]
    instances.by_address[FIRST].stop()

    def reaches_it() -> bool:
        assert set(ask(edge)) == {200}
        return bool(third.seen)

    wait_for(reaches_it, "requests to the new one")
    instances.by_address[SECOND].stop()
    assert set(ask(edge)) == {200}


def test_dns_that_fails_takes_nothing_away(edge: Edge, instances: Instances, dns: StubDNS) -> None:
    dns.names.clear()
    said = "could not find the API's address: DNS answered with code 3"
    wait_for(lambda: said in edge.error_log.read_text(), "line in the error log")
    assert set(ask(edge)) == {200}


def test_revocations_and_targets_come_from_any_of_them(edge: Edge, instances: Instances) -> None:
    instances.by_address[FIRST].stop()
    instances.by_address[SECOND].revoke("session", "0" * 32)
    assert edge.get("/readyz").status == 200


def test_without_any_the_answer_is_that_the_api_is_away(
    make_edge: Callable[..., Edge], dns: StubDNS, instances: Instances
) -> None:
    settings = {"SLUICE_API_SOCKET": "", "SLUICE_API_ADDRESS": f"api.test:{instances.port}"}
    edge = make_edge(api=False, SLUICE_RESOLVER=dns.address, **settings)
    reply = edge.get("/healthz")
    assert (reply.status, reply.code) == (503, "API_UNAVAILABLE")
    instances.start(FIRST)
    dns.names["api.test"] = [FIRST]
    wait_for(lambda: edge.get("/readyz").status == 200, "the API")
