"""An edge with TLS, as documented in docs/containers.md."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import httpx

from tests.compose.engine import run
from tests.compose.stack import running
from tests.e2e.client import Client
from tests.e2e.leaks import Secrets
from tests.e2e.sources import Source


def test_with_a_certificate_the_edge_speaks_tls_and_its_health_follows(
    tmp_path: Path, secrets: Secrets, source: Source
) -> None:
    run(
        *[
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=127.0.0.1",
        ],
        *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{tmp_path}/key.pem", "-out", f"{tmp_path}/cert.pem"),
    )
    for name in ("key.pem", "cert.pem"):
        os.chown(tmp_path / name, 10001, 10001)
    tmp_path.chmod(0o755)
    override = f"services: {{edge: {{volumes: ['{tmp_path}:/etc/sluice/tls:ro']}}}}"
    files = {"SLUICE_TLS_CERT": "/etc/sluice/tls/cert.pem", "SLUICE_TLS_KEY": "/etc/sluice/tls/key.pem"}
    with running("sluice-tls", tmp_path, override, **files) as stack:
        address = f"https://127.0.0.1:{stack.port}"
        stack.settings["SLUICE_PUBLIC_URL"] = address
        stack.up()
        stack.wait_until_ready()
        client = Client(address, secrets)
        client.http.close()
        client.http = httpx.Client(
            timeout=90, trust_env=False, verify=ssl.create_default_context(cafile=tmp_path / "cert.pem")
        )
        client.sign_up()
        assert client.holds(client.upload(source), source)
        client.close()
