"""The profiles: a Ceph whose port takes the parts, and RabbitMQ as the queue."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.compose.engine import run
from tests.compose.stack import CODE, free_port, own_address, running, wait_for
from tests.e2e.client import Client
from tests.e2e.leaks import Secrets
from tests.e2e.sources import Source


def example(profile: str) -> dict[str, str]:
    """A profile's settings as .env.example has them."""
    text = (CODE / ".env.example").read_text()
    (block,) = [part for part in text.split("\n\n") if f"COMPOSE_PROFILES={profile}\n" in part]
    return dict(re.findall(r"^# ([A-Z0-9_]+)=(.*)$", block, re.M))


def test_with_ceph_parts_go_straight_to_it_and_downloads_come_through_the_edge(
    docker: None, tmp_path: Path, secrets: Secrets, source: Source
) -> None:
    port = free_port()
    public = f"http://{own_address()}:{port}"
    settings = example("ceph") | {
        "SLUICE_CEPH_PORT": str(port),
        "SLUICE_S3_PUBLIC_ENDPOINT": public,
        "SLUICE_CEPH_GB": "6",
    }
    with running("sluice-ceph", tmp_path, **settings) as stack:
        stack.up()
        stack.wait_until_ready("ceph", seconds=400)
        wait_for(lambda: stack.health(stack.container("ceph-init")) == "exited", "the bucket")
        assert stack.inspect(stack.container("ceph-init"))["State"]["ExitCode"] == 0

        def notes() -> str:
            return stack.exec(stack.container("api"), "/opt/sluice/deploy/healthy", "http", "8000", "/readyz")

        wait_for(lambda: '"storage:ceph":"binds sha256"' in notes(), "what Ceph compares, found out from inside")
        client = Client(stack.address, secrets).sign_up()
        upload = client.create(source)
        if upload["state"] == "proving":
            proof = {"proof": "00" * 32, "parts": source.hashes}
            upload = client.want(200, "POST", f"/uploads/{upload['id']}/proof", proof)
        body = {"parts": source.hashes_of(source.numbers)}
        answer = client.http.post(
            f"{stack.address}/api/v1/uploads/{upload['id']}/parts",
            json=body,
            headers={"Authorization": f"Bearer {client.token}"},
        )
        parts = answer.json()["parts"]
        assert {urlsplit(part["url"]).netloc for part in parts.values()} == {urlsplit(public).netloc}
        for number, part in parts.items():
            sent = httpx.put(part["url"], content=source.part(int(number)), headers=part["headers"])
            assert sent.status_code == 200
        file = client.complete(upload)
        link = client.link(file)
        assert urlsplit(link).netloc == urlsplit(stack.address).netloc
        assert client.sha256_of(link) == source.sha256
        ranged = client.fetch(link, Range="bytes=8388600-8388700")
        assert (ranged.status_code, ranged.content) == (206, source.read(8388600, 101))

        stack.down()
        stack.up()
        stack.wait_until_ready("ceph", seconds=400)
        assert client.holds(file, source), "after a down and an up"
        client.close()


def test_with_rabbitmq_jobs_go_through_it(docker: None, tmp_path: Path, secrets: Secrets) -> None:
    # every complete becomes a job
    settings = example("rabbitmq") | {"SLUICE_FINALIZE_INLINE": "0"}
    with running("sluice-rabbit", tmp_path, **settings) as stack:
        stack.up()
        stack.wait_until_ready("rabbitmq", seconds=400)
        source = Source(tmp_path / "content", 20_000_000)
        source.path.write_bytes(os.urandom(source.size))
        client = Client(stack.address, secrets).sign_up()
        assert client.holds(client.upload(source), source)
        queues = stack.exec(stack.container("rabbitmq"), "rabbitmqctl", "-q", "list_queues", "name", "consumers")
        assert re.search(r"finalize\S*\t[1-9]", queues), queues
        password = (stack.volume("secrets") / "queue_url").read_text().split(":")[2].partition("@")[0]
        for service in ("rabbitmq", "api", "worker"):
            assert password not in stack.logs(service)
        client.close()


def test_with_a_certificate_the_edge_speaks_tls_and_its_health_follows(
    docker: None, tmp_path: Path, secrets: Secrets, source: Source
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
