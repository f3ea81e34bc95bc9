"""The profile `rabbitmq`: the queue of jobs."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.compose.stack import example, running
from tests.e2e.client import Client
from tests.e2e.leaks import Secrets
from tests.e2e.sources import Source


def test_with_rabbitmq_jobs_go_through_it(tmp_path: Path, secrets: Secrets) -> None:
    # every complete becomes a job
    inline = '    environment: {SLUICE_TEST_FINALIZE_INLINE: "0"}\n'
    override = f"services:\n  api:\n{inline}  worker:\n{inline}"
    with running("sluice-rabbit", tmp_path, override=override, **example("rabbitmq")) as stack:
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
