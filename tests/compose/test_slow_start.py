"""MariaDB is down for a minute: all services wait for it."""

from __future__ import annotations

from pathlib import Path

from tests.compose.stack import running
from tests.e2e.client import Client
from tests.e2e.leaks import Secrets
from tests.e2e.sources import Source


def test_mariadb_that_takes_a_minute_to_start(tmp_path: Path, secrets: Secrets, source: Source) -> None:
    slow = """
services:
  mariadb:
    entrypoint:
      - bash
      - -c
      - sleep 60; exec "$$(command -v docker-entrypoint.sh mariadb-entrypoint | head -1)" "$$@"
      - slow
"""
    with running("sluice-slow", tmp_path, slow) as stack:
        stack.up()
        stack.wait_until_ready()
        assert "applied 0001.initial" in stack.logs("migrate")
        client = Client(stack.address, secrets).sign_up()
        assert client.holds(client.upload(source), source)
        client.close()
