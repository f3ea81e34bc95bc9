"""Faults around containers: one clear log line, unready, and healthy again once the cause is gone."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.compose.engine import run
from tests.compose.stack import Stack, running, wait_for
from tests.e2e.client import Client, code
from tests.e2e.leaks import Secrets
from tests.e2e.sources import Source

# A volume that is a separate file system, which can be filled and made read-only.
SMALL_STORAGE = """
volumes:
  storage:
    driver_opts: {type: tmpfs, device: tmpfs, o: "mode=0700,uid=10001,gid=10001,size=300m"}
"""
UNHEALTHY_WITHIN = 60.0


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("bad")
    with running("sluice-bad", folder, SMALL_STORAGE, SLUICE_MIN_FREE="50000000") as made:
        made.up()
        made.wait_until_ready()
        yield made


@pytest.fixture
def user(bad: Stack, secrets: Secrets) -> Iterator[Client]:
    made = Client(bad.address, secrets).sign_up()
    yield made
    made.close()


def wait_until_unhealthy(stack: Stack, service: str) -> None:
    wait_for(lambda: not stack.all_healthy(service), f"{service} that is unready", UNHEALTHY_WITHIN)


def said(stack: Stack, service: str, text: str, before: int = 0) -> bool:
    """Whether a service has written such a line after the lines that it had written before."""
    return len(re.findall(text, stack.logs(service))) > before


def serves(user: Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return user.call("GET", "/files").status_code == 200
    return False


def count(stack: Stack, service: str, text: str) -> int:
    return len(re.findall(text, stack.logs(service)))


class TestSecrets:
    @pytest.mark.parametrize(
        ("content", "api_says", "edge_says"),
        [
            ("short", "SLUICE_SECRET_KEYS ", "token_keys holds a key of less than 32 characters"),
            ("", "SLUICE_SECRET_KEYS ", "there is no key in .*token_keys"),
            (None, "SLUICE_SECRET_KEYS cannot be read from .*token_keys", "could not read .*token_keys"),
        ],
    )
    def test_a_missing_or_short_one_is_named_by_each_that_needs_it(
        self, bad: Stack, content: str | None, api_says: str, edge_says: str
    ) -> None:
        path = bad.volume("keys") / "token_keys"
        kept = path.read_text()
        services = {"api": api_says, "worker": api_says, "edge": edge_says}
        before = {service: count(bad, service, text) for service, text in services.items()}
        try:
            path.unlink() if content is None else path.write_text(content)
            for service in services:
                run("docker", "restart", "-t", "10", bad.container(service))
            for service, text in services.items():
                wait_for(lambda s=service, t=text: said(bad, s, t, before[s]), f"line of {service}")  # type: ignore[misc]
                assert not bad.all_healthy(service)
                assert "Traceback" not in bad.logs(service)
        finally:
            path.write_text(kept)
            path.chmod(0o600)
            os.chown(path, 10001, 10001)
        bad.wait_until_ready()  # started again by the engine

    def test_every_problem_is_reported_together(self, bad: Stack) -> None:
        bad.settings |= {"SLUICE_TARGET_TTL": "soon", "SLUICE_DEDUP_SCOPE": "all", "SLUICE_STORAGES": "local,x:tape"}
        try:
            bad.up("--no-deps", "api")
            for text in ("SLUICE_TARGET_TTL ", "SLUICE_DEDUP_SCOPE ", "SLUICE_STORAGES "):
                wait_for(lambda text=text: said(bad, "api", text), f"line with {text}")  # type: ignore[misc]
            assert "Traceback" not in bad.logs("api")
        finally:
            for name in ("SLUICE_TARGET_TTL", "SLUICE_DEDUP_SCOPE", "SLUICE_STORAGES"):
                del bad.settings[name]
            bad.up()
        bad.wait_until_ready()


class TestVolume:
    def test_a_read_only_one(self, bad: Stack, user: Client, source: Source) -> None:
        file = user.upload(source)
        before = count(bad, "api", "well again")
        run("mount", "-o", "remount,ro", str(bad.volume("storage")))
        try:
            wait_until_unhealthy(bad, "api")
            wait_until_unhealthy(bad, "edge")
            assert said(bad, "api", '"a dependency is not well".*"storage:local".*"the parts folder cannot be written"')
            assert user.holds(file, source), "downloads go on"
            assert bad.all_healthy("worker", "mariadb")
        finally:
            run("mount", "-o", "remount,rw", str(bad.volume("storage")))
        bad.wait_until_ready()
        assert said(bad, "api", "a dependency is well again", before)

    def test_a_full_one(self, bad: Stack, user: Client, source: Source) -> None:
        file = user.upload(source)
        filler = bad.volume("storage") / "filler"
        try:
            run("bash", "-c", f"head -c 300m /dev/zero > '{filler}' 2>/dev/null || true")
            wait_until_unhealthy(bad, "api")
            wait_until_unhealthy(bad, "edge")
            assert said(bad, "api", '"a dependency is not well".*"room".*"full"')
            body = {"name": "more", "size": 5_000_000}
            assert code(user.call("POST", "/uploads", body)) == (507, "STORAGE_FULL")
            assert user.holds(file, source), "downloads go on"
        finally:
            filler.unlink()
        bad.wait_until_ready()
        fresh = Source(source.path.with_name("fresh"), 5_000_000)
        fresh.path.write_bytes(os.urandom(fresh.size))
        assert user.holds(user.upload(fresh), fresh)


class TestServers:
    def test_mariadb_that_is_away_for_a_while(self, bad: Stack, user: Client, source: Source) -> None:
        file = user.upload(source)
        run("docker", "stop", "-t", "30", bad.container("mariadb"))
        for service in ("api", "edge", "worker"):
            wait_until_unhealthy(bad, service)
        assert said(bad, "api", '"a dependency is not well".*"database"')
        run("docker", "start", bad.container("mariadb"))
        bad.wait_until_ready()
        assert user.holds(file, source)

    def test_redis_that_is_away_at_the_start(self, bad: Stack, user: Client, tmp_path: Path) -> None:
        run("docker", "stop", "-t", "10", bad.container("redis"))
        for service in ("api", "worker"):
            run("docker", "restart", "-t", "30", bad.container(service))
        wait_for(lambda: bad.all_healthy("api", "worker", "edge"), "health without Redis")
        assert said(bad, "api", '"a dependency is not well".*"redis"')
        source = Source(tmp_path / "without", 9_000_000)
        source.path.write_bytes(os.urandom(source.size))
        assert user.holds(user.upload(source), source)
        run("docker", "start", bad.container("redis"))
        bad.wait_until_ready()
        wait_for(lambda: said(bad, "api", '"a dependency is well again".*"redis"'), "line")

    def test_a_port_in_use(self, bad: Stack) -> None:
        bad.compose("rm", "-sf", "edge")
        with socket.socket() as other:
            other.bind(("0.0.0.0", bad.port))  # noqa: S104 - where the edge would be published
            other.listen()
            told = bad.up("edge", check=False)
            assert re.search(r"(port is already allocated|address already in use)", told)
            assert str(bad.port) in told
        bad.up("edge")
        bad.wait_until_ready()

    def test_a_wrong_storage_endpoint(self, bad: Stack, user: Client, source: Source) -> None:
        """Wrong until a server answers under that name. No container is restarted for it."""
        file = user.upload(source)
        s3 = {
            "SLUICE_STORAGES": "local,far:s3",
            "SLUICE_S3_ENDPOINT": "http://far.test:8480",
            "SLUICE_S3_BUCKET": "sluice",
            "SLUICE_S3_ACCESS_KEY_FILE": "/var/lib/sluice/ceph-keys/access-key",
            "SLUICE_S3_SECRET_KEY_FILE": "/var/lib/sluice/ceph-keys/secret-key",
        }
        bad.settings |= s3
        alias = {"far": "--network-alias=far.test", "network": f"--network={bad.name}_gateway"}
        try:
            bad.up()
            wait_until_unhealthy(bad, "api")
            wait_until_unhealthy(bad, "edge")
            wait_for(lambda: said(bad, "api", '"a dependency is not well".*"storage:far"'), "line")
            wait_for(lambda: serves(user), "a new edge that has the revocations")
            assert user.holds(file, source), "files on other storages are still served"
            keys = ["-v", f"{bad.name}_ceph-keys:/var/lib/sluice/ceph-keys:ro", "--tmpfs", "/run/sluice:mode=0777"]
            run("docker", "run", "-d", "--init", "--name", f"{bad.name}-far", *alias.values(), *keys, "sluice-ceph")
            wait_for(lambda: "S3 answers" in run("docker", "logs", f"{bad.name}-far"), "Ceph")
            bad.compose("run", "--rm", "admin", "storage", "init", "far")
            bad.wait_until_ready()
        finally:
            run("bash", "-c", f"docker rm -fv {bad.name}-far || true")
            for name in s3:
                del bad.settings[name]
            bad.up()
        bad.wait_until_ready()
