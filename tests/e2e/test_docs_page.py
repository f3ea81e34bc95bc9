"""The page that shows the API's document, in a browser."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from api.routes import ROUTES
from tests.e2e.gateway import Gateway

CODE = Path(__file__).parents[2]
PAGE = "/api/docs/"


@pytest.fixture
def address(gateway: Gateway) -> str:
    """The gateway's address."""
    # in a module whose log names no link, the search for secrets could not be checked
    base = f"http://127.0.0.1:{gateway.stack.port}"
    assert httpx.get(f"{base}/d/none/none", trust_env=False).status_code == 403
    return base


def shown(url: str, folder: Path) -> tuple[str, list[str]]:
    """The page as a browser has rendered it, and its console output."""
    browser = shutil.which("chromium")
    assert browser, "scripts/install --dev installs chromium"
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *("--enable-logging=stderr", f"--user-data-dir={folder}", "--virtual-time-budget=20000", "--dump-dom", url),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, re.findall(r'CONSOLE[^"]*"(.*)", source', done.stderr)


def test_it_shows_every_call(address: str, tmp_path: Path) -> None:
    page, said = shown(address + PAGE, tmp_path)
    assert said == []  # no violation of its policy, and no failed request
    assert 'class="swagger-ui"' in page
    ids = set(re.findall(r'id="operations-\w+-(\w+)"', page))
    public = {route.name for route in ROUTES if not route.path.startswith("/internal/")}
    assert public <= ids, public - ids


def test_without_the_package_it_says_so(tmp_path: Path) -> None:
    shutil.copytree(CODE / "nginx" / "docs", tmp_path / "api" / "docs")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page, said = shown(f"http://127.0.0.1:{server.server_port}{PAGE}", tmp_path)
        server.shutdown()
    assert "are not installed here" in page
    assert '<a href="/api/v1/openapi.json">' in page
    assert not [line for line in said if "Error" in line]


def test_it_takes_nothing_from_elsewhere_and_cannot_be_framed(address: str) -> None:
    for path in ("", "start.js", "ui/swagger-ui-bundle.js", "ui/swagger-ui.css"):
        answer = httpx.get(f"{address}{PAGE}{path}", trust_env=False)
        assert answer.status_code == 200, path
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert httpx.get(f"{address}/api/docs", trust_env=False).headers["location"].endswith("/api/docs/")


@pytest.mark.parametrize(
    "path", ["../gateway.conf.template", "..%2f..%2fapi/app.py", "ui/../../../pyproject.toml", "ui/"]
)
def test_nothing_else_is_served(gateway: Gateway, address: str, path: str) -> None:
    with httpx.Client(trust_env=False) as client:
        request = client.build_request("GET", address)
        request.url = httpx.URL(address).copy_with(raw_path=f"{PAGE}{path}".encode())
        assert client.send(request).status_code in (400, 401, 403, 404)
