"""Tokens: itsdangerous' own bytes, one spelling each, one purpose each."""

from __future__ import annotations

import base64
import hashlib
import json
import string
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import TimestampSigner
from itsdangerous.encoding import base64_encode

from api.core.errors import TokenError, TokenExpired
from api.core.tokens import MAX_LENGTH, PURPOSES, Tokens

OLD, NEW, FOREIGN = "o" * 64, "n" * 64, "f" * 64
NOW = 1_900_000_000
CLAIMS = {"sub": "a" * 32, "gen": 3, "name": '📦 é"', "exp": NOW + 60}
BASE64URL = string.ascii_letters + string.digits + "-_"
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "tokens.json").read_text())
tokens = Tokens([OLD, NEW])


def refused(token: str, purpose: str = "access", by: Tokens = tokens) -> bool:
    """Whether a token is refused as one that we never signed; any other exception is a failure."""
    try:
        by.verify(purpose, token, now=NOW)
    except TokenExpired:
        return False
    except TokenError:
        return True
    return False


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("keys", [[NEW], [OLD, NEW]], ids=["one key", "two keys"])
@pytest.mark.parametrize("claims", [CLAIMS, {"exp": 1}, {"exp": NOW, "x": "y" * 1000}], ids=["usual", "least", "long"])
def test_a_token_is_what_itsdangerous_signs(purpose: str, keys: list[str], claims: dict[str, Any]) -> None:
    signer = TimestampSigner(keys, salt=purpose, key_derivation="hmac", digest_method=hashlib.sha256)
    text = json.dumps(claims, ensure_ascii=False, separators=(",", ":")).encode()
    with patch.object(TimestampSigner, "get_timestamp", return_value=NOW):
        expected = signer.sign(base64_encode(text)).decode()
    assert Tokens(keys).sign(purpose, claims, now=NOW) == expected


def test_a_good_token_gives_its_claims() -> None:
    assert tokens.verify("access", tokens.sign("access", CLAIMS, now=NOW), now=NOW) == CLAIMS


class TestVectors:
    @pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda vector: vector["token"][-8:])
    def test_a_valid_one_passes(self, vector: dict[str, Any]) -> None:
        keys = vector.get("keys", VECTORS["keys"])
        assert Tokens(keys).verify(vector["purpose"], vector["token"], now=0) == vector["claims"]

    @pytest.mark.parametrize("vector", VECTORS["invalid"], ids=lambda vector: vector["why"])
    def test_an_invalid_one_is_refused(self, vector: dict[str, Any]) -> None:
        with pytest.raises(TokenError):
            Tokens(vector.get("keys", VECTORS["keys"])).verify(vector["purpose"], vector["token"])

    def test_there_are_some_of_every_purpose_that_the_edge_verifies(self) -> None:
        assert {"access", "link", "part"} <= {vector["purpose"] for vector in VECTORS["valid"]}
        assert len(VECTORS["invalid"]) >= 5


def test_every_purpose_is_a_world_of_its_own() -> None:
    for signed in PURPOSES:
        token = tokens.sign(signed, CLAIMS, now=NOW)
        assert [purpose for purpose in PURPOSES if not refused(token, purpose)] == [signed]


class TestExpiry:
    @pytest.mark.parametrize(("exp", "expired"), [(NOW - 1, True), (NOW, True), (NOW + 1, False)])
    def test_a_token_is_good_before_its_expiry_only(self, exp: int, expired: bool) -> None:
        token = tokens.sign("access", {"exp": exp}, now=NOW)
        if expired:
            with pytest.raises(TokenExpired):
                tokens.verify("access", token, now=NOW)
        else:
            assert tokens.verify("access", token, now=NOW) == {"exp": exp}

    @pytest.mark.parametrize("claims", [{}, {"exp": None}, {"exp": "9999999999"}, {"exp": 9e9}, [9999999999], "x", 1])
    def test_a_token_without_a_whole_numbers_expiry_is_none(self, claims: Any) -> None:
        assert refused(tokens.sign("access", claims, now=NOW))

    def test_an_expired_token_of_another_purpose_is_invalid_not_expired(self) -> None:
        assert refused(tokens.sign("link", {"exp": 1}, now=NOW), "access")


class TestRotation:
    def test_an_older_key_still_verifies_and_the_newest_signs(self) -> None:
        assert not refused(Tokens([OLD]).sign("access", CLAIMS, now=NOW))
        assert refused(tokens.sign("access", CLAIMS, now=NOW), by=Tokens([OLD]))

    def test_a_retired_key_verifies_no_more(self) -> None:
        assert refused(Tokens([OLD]).sign("access", CLAIMS, now=NOW), by=Tokens([NEW]))

    def test_a_foreign_key_never_verifies(self) -> None:
        assert refused(Tokens([FOREIGN]).sign("access", CLAIMS, now=NOW))


class TestSpellings:
    """itsdangerous alone takes several texts for one signature; each but one is refused."""

    token = tokens.sign("access", CLAIMS, now=NOW)

    def test_the_last_characters_unused_bits_are_zero(self) -> None:
        last = BASE64URL.index(self.token[-1])
        others = [self.token[:-1] + BASE64URL[last ^ bits] for bits in (1, 2, 3)]
        assert base64.urlsafe_b64decode(others[0][-43:] + "=") == base64.urlsafe_b64decode(self.token[-43:] + "=")
        assert all(refused(other) for other in others)

    @pytest.mark.parametrize(
        "change",
        [
            lambda token: token + "=",
            lambda token: token + " ",
            lambda token: token + "\n",
            lambda token: " " + token,
            lambda token: token[:-1] + "\n" + token[-1:],
            lambda token: token[:-43] + "=" + token[-42:],
            lambda token: token[:-43] + "!" + token[-42:],
            lambda token: token[:-43] + "!" * 43,
            lambda token: token[:-43] + "é" * 43,
            lambda token: token[:-43] + "\ud800" * 43,
            lambda token: token[:-43] + "+" + token[-42:],
            lambda token: token[:-43] + "/" * 43,
            lambda token: token[:-43] + "A" * 43,
            lambda token: token.replace(".", ".."),
            lambda token: "." + token,
            lambda token: token[1:],
            lambda token: token.partition(".")[2],
            lambda token: token.rpartition(".")[0],
            lambda token: token[-43:],
            lambda token: "." + token[-43:],
            lambda token: ".." + token[-43:],
            lambda token: "",
            lambda token: "." * 43,
            lambda token: "A" * 43,
            lambda token: token + "." + token,
            lambda token: token.swapcase(),
        ],
    )
    def test_any_other_spelling_is_refused(self, change: Any) -> None:
        assert refused(change(self.token))

    def test_a_token_longer_than_the_edge_reads_is_refused(self) -> None:
        def of(length: int) -> str:
            return tokens.sign("access", {"exp": NOW + 1, "x": "y" * length}, now=NOW)

        fits = max((of(n) for n in range(1400, 1520) if len(of(n)) <= MAX_LENGTH), key=len)
        longer = next(of(n) for n in range(1400, 1520) if len(of(n)) > MAX_LENGTH)
        assert not refused(fits)
        assert refused(longer)


@given(st.data())
def test_no_mutation_of_a_token_passes(data: st.DataObject) -> None:
    token = tokens.sign("access", CLAIMS, now=NOW)
    at = data.draw(st.integers(0, len(token) - 1))
    kind = data.draw(st.sampled_from(["replace", "insert", "delete", "swap"]))
    character = data.draw(st.sampled_from(BASE64URL + ".=+/ \n\0é"))
    changed = {
        "replace": token[:at] + character + token[at + 1 :],
        "insert": token[:at] + character + token[at:],
        "delete": token[:at] + token[at + 1 :],
        "swap": token[:at] + token[at : at + 2][::-1] + token[at + 2 :],
    }[kind]
    assert changed == token or refused(changed)


@given(st.text(max_size=200))
def test_no_text_breaks_the_parser(text: str) -> None:
    assert refused(text)
    assert refused(f"{text}.{text}.{'A' * 43}")


class TestDerive:
    def test_bytes_depend_on_the_key_and_on_where_each_part_ends(self) -> None:
        seen = {
            tokens.derive(b"ab", b"c"),
            tokens.derive(b"a", b"bc"),
            tokens.derive(b"abc"),
            tokens.derive(b"abc", b""),
            Tokens([OLD]).derive(b"ab", b"c"),
        }
        assert len(seen) == 5
        assert tokens.derive(b"ab", b"c") == Tokens([FOREIGN, NEW]).derive(b"ab", b"c")


def test_what_is_sealed_is_in_no_token_and_bound_to_what_it_signs() -> None:
    tokens, secret = Tokens(["k" * 32, "l" * 32]), bytes(range(32))
    claims = {"size": 5, "sha256": "ab" * 32, "to": "http://h/k?a=b", "exp": 2**40}

    def seal(of: Tokens, **changes: object) -> bytes:
        found: str = of.verify("part", of.sign("part", {**claims, **changes}, sealed=secret))["seal"]
        return bytes.fromhex(found)

    seals = [seal(tokens), seal(tokens, size=6), seal(tokens, to="http://h/l"), seal(tokens, sha256="cd" * 32)]
    seals.append(seal(Tokens(["k" * 32])))
    assert seal(tokens) == seals[0]
    assert len({secret, *seals}) == 6
    with pytest.raises(ValueError, match="zip"):
        tokens.sign("part", claims, sealed=b"too short")
