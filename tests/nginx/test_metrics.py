"""/metrics: access, content, and that the dashboard uses no other metrics."""

import re
import subprocess
import sys
import uuid
from collections.abc import Callable

import pytest

from api.core import metrics
from api.operations import figures
from tests.nginx.edge import CODE, Edge
from tests.nginx.proxied import CONTENT, SIZE, download
from tests.nginx.stub_api import Answer, wait_for
from tests.nginx.stub_storage import StubStorage, ranged

GRAFANA = CODE / "deploy" / "grafana"
SAMPLE = re.compile(r'(sluice_\w+)(\{(?:\w+="[^"\\\n]*",?)*\})? (-?[0-9.e+-]+|[+]Inf)')


def scrape(edge: Edge) -> dict[str, float]:
    """Every sample. Checks the format."""
    reply = edge.get("/metrics")
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found: dict[str, float] = {}
    for line in reply.body.decode().splitlines():
        if not line.startswith(("# HELP sluice_", "# TYPE sluice_")):
            sample = SAMPLE.fullmatch(line)
            assert sample, line
            found[f"{sample[1]}{sample[2] or ''}"] = float(sample[3])
    return found


def names_of(edge: Edge) -> set[str]:
    """Every metric that the edge exports; a histogram counts as three."""
    text = edge.get("/metrics").body.decode()
    found = set()
    for name, kind in re.findall(r"^# TYPE (sluice_\w+) (\w+)$", text, re.M):
        found |= {f"{name}{end}" for end in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name}
    return found


def test_only_allowed_networks_may_ask(edge: Edge, make_edge: Callable[..., Edge]) -> None:
    assert edge.get("/metrics").status == 200
    reply = make_edge(SLUICE_METRICS_NETWORKS="10.0.0.0/8").get("/metrics")
    assert (reply.status, reply.code) == (403, "FORBIDDEN")


def test_requests_tokens_and_bytes_are_counted(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge()
    blob = uuid.uuid4().hex
    edge.store(blob, b"x" * 1000)
    link = edge.token("link", file=blob)
    for _ in range(3):
        assert edge.get(f"/d/{link}/x").status == 200
    assert edge.get("/d/a.b.c/x").status == 403
    assert edge.ask("GET", "/api/v1/files", headers=edge.bearer()).status == 200
    assert edge.get("/nowhere").status == 404

    def counted() -> bool:
        found = scrape(edge)
        return (
            found.get('sluice_edge_requests_total{route="link",status="200"}') == 3
            and found.get('sluice_edge_requests_total{route="link",status="403"}') == 1
            and found.get('sluice_edge_requests_total{route="other",status="404"}') == 1
            and found.get('sluice_edge_tokens_total{purpose="link",verdict="good"}') == 3
            and found.get('sluice_edge_tokens_total{purpose="link",verdict="invalid"}') == 1
            and found.get('sluice_edge_tokens_total{purpose="access",verdict="good"}') == 1
            and found.get('sluice_edge_failures_total{route="link",code="LINK_INVALID"}') == 1
            and found.get('sluice_edge_upstream_seconds_count{upstream="api"}', 0) >= 1
            and 3000 < found.get('sluice_edge_sent_bytes_total{route="link",storage="local"}', 0) < 6000
        )

    wait_for(counted, "figures")
    assert 0 <= scrape(edge)["sluice_edge_revocations_age_seconds"] < 5


def test_bytes_are_told_apart_by_the_storages_names(make_edge: Callable[..., Edge], storage: StubStorage) -> None:
    edge = make_edge()
    storage.handle = ranged(CONTENT)
    for name in ("main", "archive", "archive"):
        blob = uuid.uuid4().hex
        edge.aim(blob, size=SIZE, uri=storage.url(), storage="s3", name=name)
        assert download(edge, blob).status == 200

    def counted() -> bool:
        found = scrape(edge)
        sent = [found.get(f'sluice_edge_sent_bytes_total{{route="link",storage="{name}"}}', 0) // SIZE
                for name in ("main", "archive", "local", "s3")]  # fmt: skip
        return sent == [1, 2, 0, 0]

    wait_for(counted, "figures by storage")


def test_what_was_counted_outlives_a_reload(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge()
    for _ in range(5):
        edge.get("/nowhere")
    edge.reload()
    wait_for(lambda: scrape(edge).get('sluice_edge_requests_total{route="other",status="404"}') == 5, "figures")


def test_the_apis_figures_come_along(edge: Edge) -> None:
    edge.api.figures = Answer(body=b"# HELP sluice_uploads x\n# TYPE sluice_uploads gauge\nsluice_uploads 3.0\n")
    found = scrape(edge)
    assert (found["sluice_uploads"], found["sluice_edge_api_up"]) == (3, 1)


def test_without_the_api_the_edge_answers_for_itself(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge()
    edge.api.stop()
    assert scrape(edge)["sluice_edge_api_up"] == 0


def test_labels_come_from_no_client(edge: Edge) -> None:
    for path in ('/"} 1', "/d/%22%7D/x", "/api/v1/%0a"):
        edge.raw(f"BREW {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        edge.get(path.replace(" ", "%20"), X_Whatever='"} 1')
    scrape(edge)


def test_the_dashboard_asks_for_nothing_else(edge: Edge) -> None:
    text = (GRAFANA / "sluice.json").read_text()
    asked = set(re.findall(r"\bsluice_\w+", text))
    assert len(asked) > 20
    given = names_of(edge) | metrics.names() | figures.NAMES
    assert asked - given == set()


def test_the_dashboard_is_what_its_script_writes() -> None:
    command = [sys.executable, str(GRAFANA / "make_dashboard.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_is_read_only(edge: Edge, method: str) -> None:
    reply = edge.ask(method, "/metrics")
    assert (reply.status, reply.code, reply.headers["Allow"]) == (405, "METHOD_NOT_ALLOWED", "GET, HEAD")
