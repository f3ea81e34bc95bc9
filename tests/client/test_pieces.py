"""The client's pieces by themselves: names, settings, sources without the system's short cuts, completion."""

from __future__ import annotations

import ast
import contextlib
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest
from sluice import Client, ConfigError, NameRefused, ServerAway, Settings
from sluice.config import KEYS, Config, size
from sluice.credentials import Credentials, FileStore, KeyringStore, lock_file, store_for
from sluice.digest import Plan, composite, digest_of, sample
from sluice.limiter import Limiter
from sluice.names import check_local_name, partial_name
from sluice.partial import PartialFile
from sluice.retry import Patience
from sluice.source import BytesSource, FileSource

from api.core import digests
from tests.client.conftest import PYTHON, ROOT, SLUICE, Command
from tests.e2e.sources import PART, Sources


@pytest.mark.parametrize("name", ["a", "ü", "con", "x" * 255, "a:b", ".a", "a b "])
def test_names_that_linux_takes(name: str) -> None:
    assert check_local_name(name, "linux") == check_local_name(name, "darwin") == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "a\nb", "x" * 256, "ü" * 128])
def test_names_that_linux_does_not_take(name: str) -> None:
    with pytest.raises(NameRefused):
        check_local_name(name, "linux")


@pytest.mark.parametrize(
    "name", ["con", "CON.txt", "nul.", "Lpt1.tar.gz", "COM¹", "a:b", "a?", "a|b", "a<", 'a"', "a.", "a ", "aux .txt"]
)
def test_names_that_windows_does_not_take(name: str) -> None:
    with pytest.raises(NameRefused, match="Windows"):
        check_local_name(name, "win32")


@pytest.mark.parametrize("name", ["console", "com10", "a.b", "ü" * 128, ".a"])
def test_names_that_windows_takes(name: str) -> None:
    assert check_local_name(name, "win32") == name


def test_a_long_name_has_a_short_one_while_it_is_incomplete() -> None:
    assert partial_name("a") == "a.part"
    assert len(partial_name("ü" * 127).encode() + b".journal") <= 255
    assert partial_name("x" * 255) != partial_name("y" * 255)


def test_part_sizes_are_those_of_the_api() -> None:
    for count in (0, 1, PART - 1, PART, PART + 1, 10_000 * PART, 10_000 * PART + 1, 2**43):
        assert Plan.of(count).part_size == digests.part_size(count)
        assert Plan.of(count).part_count == digests.part_count(count)
    assert composite([]) == digests.EMPTY_DIGEST.hex()


def test_every_kind_of_source_has_the_same_digest(sources: Sources) -> None:
    source = sources.make(2 * PART + 3, "kinds")
    data = source.path.read_bytes()
    with FileSource.open(source.path) as file:
        assert digest_of(file, 2) == source.digest
    assert digest_of(BytesSource(data, "a"), 2) == source.digest


def test_a_sample_tells_contents_apart_without_reading_them(sources: Sources) -> None:
    made = [sources.make(40 * PART, seed) for seed in ("one", "two")]
    found = []
    for source in made:
        with FileSource.open(source.path) as file:
            found.append(sample(file, source.size))
            assert sample(file, source.size) == found[-1]
    assert found[0] != found[1]
    assert sample(BytesSource(b"a", "a"), 1) != sample(BytesSource(b"b", "a"), 1)


def test_systems_without_reading_at_a_place_and_sendfile_work(
    client: Client, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("preadv", "pwrite", "sendfile"):
        monkeypatch.delattr(os, name)
    source = sources.make(3 * PART + 1, "windows")
    file = client.upload(source.path).file
    assert file.digest == source.digest
    assert client.download(file, tmp_path / "back").read_bytes() == source.path.read_bytes()


def test_the_lock_of_windows_is_used_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    fake = types.SimpleNamespace(LK_LOCK=1, locking=lambda descriptor, mode, count: calls.append((mode, count)))
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    monkeypatch.setattr(sys, "platform", "win32")
    with lock_file(tmp_path / "lock"):
        assert calls == [(1, 1)]


def test_settings_come_from_options_then_variables_then_the_profile(tmp_path: Path) -> None:
    (tmp_path / "config.ini").write_text(
        "[DEFAULT]\nparallel = 2\n[default]\nurl = http://a\n[work]\nurl = http://b\nlimit_rate = 1.5M\ninstant = 1G\n"
    )
    environ = {"SLUICE_CLIENT_HOME": str(tmp_path)}
    assert Config(None, environ=environ).url == "http://a"
    assert Config("work", environ=environ).settings().limit_rate == 1.5 * 1024**2
    assert Config("work", environ=environ).settings().instant == 1024**3
    assert Config("work", environ=environ).settings().parallel == 2
    environ |= {"SLUICE_CLIENT_PARALLEL": "3", "SLUICE_CLIENT_PROFILE": "work"}
    assert Config(None, environ=environ).url == "http://b"
    assert Config(None, environ=environ).settings().parallel == 3
    assert Config(None, {"parallel": 4}, environ).settings().parallel == 4
    for wrong in ({"parallel": "x"}, {"parallel": 0}, {"instant": "maybe"}, {"patience": "long"}):
        with pytest.raises(ConfigError):
            Config(None, wrong, environ).settings()
    with pytest.raises(ConfigError, match="SLUICE_CLIENT_COLOUR"):
        Config(None, environ=environ | {"SLUICE_CLIENT_COLOUR": "1"})
    with pytest.raises(ConfigError, match="profile"):
        Config("../x", environ=environ)
    assert size("10") == 10
    assert size("2 GiB") == 2 * 1024**3


def test_every_setting_of_the_command_is_documented() -> None:
    text = (ROOT / "docs" / "client.md").read_text()
    for key in KEYS:
        assert f"| `{key}` |" in text, key


def test_the_keyring_is_used_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[tuple[str, str], str] = {}

    class Ring:
        @staticmethod
        def get_password(service: str, name: str) -> str | None:
            return kept.get((service, name))

        @staticmethod
        def set_password(service: str, name: str, text: str) -> None:
            kept[service, name] = text

        @staticmethod
        def delete_password(service: str, name: str) -> None:
            del kept[service, name]

    credentials = Credentials("access", "refresh", 1.0, 0.5, "ann")
    store = KeyringStore(Ring, "work", tmp_path / "lock")
    with store.locked():
        assert store.load("http://a") is None
        assert store.save("http://a", credentials)
        assert store.load("http://a") == credentials
        assert store.load("http://b") is None
        store.delete("http://a")
        store.delete("http://a")
        assert store.load("http://a") is None
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert isinstance(store_for("work", tmp_path, "auto"), FileStore)
    with pytest.raises(ConfigError, match="no keyring"):
        store_for("work", tmp_path, "keyring")


def test_a_credentials_file_that_is_damaged_means_nobody_is_signed_in(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "default.json")
    for text in ("", "{", "[]", "{}", '{"http://a": 1}', '{"http://a": {"access_token": "", "unknown": 2}}'):
        (tmp_path / "default.json").write_text(text)
        assert store.load("http://a") is None


def test_patience_ends_and_honours_what_the_server_asks_for() -> None:
    patience = Patience(0.05, threading.Event())
    error = ServerAway("away")
    with contextlib.suppress(ServerAway):
        while True:
            patience.pause(error)
    with pytest.raises(ServerAway):
        Patience(5, threading.Event()).pause(error, at_least=60)


def test_the_limit_holds_for_all_threads_together() -> None:
    waits: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return False

    limiter = Limiter(1000.0, Stop())
    for _ in range(5):
        limiter.take(1000)
    assert [round(wait) for wait in waits] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "wrong", [{"parallel": 0}, {"parallel": 65}, {"hashers": 0}, {"instant": "x"}, {"limit_rate": 0}]
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Settings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["", "files.example", "ftp://x", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        Client(url)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_their_completion(command: Command, shell: str) -> None:
    assert "_SLUICE_COMPLETE" in command.run("completion", shell).stdout


def test_bash_completes_sub_commands(command: Command) -> None:
    environment = command.environment | {
        "_SLUICE_COMPLETE": "bash_complete",
        "COMP_WORDS": "sluice u",
        "COMP_CWORD": "1",
    }
    result = subprocess.run(SLUICE, env=environment, capture_output=True, text=True, check=False)
    assert "uploads" in result.stdout


def test_nothing_of_the_server_is_imported() -> None:
    found = []
    for path in (ROOT / "client" / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                found.append((node.module or "").split(".")[0])
            elif isinstance(node, ast.Import):
                found += [alias.name.split(".")[0] for alias in node.names]
    assert "sluice" in found
    assert set(found) - set(sys.stdlib_module_names) <= {"sluice", "click", "rich", "platformdirs", "keyring", "msvcrt"}


def test_bars_are_imported_only_where_they_are_drawn() -> None:
    code = "import sys, sluice.cli.main; sys.exit('rich' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "client" / "src")}
    assert subprocess.run([PYTHON, "-c", code], env=environment, check=False).returncode == 0


def test_one_thread_at_a_time_writes_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, here, most = Plan.of(4 * PART), [0], [0]
    meet = threading.Barrier(2)
    pwrite = os.pwrite

    def watched(descriptor: int, view: memoryview, offset: int) -> int:
        here[0] += 1
        with contextlib.suppress(threading.BrokenBarrierError):
            meet.wait(0.2)  # a second writer would come as well
        most[0] = max(most[0], here[0])
        here[0] -= 1
        return pwrite(descriptor, view, offset)

    partial = PartialFile(tmp_path / "file", plan, "0" * 64)
    monkeypatch.setattr(os, "pwrite", watched)
    threads = [threading.Thread(target=partial.write, args=(n * PART, memoryview(b"x"))) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    partial.close()
    assert most == [1]
