"""TLS and HTTP/2, with the certificate that `scripts/run --tls` makes."""

import re
import socket
import ssl
import subprocess
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts.stack.tls import Certificate
from tests.nginx.edge import Edge
from tests.nginx.stub_api import DEADLINE
from tests.nginx.stub_storage import StubStorage, ranged
from tests.vectors.make_tokens import CLAIMS

BLOB = "b" * 32
CONTENT = bytes(range(256)) * 40_000  # ten megabytes: more than an HTTP/2 window


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    folder = tmp_path_factory.mktemp("tls")
    certificate = Certificate(folder)
    certificate.make("127.0.0.1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        redirect = probe.getsockname()[1]
    more: dict[str, Any] = certificate.settings()
    made = Edge(
        folder / "edge",
        certificate=certificate.file,
        SLUICE_PUBLIC_URL="https://files.example:8443/",
        SLUICE_REDIRECT_LISTEN=f"127.0.0.1:{redirect}",
        **more,
    )
    made.redirect_port = redirect  # type: ignore[attr-defined]
    made.store(BLOB, CONTENT)
    (made.storage / "parts" / CLAIMS["part"]["upload"]).mkdir()
    yield made
    made.stop()


def curl(edge: Edge, path: str, *options: str) -> "subprocess.CompletedProcess[bytes]":
    command = ["curl", "-sS", "--max-time", "30", "--cacert", str(edge.certificate), *options]
    return subprocess.run([*command, f"https://127.0.0.1:{edge.port}{path}"], capture_output=True, check=False)


def link(edge: Edge) -> str:
    return f"/d/{edge.token('link', file=BLOB, filename='x')}/x"


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
class TestEitherVersion:
    def test_a_download(self, edge: Edge, version: str) -> None:
        result = curl(edge, link(edge), version, "-w", "%{stderr}%{http_version}")
        assert result.stdout == CONTENT
        assert result.stderr.decode() == ("2" if version == "--http2" else "1.1")

    def test_a_blob_in_pieces(self, edge: Edge, storage: StubStorage, version: str) -> None:
        blob, asked = uuid.uuid4().hex, f"bytes=2097152-{3 * 2**20 - 1}"
        edge.aim(blob, size=len(CONTENT), uri=storage.url(blob), storage="s3", cached=True)
        path = f"/d/{edge.token('link', file=blob)}/x"
        whole = ranged(CONTENT)
        # a piece that is cut ends the response immediately, even with other files open
        storage.handle = lambda request: replace(whole(request), stop=9 if request.header("Range") == asked else None)
        result = curl(edge, path, version)
        assert result.returncode != 0
        assert CONTENT.startswith(result.stdout)
        storage.handle = whole
        assert [curl(edge, path, version).stdout == CONTENT for _ in range(2)] == [True, True]

    def test_a_range_and_a_head(self, edge: Edge, version: str) -> None:
        assert curl(edge, link(edge), version, "-r", "1000-1999").stdout == CONTENT[1000:2000]
        head = curl(edge, link(edge), version, "-I").stdout.decode().lower()
        assert f"content-length: {len(CONTENT)}" in head

    def test_a_part(self, edge: Edge, version: str, tmp_path: Path) -> None:
        file = tmp_path / "part"
        file.write_bytes(CONTENT)
        token = edge.token("part", size=len(CONTENT), part=7)
        result = curl(edge, f"/p/{token}", version, "-T", str(file), "-w", "%{stderr}%{http_code}")
        assert result.stderr.decode() in ("201", "204"), result.stdout
        assert (edge.storage / "parts" / CLAIMS["part"]["upload"] / "7").read_bytes() == CONTENT

    def test_a_part_of_another_length(self, edge: Edge, version: str, tmp_path: Path) -> None:
        file = tmp_path / "part"
        file.write_bytes(b"abc")
        token = edge.token("part", size=4, part=8)
        assert b"LENGTH_MISMATCH" in curl(edge, f"/p/{token}", version, "-T", str(file)).stdout
        assert not (edge.storage / "parts" / CLAIMS["part"]["upload"] / "8").exists()

    def test_a_part_without_a_length(self, edge: Edge, version: str) -> None:
        token = edge.token("part", size=3, part=9)
        body = subprocess.run(
            ["curl", "-sS", "--max-time", "30", "--cacert", str(edge.certificate), version, "-T", "-",
             f"https://127.0.0.1:{edge.port}/p/{token}"], input=b"abc", capture_output=True, check=False,
        )  # fmt: skip
        assert b"LENGTH_REQUIRED" in body.stdout

    def test_a_call_and_a_refusal(self, edge: Edge, version: str) -> None:
        bearer = f"Authorization: {edge.bearer()['Authorization']}"
        assert curl(edge, "/api/v1/files", version, "-H", bearer).stdout == b"{}"
        assert b'"TOKEN_MISSING"' in curl(edge, "/api/v1/files", version).stdout


@pytest.mark.parametrize("path", ["/d/x/y", "/api/v1/files", "/nowhere"])
def test_browsers_are_told_to_stay_with_tls(edge: Edge, path: str) -> None:
    assert edge.get(path).headers.get_all("Strict-Transport-Security") == ["max-age=31536000"]


@pytest.mark.parametrize("path", ["/", "/d/a.b.c/x?y=1", "//evil.example/"])
def test_plain_http_is_sent_on_to_the_public_url(edge: Edge, path: str) -> None:
    for port in (edge.redirect_port, edge.port):  # type: ignore[attr-defined]
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".encode())
            head = connection.makefile("rb").read().decode()
        assert head.startswith("HTTP/1.1 308 ")
        assert re.search(r"^Location: (.*)\r$", head, re.M)[1] == f"https://files.example:8443{path}"  # type: ignore[index]


@pytest.mark.parametrize(
    ("version", "taken"),
    [("TLSv1", False), ("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)],
)
def test_versions(edge: Edge, version: str, taken: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(edge.certificate)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    context.set_ciphers("ALL:@SECLEVEL=0")
    connection = socket.create_connection(("127.0.0.1", edge.port), timeout=DEADLINE)
    try:
        with context.wrap_socket(connection, server_hostname="127.0.0.1") as wrapped:
            assert taken
            assert "GCM" in wrapped.cipher()[0] or "CHACHA20" in wrapped.cipher()[0]  # type: ignore[index]
    except (ssl.SSLError, ConnectionError):
        assert not taken
    finally:
        connection.close()


def test_a_certificate_is_kept_until_it_ends(tmp_path: Path) -> None:
    certificate = Certificate(tmp_path)
    certificate.make("files.example")
    before = certificate.file.read_bytes()
    certificate.make("files.example")
    assert certificate.file.read_bytes() == before
    assert certificate.key.stat().st_mode & 0o777 == 0o600
    text = subprocess.run(
        ["openssl", "x509", "-noout", "-text", "-in", str(certificate.file)], capture_output=True, text=True, check=True
    ).stdout
    assert "DNS:files.example" in text
    assert "IP Address:127.0.0.1" in text
