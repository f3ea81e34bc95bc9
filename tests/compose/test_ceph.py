"""The profile `ceph`: clients send parts to its port, and download through the edge."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.compose.stack import example, own_address, running, wait_for
from tests.e2e.client import Client
from tests.e2e.leaks import Secrets
from tests.e2e.sources import Source
from tests.servers import free_port


def test_with_ceph_parts_go_straight_to_it_and_downloads_come_through_the_edge(
    tmp_path: Path, secrets: Secrets, source: Source
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

        wait_for(lambda: '"storage:ceph":"binds sha256"' in notes(), "the result of the probe from the API's container")
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
