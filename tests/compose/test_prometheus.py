"""deploy/prometheus: who can read the gateway's metrics."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.compose.stack import CODE, own_address, running, wait_for
from tests.e2e.client import Client
from tests.e2e.leaks import Secrets
from tests.e2e.sources import Source
from tests.servers import free_port


def test_prometheus_beside_it_gets_the_figures_and_others_do_not(
    tmp_path: Path, secrets: Secrets, source: Source
) -> None:
    port = free_port()
    with running("sluice-prometheus", tmp_path, SLUICE_PROMETHEUS_PORT=str(port)) as stack:
        stack.files.append(CODE / "deploy" / "prometheus" / "docker-compose.yml")
        stack.up("--scale", "api=2")
        stack.wait_until_ready()
        client = Client(stack.address, secrets).sign_up()
        client.upload(source)

        def uploads() -> str:
            query = {"query": 'sum(sluice_api_calls_total{method="POST",path="/api/v1/uploads"})'}
            answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params=query, trust_env=False).json()
            found = answer["data"]["result"]
            return str(found[0]["value"][1]) if found else ""

        wait_for(lambda: uploads() == "1", "figures in Prometheus")
        for address in ("127.0.0.1", own_address()):
            asked = client.fetch(f"http://{address}:{stack.port}/metrics")
            assert asked.status_code == 403, "from outside, by any route"
        client.close()
