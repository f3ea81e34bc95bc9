"""The load test against a real stack: its users get the right responses, and its limits decide the exit code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.gateway import Gateway

LOCUST = Path(__file__).parents[2] / "loadtest" / "locust"
SETTINGS: dict[str, str] = {}  # a separate gateway, because wrong passwords are counted per address


def locust(gateway: Gateway, *options: str, host: str = "") -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [LOCUST, "--headless", "--only-summary", "--host", host or gateway.address, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_run_that_holds_its_limits(gateway: Gateway) -> None:
    result = locust(gateway, "-u", "8", "-r", "8", "-t", "10s", "--sizes", "16KiB=3,9MiB=1", "--least-requests", "50")
    assert result.returncode == 0, result.stdout + result.stderr
    for name in ("PUT part [local]", "complete [local]", "GET /d range [local]", "POST /uploads/… parts"):
        assert name in result.stdout
    assert gateway.query("SELECT COUNT(*) FROM upload WHERE state = 'done'")[0][0] > 0


def test_a_run_that_does_not(gateway: Gateway) -> None:
    limits = ["--p95", "GET /files=0.001", "--weights", "reader=1"]
    result = locust(gateway, "-u", "2", "-r", "2", "-t", "4s", "--sizes", "16KiB=1", *limits)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "is the limit" in result.stderr


@pytest.mark.parametrize(
    ("options", "why"),
    [(("--weights", "cat=1"), "there are no users cat"), (("--sizes", "20MB=1"), "not a size")],
)
def test_a_run_that_cannot_be_meant(gateway: Gateway, options: tuple[str, ...], why: str) -> None:
    result = locust(gateway, *options, "-t", "1s")
    assert (result.returncode, why in result.stderr) == (2, True), result.stderr


def test_other_machines_are_not_loaded(gateway: Gateway) -> None:
    result = locust(gateway, "-t", "1s", host="http://192.0.2.1")
    assert (result.returncode, "is not on this machine" in result.stderr) == (2, True), result.stderr
