"""Requests per second of a warm link: through the published port, beside `scripts/run` on this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path

from scripts.stack.services import server_folder
from tests.compose import figures
from tests.compose.engine import run
from tests.compose.stack import own_address, running
from tests.e2e.client import Client
from tests.e2e.leaks import Secrets
from tests.e2e.sources import Source
from tests.run.running import RunningStack

_SECONDS = 3
# All requests come from one address, with one user's link.
_NO_LIMIT = {"SLUICE_ADDRESS_RATE": "1000000", "SLUICE_TIERS": "default:download=1000000/1000000"}


def warm_link(address: str, secrets: Secrets, folder: Path) -> str:
    client = Client(address, secrets).sign_up()
    source = Source(folder / "small", 1024)
    source.path.write_bytes(os.urandom(source.size))
    link = client.link(client.upload(source))
    assert client.sha256_of(link) == source.sha256
    client.close()
    return link


def requests_a_second(link: str) -> float:
    said = run("wrk", "-t1", "-c16", f"-d{_SECONDS}s", link)
    assert "Non-2xx" not in said, said.partition("\n")[2]
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert found, said
    return float(found.group(1))


def test_a_warm_link(secrets: Secrets, tmp_path: Path) -> None:
    """The best of three for each, in turns, because the machine has other work. Health checks run as by default."""
    with running("sluice-measured", tmp_path, interval="", **_NO_LIMIT) as stack, server_folder() as data:
        stack.up()
        stack.wait_until_ready()
        bare = RunningStack(data, environment=_NO_LIMIT).ready()
        try:
            link = warm_link(stack.address, secrets, tmp_path)
            links = {
                # the kernel forwards these to the container; requests to 127.0.0.1 go through a process of Docker's
                "in containers, by the machine's own address": link.replace("127.0.0.1", own_address(), 1),
                "in containers, by 127.0.0.1": link,
                "by scripts/run": warm_link(f"http://127.0.0.1:{bare.port}", secrets, tmp_path),
            }
            found = dict.fromkeys(links, 0.0)
            for where, link in [*links.items()] * 3:
                found[where] = max(found[where], requests_a_second(link))
        finally:
            bare.stop()
            bare.close()
    for where, number in found.items():
        figures.note(f"warm link of 1 KiB, {where}", f"{number:,.0f} requests/s")
    assert min(found.values()) > max(found.values()) / 20
