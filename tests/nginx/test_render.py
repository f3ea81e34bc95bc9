"""scripts/render-nginx: its output, and the settings that it rejects."""

import os
import re
import resource
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.nginx.edge import CODE, RENDER, Edge

SETTINGS = {
    "SLUICE_LISTEN": "127.0.0.1:8080",
    "SLUICE_NGINX_DIR": "/tmp/s/nginx",
    "SLUICE_LOG_DIR": "/tmp/s/log",
    "SLUICE_STORAGE_ROOT": "/tmp/s/storage",
    "SLUICE_API_SOCKET": "/tmp/s/api.sock",
    "SLUICE_SECRET_KEYS_FILE": "/tmp/s/keys",
    "SLUICE_EDGE_KEY_FILE": "/tmp/s/edge_key",
}
WITH_DEFAULT = ["SLUICE_READY_NETWORKS", "SLUICE_TARGET_TTL", "SLUICE_REVOCATION_LAG", "SLUICE_LINK_GRACE"]
WITH_DEFAULT += ["SLUICE_METRICS_NETWORKS", "SLUICE_CACHE_SIZE", "SLUICE_CACHE_PATH", "SLUICE_TRUSTED_PROXIES"]
WITH_DEFAULT += ["SLUICE_ALLOW_NETWORKS", "SLUICE_DENY_NETWORKS", "SLUICE_ADMIN_NETWORKS", "SLUICE_CONTENT_HOST"]
WITH_DEFAULT += ["SLUICE_PUBLIC_URL", "SLUICE_CACHE_STORAGES", "SLUICE_ADDRESS_RATE", "SLUICE_ADDRESS_CONNECTIONS"]
OPTIONAL = ["SLUICE_API_ADDRESS", "SLUICE_CA_BUNDLE", "SLUICE_RESOLVER", "SLUICE_TLS_CERT", "SLUICE_TLS_KEY"]
OPTIONAL += ["SLUICE_REDIRECT_LISTEN", "SLUICE_EDGE_SOCKET"]


def run(out: Path, settings: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": os.environ["PATH"], **settings}
    return subprocess.run([RENDER, out], env=environment, capture_output=True, text=True, check=False)


def below(folder: Path) -> dict[str, str]:
    """The settings, with every path in a folder."""
    return {name: value.replace("/tmp/s", str(folder)) for name, value in SETTINGS.items()}


def check_with_nginx(folder: Path) -> None:
    for secret in ("keys", "edge_key"):
        (folder / secret).write_text("k" * 64)
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    command = [nginx or "nginx", "-t", "-e", "stderr", "-c", str(folder / "out" / "nginx.conf")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "[warn]" not in result.stderr
    assert "[error]" not in result.stderr


@pytest.mark.parametrize("hard", [5000, None])
def test_a_worker_may_open_as_many_files_as_the_system_lets_it(tmp_path: Path, hard: int | None) -> None:
    command = ["bash", "-c", f"{f'ulimit -n {hard} && ' if hard else ''}exec {RENDER} {tmp_path / 'out'}"]
    subprocess.run(command, env={"PATH": os.environ["PATH"], **below(tmp_path)}, check=True)
    files = hard or min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert f"worker_rlimit_nofile {files};" in (tmp_path / "out" / "nginx.conf").read_text()


def test_variables_are_those_that_it_needs() -> None:
    listed = subprocess.run([RENDER, "--variables"], capture_output=True, text=True, check=True).stdout.split()
    assert sorted(listed) == sorted([*SETTINGS, *WITH_DEFAULT, *OPTIONAL])


@pytest.mark.parametrize("name", SETTINGS)
def test_an_unset_variable_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    for settings in ({**SETTINGS, name: ""}, {key: value for key, value in SETTINGS.items() if key != name}):
        result = run(tmp_path / "out", settings)
        said = f"render-nginx: not set: {name}{' or SLUICE_API_ADDRESS' if name == 'SLUICE_API_SOCKET' else ''}\n"
        assert (result.returncode, result.stderr) == (1, said)
        assert not (tmp_path / "out").exists()


def test_every_problem_is_named_together(tmp_path: Path) -> None:
    wrong = {"SLUICE_LISTEN": "x", "SLUICE_TARGET_TTL": "1s", "SLUICE_RESOLVER": "dns", "SLUICE_STORAGE_ROOT": "/a;b"}
    both = {"SLUICE_API_ADDRESS": "api:8000", "SLUICE_EDGE_KEY_FILE": ""}
    result = run(tmp_path / "out", {**SETTINGS, **wrong, **both})
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == len(wrong) + len(both)
    assert all(name in result.stderr for name in (*wrong, *both))


BAD = {
    "SLUICE_LISTEN": ["192.0.2.1", "8080; evil on", "a b:80", "$x:80", "unix:/x"],
    "SLUICE_STORAGE_ROOT": ["storage", '/a"b', "/a$b", "/a;b", "/a{b", "/a\nb", "/a]==]b", "/a\\b", "/a'b"],
    "SLUICE_API_SOCKET": ["api.sock", '/a"b'],
    "SLUICE_API_ADDRESS": ["api", "api:x", "api:8000; evil", "api:8000 other:8000", "http://api:8000", 'api":1'],
    "SLUICE_TARGET_TTL": ["-1", "1s", "1.5", "0x10", "60;"],
    "SLUICE_LINK_GRACE": ["x"],
    "SLUICE_REVOCATION_LAG": ["2 "],
    "SLUICE_METRICS_NETWORKS": ["all", "127.0.0.1;"],
    "SLUICE_READY_NETWORKS": ["all", "127.0.0.1; evil", "10.0.0.0/8 x"],
    "SLUICE_TRUSTED_PROXIES": ["all", "10.0.0.0/8; evil"],
    "SLUICE_ALLOW_NETWORKS": ["x", "10.0.0.0/8 1; evil"],
    "SLUICE_DENY_NETWORKS": ["10.0.0.0/8}"],
    "SLUICE_ADMIN_NETWORKS": ["here"],
    "SLUICE_TLS_CERT": ["cert.pem", "/a;b", "/alone.pem"],
    "SLUICE_TLS_KEY": ["/alone.pem"],
    "SLUICE_PUBLIC_URL": ["ftp://x", "http://a;b", "http://a b/"],
    "SLUICE_REDIRECT_LISTEN": ["x", "80; evil"],
    "SLUICE_CACHE_PATH": ["cache", "/a;b"],
    "SLUICE_CACHE_SIZE": ["10g", "-1", "1 2"],
    "SLUICE_CONTENT_HOST": ["A.example", "a b", "a;b", "a:x", "http://a"],
    "SLUICE_RESOLVER": ["dns.example", "10.0.0.1; evil", "10.0.0.1:x", "fe80::1%eth0", '10.0.0.1"'],
    "SLUICE_CA_BUNDLE": ["ca.pem", '/a"b', "/nowhere/ca.pem"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_is_named_in_one_line(tmp_path: Path, name: str, value: str) -> None:
    result = run(tmp_path / "out", {**SETTINGS, name: value})
    assert result.returncode == 1
    assert result.stderr.startswith("render-nginx: ")
    assert name in result.stderr
    assert not (tmp_path / "out").exists()


def test_nginx_variables_survive_and_ours_are_gone(tmp_path: Path) -> None:
    assert run(tmp_path / "out", below(tmp_path)).returncode == 0
    written = {path.relative_to(tmp_path / "out"): path.read_text() for path in (tmp_path / "out").rglob("*.conf")}
    snippets = {Path("snippets") / path.name for path in (CODE / "nginx" / "snippets").iterdir()}
    assert set(written) == {Path("nginx.conf"), Path("gateway.conf"), *snippets}
    text = "".join(written.values())
    assert "SLUICE_" not in re.sub(r"#.*", "", text)
    assert "$request_id" in text
    check_with_nginx(tmp_path)


def has_ipv6() -> bool:
    """Whether this machine has ::1, which containers often lack."""
    with suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


@pytest.mark.parametrize("listen", ["18080", "0.0.0.0:18080", "[::1]:18080", "*:18080", "localhost:18080"])
def test_addresses_to_listen_on(tmp_path: Path, listen: str) -> None:
    if listen.startswith(("[", "localhost")) and not has_ipv6():
        pytest.skip("NO IPv6 HERE: nginx cannot listen on ::1")
    settings = {**below(tmp_path), "SLUICE_LISTEN": listen, "SLUICE_READY_NETWORKS": "10.0.0.0/8 fd00::/8 192.0.2.1"}
    assert run(tmp_path / "out", settings).returncode == 0
    check_with_nginx(tmp_path)


@pytest.mark.parametrize("address", ["api:8000", "10.0.0.1:80", "[fd00::1]:8000", "sluice_api-1.example.:8000"])
def test_addresses_of_the_api(tmp_path: Path, address: str) -> None:
    settings = {**below(tmp_path), "SLUICE_API_SOCKET": "", "SLUICE_API_ADDRESS": address}
    assert run(tmp_path / "out", settings).returncode == 0
    check_with_nginx(tmp_path)


@pytest.mark.parametrize(
    ("keys", "edge_key", "said"),
    [
        ("k" * 31, "e" * 64, ["keys holds a key of less than 32"]),
        (f"{'k' * 64}\nshort", "e" * 64, ["keys holds a key of less than 32"]),
        (" \n", "e" * 64, ["there is no key in"]),
        (None, "e" * 64, ["could not read"]),
        ("short", "short", ["keys holds a key of less than 32", "edge_key holds a key of less than 32"]),
        (None, None, ["keys: No such file", "edge_key: No such file"]),
    ],
)
def test_missing_and_short_secrets_are_named_at_start(
    tmp_path: Path, keys: str | None, edge_key: str | None, said: list[str]
) -> None:
    assert run(tmp_path / "out", below(tmp_path)).returncode == 0
    for name, text in (("keys", keys), ("edge_key", edge_key)):
        if text is not None:
            (tmp_path / name).write_text(text)
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    command = [nginx or "nginx", "-g", "daemon off;", "-e", "stderr", "-c", str(tmp_path / "out" / "nginx.conf")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert result.returncode != 0
    # written to the terminal and to the log, which are the same here
    line = next(line for line in result.stderr.splitlines() if "init_by_lua" in line)
    assert all(text in line for text in said)
    assert "kkkk" not in result.stderr


def test_folders_with_spaces(tmp_path: Path) -> None:
    folder = tmp_path / "a b, (ü) #1"
    assert run(folder / "out", below(folder)).returncode == 0
    check_with_nginx(folder)


def test_everything_that_nginx_writes_lies_in_its_folders(shared_edge: Edge) -> None:
    written = {path.relative_to(shared_edge.folder).parts[0] for path in shared_edge.folder.rglob("*")}
    assert written == {"nginx", "log", "storage", "token_keys", "edge_key"}
    assert int((shared_edge.folder / "nginx" / "nginx.pid").read_text()) == shared_edge.process.pid  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("10.0.0.1", "10.0.0.1:53 "),
        ("10.0.0.1:5353 10.0.0.2", "10.0.0.1:5353 10.0.0.2:53 "),
        ("fd00::53 [fd00::54] [fd00::55]:5353 ::1", "[fd00::53]:53 [fd00::54]:53 [fd00::55]:5353 [::1]:53 "),
    ],
)
def test_resolvers_are_written_with_their_ports(tmp_path: Path, given: str, written: str) -> None:
    assert run(tmp_path / "out", below(tmp_path) | {"SLUICE_RESOLVER": given}).returncode == 0
    assert f'resolver = "{written}"' in (tmp_path / "out" / "snippets" / "lua.conf").read_text()
    check_with_nginx(tmp_path)


def test_without_a_resolver_the_machines_own_is_taken(tmp_path: Path) -> None:
    assert run(tmp_path / "out", below(tmp_path)).returncode == 0
    text = (tmp_path / "out" / "snippets" / "lua.conf").read_text()
    (found,) = re.findall('resolver = "(.*)"', text)
    own = re.findall(r"^nameserver\s+([0-9.]+)\s*$", Path("/etc/resolv.conf").read_text(), re.M)
    assert all(f"{address}:53 " in found for address in own)
