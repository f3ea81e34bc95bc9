"""The examples of docs/client.md, run unchanged."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from sluice import Client

from tests.client.conftest import PASSWORD, ROOT, Account


def blocks() -> list[str]:
    found: list[str] = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "client.md").read_text(), re.M | re.S)
    return found


def test_the_examples_of_the_sdk_work(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("holiday.mp4").write_bytes(b"film" * 5000)
    Path("photos").mkdir()
    Path("photos/1.jpg").write_bytes(b"photo")
    with gzip.open("log.gz", "wb") as file:
        file.write(b"a log" * 1000)
    first, *others = blocks()
    assert len(others) == 1
    with account.client() as client:
        text = first.replace("https://files.example", account.url).replace('"ann"', repr(account.username))
        exec(text.replace('"…"', repr(PASSWORD)), {})  # noqa: S102
        assert Path("copy.mp4").read_bytes() == b"film" * 5000
        for other in others:
            exec(other, {"client": client})  # noqa: S102
        assert client.read("log") == b"a log" * 1000
        assert client.stat("photos.tar").size >= 10240
        assert client.stat("note.txt").content_type == "text/plain"
    told = capsys.readouterr().out
    assert "holiday.mp4 20000 " in told
    assert "http" in told


def test_the_table_of_the_client_names_what_it_has() -> None:
    text = (ROOT / "docs" / "client.md").read_text()
    for name in dir(Client):
        if not name.startswith("_") and name not in ("close", "session", "settings", "url", "clock_offset"):
            assert f"`{name}" in text, name
            assert getattr(Client, name).__doc__, name
