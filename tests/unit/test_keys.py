"""The file of keys: which key signs when, how a process handles changes of the file, and how the file is changed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from api.commands.keys import longest_life
from api.core.claims import LinkClaims
from api.core.config import load
from api.core.errors import TokenError
from api.core.keys import MARGIN, Key, Keyring, KeysRefused, parse, retire, rotate, signing, useless_from
from api.core.tokens import Tokens

A, B, C = "a" * 64, "b" * 64, "c" * 64
NOW = 1_800_000_000.0
DAY = 86_400


class Tick:
    """A clock that a test advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 2  # more than LOOK_EVERY, so that the file is read every time
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "token_keys"
    found.write_text(f"{A}\n")
    found.chmod(0o600)
    return found


@pytest.mark.parametrize("text", [f"{A},{B}", f"{A}\n{B}\n", f" {A} , {B}", f"{A} from=0\n{B}"])
def test_keys_are_lines_or_stand_between_commas(text: str) -> None:
    assert parse(text) == (Key(A), Key(B))


def test_a_moment_stands_behind_its_key() -> None:
    assert parse(f"{A}\n{B} from=1800000000\n") == (Key(A), Key(B, 1_800_000_000))


@pytest.mark.parametrize("text", ["", " \n", "short", f"{A}\nshort", f"from=5\n{A}", f"{A} from=x", "ä" * 40])
def test_what_holds_no_keys_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="holds"):
        parse(text)


def test_the_newest_whose_moment_has_come_signs() -> None:
    keys = (Key(A), Key(B, 100), Key(C, 200))
    assert [signing(keys, at).text for at in (0, 99, 100, 199, 200, 10**9)] == [A, A, B, B, C, C]
    assert signing((Key(B, 100),), 0).text == B


def test_tokens_follow_the_file(path: Path) -> None:
    ring = Keyring(parse(path.read_text()), path, Tick())
    tokens, old = Tokens(ring), Tokens([A])
    claims = LinkClaims(bytes(8), bytes(16), 1, "inline", int(NOW) + 9)
    first = tokens.sign_link(claims, now=NOW)
    path.write_text(f"{A}\n{B} from={NOW + 10:.0f}\n")
    # verified already, signing later
    assert tokens.verify_link(Tokens([B]).sign_link(claims, now=NOW), now=NOW) == claims
    assert old.verify_link(tokens.sign_link(claims, now=NOW), now=NOW) == claims
    with pytest.raises(TokenError):
        old.verify_link(tokens.sign_link(claims, now=NOW + 10), now=NOW)
    assert tokens.verify_link(first, now=NOW) == claims
    path.write_text(f"{B}\n")
    with pytest.raises(TokenError):
        tokens.verify_link(first, now=NOW)


def test_what_was_derived_before_a_rotation_is_derived_again(path: Path) -> None:
    tokens = Tokens(Keyring(parse(path.read_text()), path, Tick()))
    before = tokens.derive(b"x", at=NOW)
    path.write_text(f"{A}\n{B} from={NOW + 10:.0f}\n")
    assert tokens.derive(b"x", at=NOW) == before
    assert tokens.derive(b"x", at=NOW + 10) == Tokens([B]).derive(b"x") != before


@pytest.mark.parametrize("text", ["", "half a k", f"{A}\nhalf"])
def test_a_file_that_makes_no_sense_ends_no_key(path: Path, text: str) -> None:
    ring = Keyring(parse(path.read_text()), path, Tick())
    keys = ring.current()
    path.write_text(text)
    assert ring.current() is keys
    path.unlink()
    assert ring.current() is keys
    path.write_text(f"{A}\n{B}\n")
    assert ring.current() == (Key(A), Key(B))


def test_an_unchanged_file_is_the_same_keys(path: Path) -> None:
    ring = Keyring(parse(path.read_text()), path, Tick())
    assert ring.current() is ring.current()


def test_a_rotation_keeps_the_existing_keys(path: Path) -> None:
    key = rotate(path, NOW, 30)
    assert parse(path.read_text()) == (Key(A), Key(key.text, int(NOW) + 30))
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["token_keys"]
    with pytest.raises(KeysRefused, match="does not sign yet"):
        rotate(path, NOW + 29, 30)
    rotate(path, NOW + 30, 30)
    assert len(parse(path.read_text())) == 3


def test_a_group_that_reads_it_goes_on_reading_it_and_others_never(path: Path) -> None:
    path.chmod(0o664)
    rotate(path, NOW, 30)
    assert path.stat().st_mode & 0o777 == 0o640


def test_of_many_concurrent_rotations_one_is_done(path: Path) -> None:
    refused: list[KeysRefused] = []

    def run() -> None:
        try:
            rotate(path, NOW, 30)
        except KeysRefused as ex:
            refused.append(ex)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(parse(path.read_text())), len(refused)) == (2, 7)


def test_a_key_is_retired_when_none_of_its_tokens_can_live(path: Path) -> None:
    longest = 30 * DAY
    with pytest.raises(KeysRefused, match="the one that signs"):
        retire(path, NOW, longest, force=True)
    key = rotate(path, NOW, 30)
    with pytest.raises(KeysRefused, match="the one that signs"):
        retire(path, NOW + 29, longest, force=True)
    ends = key.signs_from + longest + MARGIN
    assert useless_from(parse(path.read_text()), 0, longest) == ends
    with pytest.raises(KeysRefused, match="may live until"):
        retire(path, ends - 1, longest)
    assert retire(path, ends, longest) == Key(A)
    assert parse(path.read_text()) == (key,)


def test_a_stolen_key_is_retired_immediately(path: Path) -> None:
    rotate(path, NOW, 0)
    assert retire(path, NOW, 30 * DAY, force=True) == Key(A)


def test_the_longest_lived_token_is_a_refresh_token_or_a_link(tmp_path: Path) -> None:
    environ = {
        "SLUICE_SECRET_KEYS": A,
        "SLUICE_EDGE_KEY": B,
        "SLUICE_DATABASE_URL": "mysql://x@y/z",
        "SLUICE_REDIS_URL": "redis://x",
        "SLUICE_STORAGE_ROOT": str(tmp_path),
    }
    assert longest_life(load(environ)) == 30 * DAY
    assert longest_life(load(environ | {"SLUICE_REFRESH_TTL": "3600"})) == 7 * DAY
