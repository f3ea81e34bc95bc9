"""The OpenAPI document against the running gateway: schemathesis makes calls from it and compares the responses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.client import Client
from tests.e2e.gateway import Gateway

SETTINGS = {"SLUICE_SIGNIN_RATE": "100000", "SLUICE_USER_UPLOADS": "100000", "SLUICE_TEST_USER_PARTS": "10000000"}
SECONDS = 30
CONFIG = Path(__file__).with_name("schemathesis.toml")
SEED = 20240229
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def conforms(gateway: Gateway, *options: str) -> str:
    """Checks that the document names every response, and that none is a server error. Returns the report."""
    command = [
        *(Path(sys.executable).parent / "schemathesis", "--config-file", CONFIG, "run"),
        *(f"http://127.0.0.1:{gateway.stack.port}/api/v1/openapi.json", "--checks", CHECKS, "--seed", SEED),
        *("--max-time", SECONDS, "--generation-database", "none"),
        *("--continue-on-failure", "--no-shrink", "--no-color", "--suppress-health-check", "all"),
        *("--request-timeout", "30", "--warnings", "off", *options),
    ]
    done = subprocess.run(
        [str(word) for word in command],
        cwd=gateway.data,
        capture_output=True,
        text=True,
        timeout=6 * SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    return done.stdout


@pytest.fixture(scope="module")
def admin(gateway: Gateway) -> Client:
    """An administrator."""
    user = gateway.user()
    with gateway.database() as cursor:
        cursor.execute("UPDATE user SET role = 'admin' WHERE username = %s", (user.username,))
    user.sign_in(user.username, user.password)
    return user


def test_it_holds_for_an_administrator(gateway: Gateway, admin: Client) -> None:
    # signing out would turn all further responses into 401
    report = conforms(
        gateway, *("-H", f"Authorization: Bearer {admin.token}", "--exclude-operation-id", "accounts_sign_out")
    )
    followed = re.search(r"API Links: +([0-9]+) covered", report)
    assert followed, report
    assert int(followed[1]) > 3


def test_it_holds_for_strangers(gateway: Gateway) -> None:
    assert gateway.client().http.get(f"http://127.0.0.1:{gateway.stack.port}/d/none/none").status_code == 403
    conforms(gateway, "--phases", "coverage")
