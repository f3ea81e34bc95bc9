"""`scripts/run --storage ceph`: parts go straight to radosgw, its daemons are supervised, its data is kept."""

import hashlib
import os
import re
import signal
import socket
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.stack.ceph import SCRIPT, Ceph, Mon, Osd, RadosGW
from scripts.stack.gateway import ceph_choices
from scripts.stack.paths import Paths
from tests.run.conftest import Start
from tests.run.running import RunningStack, processes_of
from tests.servers import free_port
from tests.waiting import await_true

PART = 8 * 1024**2
CEPH = ("--storage", "ceph")
START = 120.0


class Caller:
    """Signed in as admin."""

    def __init__(self, port: int, password: str) -> None:
        self.url = f"http://127.0.0.1:{port}/api/v1"
        self.headers: dict[str, str] = {}
        session = self.call("POST", "/sessions", {"username": "admin", "password": password})
        self.headers["Authorization"] = f"Bearer {session['access_token']}"

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = httpx.request(method, self.url + path, json=body, headers=self.headers, timeout=60, trust_env=False)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        found: dict[str, Any] = answer.json()
        return found

    def upload(self, data: bytes) -> tuple[dict[str, Any], list[str]]:
        """A whole upload. Returns the finished upload, and the addresses that its parts went to."""
        parts = [data[start : start + PART] for start in range(0, len(data), PART)]
        hashes = {str(number): hashlib.sha256(part).hexdigest() for number, part in enumerate(parts, 1)}
        upload = self.call("POST", "/uploads", {"name": "a.bin", "size": len(data), "parts": hashes})
        urls = []
        for number, signed in upload["parts"].items():
            answer = httpx.put(
                signed["url"], content=parts[int(number) - 1], headers=signed["headers"], timeout=60, trust_env=False
            )
            assert answer.is_success, answer.text
            urls.append(signed["url"])
        upload = self.call("POST", f"/uploads/{upload['id']}/complete")
        deadline = time.monotonic() + 60
        while upload["state"] == "finalizing":
            assert time.monotonic() < deadline, upload
            time.sleep(0.05)  # a poll: the API sends no event
            upload = self.call("GET", f"/uploads/{upload['id']}")
        return upload, urls

    def download(self, file: dict[str, Any]) -> bytes:
        return httpx.get(
            self.call("POST", f"/files/{file['id']}/links", {})["url"], timeout=60, trust_env=False
        ).content


def objects_read(data: Path) -> list[str]:
    """Requests for bytes of uploaded objects in radosgw's log; lists of parts are not included."""
    log = (data / "log" / "client.rgw.log").read_text(errors="replace")
    found = re.findall(r'"GET (/sluice/[^ ?]+)(\S*) HTTP', log)
    return [path for path, query in found if "uploadId=" not in query and "/probe/" not in path]


def test_an_upload_goes_straight_to_ceph_whose_daemons_may_be_killed_and_is_found_again(
    start: Start, data: Path
) -> None:
    port = free_port()
    first = start(arguments=(*CEPH, "--ceph-port", str(port))).ready(START)
    assert f"storage   ceph, S3 on http://127.0.0.1:{port}; local, " in first.output
    password = first.read_until(r"with the password (\S+)").group(1)
    ready = httpx.get(f"http://127.0.0.1:{first.port}/readyz", trust_env=False).json()
    assert ready["checks"]["storage:ceph"] == "ok"
    await_true(lambda: notes(first) == {"storage:ceph": "binds sha256"})

    caller = Caller(first.port, password)
    content = os.urandom(PART + 100_000)
    upload, urls = caller.upload(content)
    assert (upload["state"], upload["storage"], upload["file"]["state"]) == ("done", "ceph", "ready")
    assert [url.split("/sluice/")[0] for url in urls] == [f"http://127.0.0.1:{port}"] * 2
    assert objects_read(data) == []

    checked = run_api(data, "storage", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "ceph: ok    hashes: binds sha256" in checked.stdout
    assert "ceph: ok    download: a range of a file can be read through the edge" in checked.stdout
    assert run_api(data, "storage", "list").stdout.splitlines() == [
        f"ceph         s3     new uploads    http://127.0.0.1:{port} bucket sluice",
        f"local        local  no new uploads {data}/storage",
    ]
    first_file = upload["file"]
    assert caller.download(first_file) == content

    def started_again(name: str, killed: int) -> bool:
        return first.pid(name) != killed

    for service in (RadosGW, Osd, Mon):
        killed = first.pid(service.name)
        os.kill(killed, signal.SIGKILL)
        first.read_until(rf"sluice: {service.name} was killed by SIGKILL; starting it again\n")
        await_true(partial(started_again, service.name, killed))
    await_true(lambda: ceph_is_ready(data, port), 60)
    upload, _ = caller.upload(os.urandom(1000))
    assert (upload["state"], upload["storage"]) == ("done", "ceph")
    assert first.stop() == 0
    assert processes_of(data) == {}

    plain = start().ready()
    assert f"{data}/ceph holds a Ceph, which is not started: files on it are unavailable" in plain.output
    upload, urls = Caller(plain.port, password).upload(b"on the local disk")
    assert (upload["state"], upload["storage"]) == ("done", "local")
    assert plain.stop() == 0

    again = start(arguments=CEPH).ready(START)
    assert f"S3 on http://127.0.0.1:{port}; " in again.output, "the port is remembered"
    caller = Caller(again.port, password)
    assert caller.download(first_file) == content
    upload, _ = caller.upload(content)
    assert upload["file"]["state"] == "ready"
    names = [file["size"] for file in caller.call("GET", "/files")["items"]]
    assert sorted(names) == sorted([len(content), len(content), 1000, 17])
    assert again.stop() == 0
    assert processes_of(data) == {}


def notes(stack: RunningStack) -> object:
    return httpx.get(f"http://127.0.0.1:{stack.port}/readyz", trust_env=False).json()["notes"]


def ceph_is_ready(data: Path, port: int) -> bool:
    ceph = Ceph(Paths.of(data), port)
    return all(service.ready() for service in ceph.services)


def run_api(data: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command with the stack's settings, as a user types it."""
    command: list[str | Path] = [data / "run" / "api", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_port_in_use_is_one_line_and_nothing_is_made(start: Start, data: Path) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        stack = start(arguments=(*CEPH, "--ceph-port", str(port)))
        assert stack.end() == 1
    assert stack.output.splitlines()[-1] == f"sluice: port {port} is in use"
    assert not (data / "ceph").exists()
    assert not (data / "mariadb").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"SLUICE_STORAGES": "local"}, "SLUICE_STORAGES does not name ceph:s3, which --storage ceph starts"),
        ({"SLUICE_S3_CEPH_BUCKET": "mine"}, "SLUICE_S3_CEPH_BUCKET is set, but scripts/run starts this server itself"),
        (
            {"SLUICE_S3_CEPH_SECRET_KEY": "x"},
            "SLUICE_S3_CEPH_SECRET_KEY is set, but scripts/run starts this server itself",
        ),
    ],
)
def test_a_setting_that_leaves_ceph_out_is_refused(
    start: Start, data: Path, settings: dict[str, str], says: str
) -> None:
    stack = start(arguments=CEPH, environment=settings)
    assert stack.end() == 1
    assert stack.output.splitlines()[-1].startswith(f"sluice: {says}")
    assert not (data / "mariadb").exists()


@pytest.mark.parametrize(
    ("own", "via_edge"),
    [
        ({}, None),
        ({"SLUICE_PUBLIC_URL": "http://127.0.0.1:8080"}, None),
        ({"SLUICE_PUBLIC_URL": "http://[::1]:8080"}, None),
        ({"SLUICE_PUBLIC_URL": "https://files.example"}, "1"),
        ({"SLUICE_PUBLIC_URL": "https://files.example", "SLUICE_S3_CEPH_VIA_EDGE": "0"}, None),
        ({"SLUICE_PUBLIC_URL": "https://files.example", "SLUICE_S3_PUBLIC_ENDPOINT": "https://s3.example"}, None),
    ],
)
def test_clients_elsewhere_are_sent_through_the_edge(own: dict[str, str], via_edge: str | None) -> None:
    chosen = ceph_choices(own)
    assert chosen["SLUICE_STORAGES"] == "ceph:s3,local:local"
    assert chosen.get("SLUICE_S3_CEPH_VIA_EDGE") == via_edge


def test_a_taken_port_gives_way_to_a_free_one(data: Path) -> None:
    """Remembered ports are used if they are free, otherwise others."""
    paths = Paths.of(data)
    for folder in (paths.run, paths.log, data / "ceph"):
        folder.mkdir(mode=0o700, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (data / "ceph" / "settings").write_text(f"RGW_PORT={port}\nCEPH_PORT={port}\nOSD_GB=4\n")
        ceph = Ceph(paths)
        ceph.configure()
    given = ceph.environment()
    assert ceph.s3_port != port
    assert (given["RGW_PORT"], given["OSD_GB"]) == (str(ceph.s3_port), "4")
    assert given["CEPH_PORT"] != str(port)
    again = Ceph(paths)
    again.configure()
    assert again.environment() == given


def test_a_folder_too_long_for_sockets_is_reported_by_the_script_itself(tmp_path: Path) -> None:
    root = tmp_path / ("d" * 90)
    result = subprocess.run(
        [SCRIPT, "start"], env={**os.environ, "CEPH_ROOT": str(root)}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr == f"ceph: {root}/run is too long a path for sockets: set CEPH_RUN to a shorter one\n"


@pytest.mark.parametrize(
    "arguments", [["--storage", "nfs"], ["--storage="], ["--ceph-port", "x"], ["--storage", "ceph", "--ceph-port=0"]]
)
def test_a_wrong_option_is_one_line(arguments: list[str]) -> None:
    run = Path(SCRIPT).with_name("run")
    result = subprocess.run([run, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1


def test_a_ceph_that_cannot_start_holds_up_nothing_else(start: Start, data: Path) -> None:
    assert start(arguments=CEPH).ready(START).stop() == 0
    block = data / "ceph" / "osd" / "block"
    away = block.rename(block.with_name("block.away"))
    stack = start(arguments=CEPH, environment={"STACK_READY_SECONDS": "5"})
    stack.read_until(r"ceph-osd ended with \d+ at its start; startup continues, and Ceph is tried again\n", START)
    stack.ready(START)
    assert stack.get("/healthz") == 200
    stack.read_until("not well: .*storage:ceph: ")
    away.rename(block)
    stack.read_until("all is well again", START)
    assert stack.get("/readyz") == 200
    assert stack.stop() == 0
