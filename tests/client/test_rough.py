"""A bad network and a server whose parts die: in every case a transfer ends correctly, or reports why it cannot."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sluice import Client, FileChanged, NetworkError, ServerAway, Settings, SignInNeeded, Unauthorized
from sluice.calls import Calls
from sluice.credentials import Credentials, FileStore, MemoryStore
from sluice.models import Link, SignedPart, Upload
from sluice.progress import Progress

from tests.client.certificates import make_certificate, server_context
from tests.client.conftest import PASSWORD, Account, sign_up
from tests.client.rough import RoughProxy
from tests.e2e import forge
from tests.e2e.conftest import running
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART, Sources


@pytest.fixture(scope="module")
def proxy() -> Iterator[RoughProxy]:
    made = RoughProxy()
    yield made
    made.close()


@pytest.fixture(scope="module")
def gateway(proxy: RoughProxy) -> Iterator[Gateway]:
    """A gateway that is reached through the proxy alone, parts and links too."""
    with running({"SLUICE_PUBLIC_URL": proxy.url}) as made:
        proxy.target = made.stack.port
        yield made
        made.age_bodies()  # what a killed nginx had half received
        made.await_nothing_lost()


@pytest.fixture
def account(proxy: RoughProxy, gateway: Gateway) -> Iterator[Account]:
    proxy.calm()
    yield sign_up(proxy.url)
    proxy.calm()


def once_moved(count: int, then: Callable[[], None]) -> Callable[[Progress], None]:
    """Returns a callback that calls ``then`` once, after ``count`` bytes have moved."""
    done = threading.Event()

    def told(progress: Progress) -> None:
        if progress.moved >= count and not done.is_set():
            done.set()
            then()

    return told


@pytest.mark.parametrize("instant", ["never", "always"])
def test_connections_that_are_cut_at_random_lose_nothing(
    account: Account, proxy: RoughProxy, sources: Sources, tmp_path: Path, instant: str
) -> None:
    source, small = sources.make(4 * PART + 77, f"cut {instant}"), sources.make(50_000, f"cut {instant}")
    with account.client(instant=instant) as client:
        client.whoami()
        cuts = proxy.cuts
        proxy.cut_within = 3 * PART
        for each in (source, small):
            file = client.upload(each.path).file
            assert file.digest == each.digest
            assert client.download(file, tmp_path / "back", overwrite=True).read_bytes() == each.path.read_bytes()
        assert proxy.cuts > cuts
        proxy.calm()
        assert len(list(client.files())) == 2, "nothing was stored twice"


def test_the_answer_of_a_call_may_get_lost(account: Account, proxy: RoughProxy, sources: Sources) -> None:
    source = sources.make(2 * PART + 1, "lost answers")
    with account.client(instant="always") as client:
        client.whoami()
        for number, path in enumerate(
            (b"POST /api/v1/uploads HTTP", b"/parts HTTP", b"/complete HTTP", b"/proof HTTP")
        ):
            proxy.lose_answers_of = path
            calm = threading.Timer(0.6, proxy.calm)
            calm.start()
            file = client.upload(source.path, f"{number}").file
            calm.cancel()
            proxy.calm()
            assert file.digest == source.digest


def test_nginx_the_api_and_the_database_die_in_the_middle(
    account: Account, gateway: Gateway, sources: Sources, tmp_path: Path
) -> None:
    for service in ("nginx", "api", "mariadb"):
        source = sources.make(6 * PART, f"without {service}")
        back: list[Callable[[], None]] = []
        with account.client(instant="never", parallel=2, limit_rate=60e6) as client:
            kill = once_moved(PART + 1, lambda: back.append(gateway.kill(service)))  # noqa: B023
            file = client.upload(source.path, on_progress=kill).file
            assert file.digest == source.digest
            back.pop()()
            kill = once_moved(PART + 1, lambda: back.append(gateway.kill(service)))  # noqa: B023
            path = client.download(file, tmp_path / service, on_progress=kill)
            assert hashlib.sha256(path.read_bytes()).hexdigest() == source.sha256
            back.pop()()


def test_a_server_that_answers_503_for_a_while_is_waited_for(
    account: Account, gateway: Gateway, sources: Sources
) -> None:
    source = sources.make(PART, "503")
    with account.client() as client:
        client.whoami()
        with gateway.without("mariadb"):
            hasty = Settings(patience=0.1)
            with (
                Client(account.url, client.session.token(), settings=hasty) as probe,
                pytest.raises(ServerAway, match="DATABASE"),
            ):
                probe.whoami()
            result: list[str] = []
            thread = threading.Thread(target=lambda: result.append(client.upload(source.path).file.digest))
            thread.start()
            thread.join(1.0)
            assert thread.is_alive(), "it waits"
        thread.join(30)
    assert result == [source.digest]


def test_a_server_that_stays_away_is_said_in_time(account: Account, proxy: RoughProxy) -> None:
    proxy.refuse = True
    with account.client(patience=1.0) as client:
        begun = time.monotonic()
        with pytest.raises(NetworkError):
            client.upload(b"content", "name")
        assert time.monotonic() - begun < 5


def test_part_urls_that_expired_are_renewed(
    account: Account, gateway: Gateway, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed by the gateway's own key, expired: it is the edge that refuses them."""
    key = (gateway.data / "secrets" / "token_keys").read_text().split()[-1]
    source = sources.make(3 * PART, "expired")
    sign, asked = Calls.sign, []

    def expired(self: Calls, upload: Upload, parts: dict[int, str]) -> dict[int, SignedPart]:
        found = sign(self, upload, parts)
        asked.append(set(parts))
        if len(asked) > 1:
            return found
        for number, part in found.items():
            token = urlsplit(part.url).path.split("/")[2]
            old = forge.seal(key, {**forge.unseal(key, token), "exp": 1})
            found[number] = SignedPart(part.url.replace(token, old), part.headers, part.expires_at)
        return found

    monkeypatch.setattr(Calls, "sign", expired)
    with account.client(instant="always") as client:
        assert client.upload(source.path).file.digest == source.digest
    assert asked[0] <= set.union(*asked[1:])


@pytest.mark.parametrize("instant", ["never", "always"])
@pytest.mark.parametrize("hide", [False, True], ids=["plainly", "behind its times"])
def test_a_file_that_changes_meanwhile_is_noticed_and_not_stored(
    account: Account, gateway: Gateway, sources: Sources, instant: str, hide: bool
) -> None:
    source = sources.make(4 * PART, f"changing {instant} {hide}")
    times = source.path.stat()

    def change() -> None:
        with source.path.open("r+b") as file:
            file.seek(3 * PART + 5)  # a part that was hashed, in the one mode, and is not sent yet
            file.write(b"changed")
        if hide:
            os.utime(source.path, ns=(times.st_atime_ns, times.st_mtime_ns))

    with account.client(instant=instant, parallel=1, limit_rate=40e6, hashers=4) as client:
        with pytest.raises(FileChanged):
            client.upload(source.path, on_progress=once_moved(PART, change))
        assert list(client.files()) == []
        assert [upload.state for upload in client.uploads()] == ["aborted"]
        assert client.upload(source.path).file.size == source.size


def test_a_file_that_shrinks_is_noticed(account: Account, sources: Sources) -> None:
    source = sources.make(3 * PART, "shrinking")
    with account.client(instant="never", parallel=1, limit_rate=40e6, hashers=1) as client, pytest.raises(FileChanged):
        client.upload(source.path, on_progress=once_moved(PART, lambda: os.truncate(source.path, PART)))


# -- sessions


def sessions(gateway: Gateway, account: Account) -> tuple[int, int]:
    """(open, ended) sessions of a user."""
    sql = (
        "SELECT SUM(s.ended_at IS NULL), SUM(s.ended_at IS NOT NULL) FROM session s "
        "JOIN user u ON u.id = s.user_id WHERE u.username = %s"
    )
    ((still, ended),) = gateway.query(sql, [account.username])
    return int(still or 0), int(ended or 0)


def due(store: FileStore | MemoryStore, origin: str) -> Credentials:
    """Makes it time to renew a token."""
    found = store.load(origin)
    assert found is not None
    store.save(origin, replace(found, renew_at=0.0))
    return found


def test_a_wrong_password_is_said(account: Account) -> None:
    with Client(account.url) as client, pytest.raises(Unauthorized, match="CREDENTIALS_INVALID"):
        client.login(account.username, "not the password")


def test_many_clients_of_one_session_renew_it_one_after_another(
    account: Account, gateway: Gateway, tmp_path: Path
) -> None:
    path = tmp_path / "credentials" / "default.json"
    with Client(account.url, store=FileStore(path)) as first:
        first.login(account.username, account.password)
    for _ in range(3):
        due(FileStore(path), account.url)
        clients = [Client(account.url, store=FileStore(path)) for _ in range(6)]
        threads = [threading.Thread(target=client.whoami) for client in clients for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for client in clients:
            assert client.whoami().username == account.username
            client.close()
    assert sessions(gateway, account) == (1, 0)


def test_a_refresh_whose_answer_got_lost_signs_in_and_ends_no_session(
    account: Account, gateway: Gateway, proxy: RoughProxy
) -> None:
    store = MemoryStore()
    with Client(account.url, username=account.username, password=PASSWORD, store=store) as client:
        client.whoami()
        due(store, account.url)
    proxy.lose_answers_of = b"/sessions/refresh"
    with Client(account.url, store=store) as nobody:
        assert nobody.whoami().username == account.username, "the access token lasts"
        assert store.load(account.url).in_doubt  # type: ignore[union-attr]
    with Client(account.url, username=account.username, password=PASSWORD, store=store) as client:
        assert client.whoami().username == account.username
    assert sessions(gateway, account) == (2, 0), "a new session, and the old one was not ended by a second use"


def test_a_session_that_ended_is_opened_anew_or_said(account: Account, gateway: Gateway) -> None:
    store = MemoryStore()
    with Client(account.url, username=account.username, password=PASSWORD, store=store) as client:
        client.whoami()
        with Client(account.url, store=store) as other:
            other.logout()
        client.whoami()
    store.delete(account.url)
    with Client(account.url, store=store) as client, pytest.raises(SignInNeeded):
        client.whoami()


def test_tls_moves_the_same_bytes(
    account: Account, gateway: Gateway, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that sendfile cannot do: the API, a part of several and a download through TLS."""
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    make_certificate(key, certificate)
    tls = RoughProxy(context=server_context(key, certificate))
    tls.target = gateway.stack.port
    sign, link = Calls.sign, Calls.link

    def by_tls(url: str) -> str:
        return url.replace(account.url, f"https://localhost:{tls.port}")

    def signed(self: Calls, upload: Upload, parts: dict[int, str]) -> dict[int, SignedPart]:
        found = sign(self, upload, parts)
        return {n: SignedPart(by_tls(part.url), part.headers, part.expires_at) for n, part in found.items()}

    def linked(self: Calls, *arguments: Any) -> Link:
        found = link(self, *arguments)
        return Link(by_tls(found.url), found.expires_at)

    monkeypatch.setattr(Calls, "sign", signed)
    monkeypatch.setattr(Calls, "link", linked)
    source = sources.make(3 * PART + 7, "tls")
    before = tls.up
    settings = Settings(ca_file=certificate, instant="always")
    secure = Client(by_tls(account.url), username=account.username, password=PASSWORD, settings=settings)
    with secure as client:
        file = client.upload(source.path).file
        path = client.download(file, tmp_path / "back")
    tls.close()
    assert file.digest == source.digest
    assert path.read_bytes() == source.path.read_bytes()
    assert tls.up - before > source.size
