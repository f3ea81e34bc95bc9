"""Writes sluice.json, the Grafana dashboard, from the panels below.

    python deploy/grafana/make_dashboard.py            writes the file beside this one
    python deploy/grafana/make_dashboard.py --check    fails if the file is out of date

tests/nginx/test_metrics.py checks that the gateway exports every metric in it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("sluice.json")
_COLUMNS, _WIDTH, _HEIGHT = 3, 8, 8


@dataclass(frozen=True)
class Panel:
    """One graph.

    Attributes:
        lines: (query, legend) of each line.
        unit: Grafana's name of the unit.
    """

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]


def rate(name: str, by: str, where: str = "") -> str:
    return f"sum by ({by}) (rate({name}{where}[$__rate_interval]))"


def quantile(share: float, name: str, by: str) -> str:
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({name}_bucket[$__rate_interval])))"


ROWS: dict[str, tuple[Panel, ...]] = {
    "Edge": (
        Panel("Requests", "reqps", ((rate("sluice_edge_requests_total", "route"), "{{route}}"),)),
        Panel(
            "Answers that are no success",
            "reqps",
            ((rate("sluice_edge_requests_total", "route, status", '{status=~"4..|5.."}'), "{{route}} {{status}}"),),
        ),
        Panel(
            "Refusals by code", "reqps", ((rate("sluice_edge_failures_total", "route, code"), "{{route}} {{code}}"),)
        ),
        Panel("Sent", "Bps", ((rate("sluice_edge_sent_bytes_total", "route, storage"), "{{route}} {{storage}}"),)),
        Panel(
            "Received", "Bps", ((rate("sluice_edge_received_bytes_total", "route, storage"), "{{route}} {{storage}}"),)
        ),
        Panel("Tokens", "reqps", ((rate("sluice_edge_tokens_total", "purpose, verdict"), "{{purpose}} {{verdict}}"),)),
        Panel("Limits", "reqps", ((rate("sluice_edge_limits_total", "limit, verdict"), "{{limit}} {{verdict}}"),)),
        Panel("Look-ups", "reqps", ((rate("sluice_edge_lookups_total", "cache, found"), "{{cache}}: {{found}}"),)),
        Panel(
            "Upstreams: p50 and p99",
            "s",
            (
                (quantile(0.5, "sluice_edge_upstream_seconds", "upstream"), "{{upstream}} p50"),
                (quantile(0.99, "sluice_edge_upstream_seconds", "upstream"), "{{upstream}} p99"),
            ),
        ),
        Panel("Connections", "short", (("sum by (state) (sluice_edge_connections)", "{{state}}"),)),
        Panel(
            "Free in shared dicts",
            "percentunit",
            (("sluice_edge_dict_free_bytes / sluice_edge_dict_bytes", "{{instance}} {{dict}}"),),
        ),
        Panel(
            "Since revocations were asked for",
            "s",
            (("sluice_edge_revocations_age_seconds", "{{instance}}"),),
        ),
    ),
    "API": (
        Panel("Calls", "reqps", ((rate("sluice_api_calls_total", "method, path"), "{{method}} {{path}}"),)),
        Panel("Errors", "reqps", ((rate("sluice_api_calls_total", "path, status", '{status=~"5.."}'), "{{path}}"),)),
        Panel("p99", "s", ((quantile(0.99, "sluice_api_seconds", "method, path"), "{{method}} {{path}}"),)),
        Panel(
            "Database connections",
            "short",
            (("sluice_database_connections", "in use"), ("sluice_database_connections_most", "at most")),
        ),
        Panel("Waiting for a connection: p99", "s", ((quantile(0.99, "sluice_database_wait_seconds", "job"), "p99"),)),
        Panel(
            "Away",
            "short",
            (
                ("1 - sluice_edge_api_up", "API, for {{instance}}"),
                ("1 - sluice_database_up", "database"),
                (rate("sluice_database_failures_total", "job"), "failed statements/s"),
            ),
        ),
    ),
    "Storages and work": (
        Panel("Uploads", "short", (("sluice_uploads", "{{state}}"),)),
        Panel(
            "Storage calls: p99",
            "s",
            ((quantile(0.99, "sluice_storage_seconds", "storage, call"), "{{storage}} {{call}}"),),
        ),
        Panel(
            "Storage failures",
            "short",
            ((rate("sluice_storage_failures_total", "storage, call, error"), "{{storage}} {{call}} {{error}}"),),
        ),
        Panel("Jobs", "short", ((rate("sluice_job_runs_total", "kind, outcome"), "{{kind}} {{outcome}}"),)),
        Panel("Bytes of jobs", "Bps", ((rate("sluice_job_bytes_total", "kind"), "{{kind}}"),)),
        Panel("Jobs: p99", "s", ((quantile(0.99, "sluice_job_seconds", "kind"), "{{kind}}"),)),
        Panel(
            "Jobs that wait or were given up", "short", (("max by (kind, state) (sluice_jobs)", "{{kind}} {{state}}"),)
        ),
        Panel("Oldest job", "s", (("max by (kind, state) (sluice_job_oldest_seconds)", "{{kind}} {{state}}"),)),
        Panel("Queue", "short", (("sluice_queue_depth", "{{queue}}"),)),
        Panel("Swept", "short", ((rate("sluice_swept_total", "what"), "{{what}}"),)),
    ),
}


def _panels() -> Iterator[dict[str, Any]]:
    top, number = 0, 0
    for title, panels in ROWS.items():
        number += 1
        yield {"id": number, "type": "row", "title": title, "gridPos": {"h": 1, "w": 24, "x": 0, "y": top}}
        top += 1
        for place, panel in enumerate(panels):
            number += 1
            column, row = place % _COLUMNS, place // _COLUMNS
            yield {
                "id": number,
                "type": "timeseries",
                "title": panel.title,
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": column * _WIDTH, "y": top + row * _HEIGHT},
                "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                "targets": [
                    {"refId": chr(ord("A") + at), "expr": query, "legendFormat": legend}
                    for at, (query, legend) in enumerate(panel.lines)
                ],
            }
        top += -(-len(panels) // _COLUMNS) * _HEIGHT


def dashboard() -> str:
    """The dashboard's JSON."""
    found = {
        "title": "Sluice",
        "uid": "sluice",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "panels": list(_panels()),
    }
    return json.dumps(found, indent=2) + "\n"


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        return int(FILE.read_text() != dashboard())
    FILE.write_text(dashboard())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
