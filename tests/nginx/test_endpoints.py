"""The address of a proxied storage: host names by /etc/hosts and DNS, several addresses, TLS."""

import ssl
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.nginx import stub_storage
from tests.nginx.edge import Edge, Reply
from tests.nginx.stub_api import wait_for
from tests.nginx.stub_dns import AAAA, A, StubDNS
from tests.nginx.stub_storage import StubStorage, ranged

MakeEdge = Callable[..., Edge]
CONTENT = b"content" * 100


@pytest.fixture
def storage() -> Iterator[StubStorage]:
    with stub_storage.running() as made:
        made.handle = ranged(CONTENT)
        yield made


def download(edge: Edge, uri: str) -> Reply:
    blob = uuid.uuid4().hex
    edge.aim(blob, size=len(CONTENT), uri=uri, storage="s3")
    return edge.get(f"/d/{edge.token('link', file=blob)}/n")


class TestNames:
    def test_are_asked_of_dns_and_connections_are_kept(
        self, make_edge: MakeEdge, dns: StubDNS, storage: StubStorage
    ) -> None:
        dns.names["storage.test"] = ["127.0.0.1"]
        edge = make_edge(SLUICE_RESOLVER=dns.address)
        for _ in range(20):
            assert download(edge, f"http://Storage.test:{storage.port}/key?x=%2F").body == CONTENT
        assert {seen.header("Host") for seen in storage.seen} == {f"Storage.test:{storage.port}"}
        assert {seen.target for seen in storage.seen} == {"/key?x=%2F"}
        assert len({seen.connection for seen in storage.seen}) <= 8
        # Each worker asks separately.
        assert len(dns.asked) <= 8
        assert set(dns.asked) == {("storage.test", A)}

    def test_may_have_ipv6_addresses_alone(self, make_edge: MakeEdge, dns: StubDNS) -> None:
        dns.names["storage.test"] = ["::1"]
        edge = make_edge(SLUICE_RESOLVER=dns.address)
        # There is no server there: it is enough to see the lookup.
        assert download(edge, "http://storage.test:9/key").code == "STORAGE_UNAVAILABLE"
        assert dns.asked[:2] == [("storage.test", A), ("storage.test", AAAA)]
        wait_for(lambda: "could not give file" in edge.error_log.read_text(), "line in the error log")

    def test_with_an_address_that_refuses_go_to_the_next(
        self, make_edge: MakeEdge, dns: StubDNS, storage: StubStorage
    ) -> None:
        dns.names["storage.test"] = ["127.0.0.2", "127.0.0.3", "127.0.0.1"]
        edge = make_edge(SLUICE_RESOLVER=dns.address)
        for _ in range(5):
            assert download(edge, f"http://storage.test:{storage.port}/key").body == CONTENT
        dns.names["away.test"] = ["127.0.0.2", "127.0.0.3"]
        assert download(edge, f"http://away.test:{storage.port}/key").code == "STORAGE_UNAVAILABLE"

    def test_that_do_not_exist(self, make_edge: MakeEdge, dns: StubDNS) -> None:
        edge = make_edge(SLUICE_RESOLVER=dns.address)
        reply = download(edge, "http://nowhere.test/key")
        assert (reply.status, reply.code) == (503, "STORAGE_UNAVAILABLE")
        said = "could not find the address of nowhere.test: DNS answered with code 3"
        wait_for(lambda: said in edge.error_log.read_text(), "line in the error log")
        assert download(edge, f"http://{'x' * 64}.test/key").code == "STORAGE_UNAVAILABLE"

    def test_are_asked_of_the_next_server_when_one_is_away(
        self, make_edge: MakeEdge, dns: StubDNS, storage: StubStorage
    ) -> None:
        dns.names["storage.test"] = ["127.0.0.1"]
        edge = make_edge(SLUICE_RESOLVER=f"127.0.0.1:9 {dns.address}")
        assert download(edge, f"http://storage.test:{storage.port}/key").body == CONTENT

    def test_of_the_machine_need_no_dns(self, make_edge: MakeEdge, storage: StubStorage) -> None:
        edge = make_edge(SLUICE_RESOLVER="127.0.0.1:9")
        assert download(edge, f"http://localhost:{storage.port}/key").body == CONTENT


def certify(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A private certificate authority, and a server's context with a certificate for a name."""
    for command in (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca",
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout s.key -out s.csr -subj /CN=s",
        "x509 -req -in s.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out s.pem",
    ):
        (folder / "san").write_text(f"subjectAltName=DNS:{name}")
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "s.pem", folder / "s.key")
    return folder / "ca.pem", context


class TestTLS:
    @pytest.fixture
    def secure(self, tmp_path: Path) -> Iterator[tuple[StubStorage, Path, list[str]]]:
        """A storage named good.test, its authority, and the names that clients requested from it."""
        bundle, context = certify(tmp_path, "good.test")
        asked: list[str] = []
        context.sni_callback = lambda _, name, __: asked.append(str(name))
        with stub_storage.running(context) as made:
            made.handle = ranged(CONTENT)
            yield made, bundle, asked

    def test_the_name_is_asked_for_and_verified(
        self, make_edge: MakeEdge, dns: StubDNS, secure: tuple[StubStorage, Path, list[str]]
    ) -> None:
        storage, bundle, asked = secure
        dns.names = {"good.test": ["127.0.0.1"], "bad.test": ["127.0.0.1"]}
        edge = make_edge(SLUICE_RESOLVER=dns.address, SLUICE_CA_BUNDLE=str(bundle))
        # Another name first: a kept connection would not be verified again.
        reply = download(edge, f"https://bad.test:{storage.port}/key")
        assert (reply.status, reply.code) == (503, "STORAGE_UNAVAILABLE")
        assert storage.seen == []
        for _ in range(6):
            assert download(edge, f"https://good.test:{storage.port}/key").body == CONTENT
        assert storage.seen[0].header("Host") == f"good.test:{storage.port}"
        assert set(asked) == {"bad.test", "good.test"}
        assert len(asked) < 6 + 1

    def test_an_authority_that_is_not_believed(
        self, make_edge: MakeEdge, dns: StubDNS, secure: tuple[StubStorage, Path, list[str]]
    ) -> None:
        storage, _, _ = secure
        dns.names["good.test"] = ["127.0.0.1"]
        edge = make_edge(SLUICE_RESOLVER=dns.address)
        assert download(edge, f"https://good.test:{storage.port}/key").code == "STORAGE_UNAVAILABLE"
        assert storage.seen == []
        part = edge.token("part", size=4, to=f"https://good.test:{storage.port}/key", sha256="")
        assert edge.ask("PUT", f"/p/{part}", body=b"part").code == "STORAGE_UNAVAILABLE"
        assert storage.seen == []
