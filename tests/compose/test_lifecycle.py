"""docker compose up, in a user's order: use, scale, restart, kill, down, up."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.compose import figures
from tests.compose.engine import run
from tests.compose.load import Load
from tests.compose.stack import Stack, wait_for
from tests.e2e.client import Client
from tests.e2e.leaks import Secrets
from tests.e2e.sources import Source

SCRAPE = r"exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3"
OURS = ("edge", "api", "worker")
THEIRS = ("mariadb", "redis")


class TestUse:
    def test_upload_instant_upload_link_and_range(
        self, stack: Stack, client: Client, secrets: Secrets, source: Source
    ) -> None:
        file = client.upload(source)
        assert len(client.sent) == source.part_count == 3
        assert client.holds(file, source)

        other = Client(stack.address, secrets).sign_up()
        upload = other.create(source)
        proof = {"proof": source.proof(upload["challenge"]), "parts": source.hashes}
        done = other.want(200, "POST", f"/uploads/{upload['id']}/proof", proof)
        assert (done["state"], other.sent) == ("done", [])

        answer = other.fetch(other.link(done["file"]), Range="bytes=8388600-8388700")
        assert (answer.status_code, answer.content) == (206, source.read(8388600, 101))
        assert client.fetch(client.link(file), If_None_Match=answer.headers["ETag"]).status_code == 304
        other.close()

    def test_an_account_by_the_operators_command(self, stack: Stack, secrets: Secrets) -> None:
        said = stack.compose("run", "--rm", "admin", "user", "create", "operator", "--admin")
        password = said.partition("password: ")[2].split()[0]
        admin = Client(stack.address, secrets).sign_in("operator", password)
        assert admin.want(200, "GET", "/users/me")["role"] == "admin"
        admin.close()

    def test_keys_are_rotated_by_the_operators_command(
        self, stack: Stack, client: Client, secrets: Secrets, source: Source
    ) -> None:
        """The first key was stolen: its tokens end, the new key's tokens are valid, and nothing is restarted."""
        began = stack.started(*OURS)
        secrets.add_keys(stack.volume("keys"))
        file = client.upload(source)
        old = client.link(file)
        said = stack.compose("run", "--rm", "admin", "keys", "rotate", "--after", "3")
        found = re.search(r"^(\w+) verifies immediately", said, re.M)
        assert found, said
        signs = re.compile(rf"^{found.group(1)}  signs$", re.M)
        wait_for(lambda: signs.search(stack.compose("run", "--rm", "admin", "keys", "list")), "a new key that signs")
        new = client.link(file)
        assert client.fetch(old).status_code == 200
        stack.compose("run", "--rm", "admin", "keys", "retire", "--force")
        wait_for(lambda: client.fetch(old).status_code == 403, "end of the old key")
        assert client.sha256_of(new) == source.sha256
        assert client.call("GET", "/files").status_code == 401
        client.sign_in(client.username, client.password)
        assert client.holds(file, source)
        assert stack.started(*OURS) == began

    def test_readiness_is_for_some_networks_only(self, stack: Stack, client: Client) -> None:
        assert client.fetch(f"{stack.address}/healthz").status_code == 200
        assert client.fetch(f"{stack.address}/readyz").status_code == 403


class TestConfinement:
    @pytest.mark.parametrize("service", [*OURS, *THEIRS, "init", "migrate"])
    def test_unprivileged_with_a_read_only_root_and_limits(self, stack: Stack, service: str) -> None:
        for container in stack.containers(service):
            found = stack.inspect(container)
            host = found["HostConfig"]
            assert found["Config"]["User"] not in ("", "0", "root")
            assert host["ReadonlyRootfs"] is True
            assert host["CapDrop"] == ["ALL"]
            assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"])
            assert host["Memory"] > 0
            assert host["PidsLimit"] > 0
            assert host["Privileged"] is False

    @pytest.mark.parametrize("service", OURS)
    def test_in_the_process_itself(self, stack: Stack, service: str) -> None:
        container = stack.container(service)
        state = stack.exec(container, "cat", "/proc/1/status")
        assert "Uid:\t10001\t10001" in state
        assert "CapBnd:\t0000000000000000" in state
        assert "NoNewPrivs:\t1" in state
        tried = stack.exec(container, "bash", "-c", "touch /opt/sluice/x /etc/x /var/lib/x 2>&1 || true")
        assert tried.count("Read-only file system") == 3

    def test_only_the_edge_is_published(self, stack: Stack) -> None:
        published = {
            service: stack.inspect(stack.container(service))["HostConfig"]["PortBindings"]
            for service in (*OURS, *THEIRS)
        }
        assert {service for service, ports in published.items() if ports} == {"edge"}

    def test_secrets_are_in_no_environment_and_only_in_services_that_need_them(self, stack: Stack) -> None:
        keys = [stack.volume("keys") / name for name in ("token_keys", "edge_key")]
        passwords = [stack.volume("mariadb-secrets") / name for name in ("password", "root_password")]
        words = [path.read_text().strip() for path in (*keys, *passwords)]
        assert all(len(word) >= 48 for word in words)
        for service in (*OURS, *THEIRS, "init", "migrate"):
            for container in stack.containers(service):
                found = json.dumps(stack.inspect(container))
                assert not any(word in found for word in words)
                mounted = {
                    mount.get("Name", "").removeprefix(f"{stack.name}_") for mount in stack.inspect(container)["Mounts"]
                }
                assert service == "init" or "mariadb-secrets" not in mounted or service == "mariadb"
                assert service != "edge" or mounted == {"keys", "storage"}
        assert all(path.stat().st_mode & 0o077 == 0 for path in keys)


class TestScale:
    def test_two_of_each_share_the_work(self, stack: Stack, client: Client, source: Source) -> None:
        stack.up("--scale", "api=2", "--scale", "worker=2")
        stack.wait_until_ready()
        assert [len(stack.containers(service)) for service in ("api", "worker")] == [2, 2]
        for container in stack.containers("api"):
            run("docker", "stop", "-t", "30", container)
            before = calls(stack)
            assert client.holds(client.upload(source), source), "with one API left"
            assert calls(stack) == before + 1
            run("docker", "start", container)
            wait_for(lambda id_=container: stack.health(id_) == "healthy", "health of the API")  # type: ignore[misc]
        answers = {calls(stack) for _ in range(4)}
        assert answers == {before + 1}, "each API exports the counts of both"

    def test_a_rolling_restart_fails_no_request(self, stack: Stack, secrets: Secrets, tmp_path: Path) -> None:
        began = stack.started("edge")
        with Load(stack.address, secrets, tmp_path) as load:
            wait_for(lambda: min(load.done[name] for name in ("upload", "download", "list")) > 2, "load")
            for container in stack.containers("api"):
                before = load.done.total()
                run("docker", "restart", "-t", "30", container)
                wait_for(lambda id_=container: stack.health(id_) == "healthy", "health of the API")  # type: ignore[misc]
                wait_for(lambda before=before: load.done.total() > before + 20, "load after a restart")  # type: ignore[misc]
        figures.note("rolling restart of two APIs under load", f"{dict(load.done)}, {len(load.failures)} failed")
        assert load.failures == []
        assert stack.started("edge") == began

    def test_a_recreated_api_is_found_at_its_new_address(self, stack: Stack, client: Client, source: Source) -> None:
        stack.up("--no-deps", "--force-recreate", "--scale", "api=1", "api")
        stack.wait_until_ready()
        assert len(stack.containers("api")) == 1
        assert client.holds(client.upload(source), source)
        stack.up()
        stack.wait_until_ready()
        assert len(stack.containers("worker")) == 1, "back to one of each"


class TestKills:
    @pytest.mark.parametrize("service", [*OURS, *THEIRS])
    def test_kill_9_of_each_is_recovered_from(self, stack: Stack, client: Client, source: Source, service: str) -> None:
        """The engine starts it again. Nothing acknowledged is lost, and an unfinished upload continues."""
        file = client.upload(source)
        fresh = Source(source.path.with_name("fresh"), 9_000_000)
        fresh.path.write_bytes(os.urandom(fresh.size))
        upload = client.create(fresh)
        if upload["state"] == "proving":
            wrong = {"proof": "00" * 32, "parts": fresh.hashes}
            upload = client.want(200, "POST", f"/uploads/{upload['id']}/proof", wrong)
        client.send(upload, fresh, [1])

        container = stack.container(service)
        killed = stack.inspect(container)["State"]["Pid"]
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: stack.inspect(container)["State"]["Pid"] not in (0, killed), f"another {service}")
        stack.wait_until_ready()

        def still_missing() -> list[list[int]]:
            found: list[list[int]] = client.want(200, "GET", f"/uploads/{upload['id']}")["missing"]
            return found

        # the storage is asked for received parts once in 5 s at most
        wait_for(lambda: still_missing() == [[2, 2]], "part 1 among those that were received")
        client.send(upload, fresh, [2])
        assert client.holds(client.complete(upload), fresh)
        assert client.holds(file, source)


class TestStops:
    def test_docker_stop_ends_each_in_order_within_30_s(self, stack: Stack) -> None:
        codes = {}
        for service in OURS:
            container = stack.container(service)
            began = time.monotonic()
            run("docker", "stop", "-t", "60", container)
            codes[service] = stack.inspect(container)["State"]["ExitCode"]
            assert time.monotonic() - began < 30
        assert codes == dict.fromkeys(OURS, 0)
        for service in reversed(OURS):
            run("docker", "start", stack.container(service))
        stack.wait_until_ready()

    def test_a_stopping_edge_finishes_its_responses(self, stack: Stack, client: Client, tmp_path: Path) -> None:
        large = Source(tmp_path / "large", 60_000_000)
        large.path.write_bytes(os.urandom(large.size))
        link = client.link(client.upload(large))
        host, port = "127.0.0.1", stack.port
        with socket.create_connection((host, port), timeout=30) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            path = link.removeprefix(stack.address)
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
            got = len(connection.recv(65536))
            edge = stack.container("edge")
            stopping = run_in_background("docker", "stop", "-t", "30", edge)
            while data := connection.recv(1 << 20):
                got += len(data)
        assert got > large.size
        assert stopping.wait(60) == 0
        assert stack.inspect(edge)["State"]["ExitCode"] == 0
        run("docker", "start", edge)
        stack.wait_until_ready()

    def test_down_and_up_finds_everything(self, stack: Stack, client: Client, source: Source) -> None:
        file = client.upload(source)
        keys = (stack.volume("keys") / "token_keys").read_text()
        stack.down()
        assert stack.containers("edge") == []
        figures.note("`up` on existing data to a ready edge", f"{stack.seconds_until_ready():.0f} s")
        stack.wait_until_ready()
        assert (stack.volume("keys") / "token_keys").read_text() == keys
        assert client.holds(file, source), "an earlier session is still valid"

    def test_no_log_holds_a_secret(self, stack: Stack, secrets: Secrets) -> None:
        """Last: covers all requests of this module."""
        secrets.add_keys(stack.volume("keys"))
        assert secrets.tokens > 10
        for service in (*OURS, *THEIRS, "init", "migrate"):
            assert secrets.found_in(stack.logs(service)) == set(), service


def calls(stack: Stack) -> float:
    """The number of created uploads, from a scrape of the edge."""
    text = stack.exec(stack.container("edge"), "bash", "-c", SCRAPE)
    found = re.findall(r"^sluice_api_calls_total\{(.*)\} (\S+)$", text, re.M)
    return sum(float(count) for labels, count in found if 'method="POST",path="/api/v1/uploads"' in labels)


def run_in_background(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)
