"""/metrics of a whole gateway: edge, API processes and the worker in one response."""

import re

import httpx

from tests.e2e.client import Client
from tests.e2e.gateway import Gateway
from tests.e2e.sources import Source
from tests.nginx.stub_api import wait_for


def scrape(gateway: Gateway) -> dict[str, float]:
    answer = httpx.get(f"{gateway.address}/metrics")
    assert answer.status_code == 200
    lines = [line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def total(found: dict[str, float], pattern: str) -> float:
    return sum(value for name, value in found.items() if re.fullmatch(pattern, name))


def test_every_process_is_in_one_answer(gateway: Gateway, user: Client, source: Source) -> None:
    before = scrape(gateway)
    user.upload(source)

    def counted() -> bool:
        found = scrape(gateway)

        def more(pattern: str) -> bool:
            return total(found, pattern) > total(before, pattern)

        return (
            more(r'sluice_edge_requests_total\{route="part",.*')
            and more(r'sluice_edge_received_bytes_total\{route="part",storage="local"\}')
            and more(r'sluice_api_calls_total\{.*path="/api/v1/uploads/\{upload_id\}/complete".*')
            and more(r'sluice_storage_seconds_count\{call="complete",storage="local"\}')
            # only the worker makes this call
            and more(r'sluice_storage_seconds_count\{call="drop_dead_bodies",storage="local"\}')
            and more(r'sluice_uploads\{state="done"\}')
        )

    wait_for(counted, "figures of all processes")
    found = scrape(gateway)
    assert found["sluice_database_up"] == found["sluice_edge_api_up"] == 1
    assert found["sluice_database_connections_most"] > 0
